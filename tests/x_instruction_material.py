"""What several tests of the X-Instruction recipe share: packs, texts, a run's screen, one start of the program."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_gen.ask import Asker
from data_gen.journal import open_journal
from data_gen.languages import load_pack

UR, HI = load_pack("ur"), load_pack("hi")
TERMS = "https://example.com/terms training other models is allowed"
TEXT = "لاہور پنجاب کا دارالحکومت ہے۔ یہاں بادشاہی مسجد، شاہی قلعہ اور شالامار باغ ہیں جنہیں مغل بادشاہوں نے بنوایا۔"
PAIR = {"instruction": "Where is Lahore?", "response": "لاہور پنجاب میں ہے۔", "language": "ur"}
PARTS = [
    "لاہور پنجاب کا سب سے بڑا شہر ہے۔",
    "دریائے راوی اس کے کنارے بہتا ہے۔",
    "گرمیوں میں یہاں سخت گرمی پڑتی ہے۔",
    "لوگ شام کو باغوں میں جاتے ہیں۔",
    "آم کا موسم جون میں شروع ہوتا ہے۔",
    "کسان فصل کو وقت پر پانی دیتے ہیں۔",
    "بچے چھت پر پتنگ اڑاتے ہیں۔",
    "دادی رات کو کہانی سناتی ہیں۔",
    "چائے میں الائچی ڈالنے سے خوشبو آتی ہے۔",
    "استاد نے بچوں کو نظم یاد کرائی۔",
    "پہاڑوں پر برف دیر تک رہتی ہے۔",
    "مچھیرے صبح سویرے سمندر میں جاتے ہیں۔",
]


class Show:
    """Where a run says what it does; `on_update` may break it off."""

    def __init__(self, on_update: Callable[[], None] = lambda: None) -> None:
        self.said: list[str] = []
        self._on_update = on_update

    def say(self, line: str) -> None:
        self.said.append(line)

    def update(self, snapshot: Callable[[], Any]) -> None:
        snapshot()
        self._on_update()


@contextmanager
def asking(workdir: Path, *, show: Show | None = None, max_cost: float | None = None) -> Iterator[Asker]:
    """One start of the program."""
    with open_journal(str(workdir)) as journal:
        yield Asker(journal, show or Show(), max_cost)


def jsonl(path: Path, rows: Sequence[object]) -> str:
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)
