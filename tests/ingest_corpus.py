"""A small corpus for the tests of the ingest: pages made of the Urdu prose that is shipped, in several files, and one page for each
reason to go. No datatrove, and none of the code under test.
"""

import json
from importlib import resources
from pathlib import Path
from typing import Any

HOSTS = ("kitab.example", "www.sehat.example", "khabar.example", "safar.example")
PERSIAN = (
    "این کتاب دربارهٔ تاریخ ایران است و نویسنده آن را برای دانش‌آموزان نوشته است. او می‌گوید که تاریخ را باید با دقت خواند و از "
    "گذشته درس گرفت. در این کتاب داستان‌های زیادی از شاهان و مردم عادی آمده است که خواندن آن‌ها برای همه سودمند است."
)
FAULTS: dict[str, dict[str, Any]] = {  # by their reason
    "no_text": {"text": ["یہ"]},
    "empty": {"text": " \n "},
    "damaged": {"text": "یہ متن خراب ہ\ufffd\ufffd گیا ہے اور پڑھ\ufffd نہیں جا سکتا۔ " * 6},
    "wrong_script": {"text": "यह पृष्ठ हिन्दी में है और उर्दू में नहीं है। " * 6},
    "digits_and_symbols": {"text": "قیمت ۱۲۰۰ ۳۴۰۰ ۵۶۷۸ ۹۰۱۲ ۳۴۵۶ ۷۸۹۰ ۱۲۳۴ ۵۶۷۸ روپے۔ " * 10},
    "too_short": {"text": "یہ بہت چھوٹا صفحہ ہے۔"},
    "repeated_lines": {"text": "\n".join(["یہ سطر بار بار آتی ہے اور نئی بات نہیں کہتی۔"] * 12)},
    "wrong_language": {"text": PERSIAN},
}


def prose() -> list[str]:
    """Texts of 300 letters and more: a few paragraphs each, none of them in two texts."""
    folder = resources.files("data_gen") / "text" / "ur"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".txt")), key=lambda file: file.name)
    texts, text = list[str](), ""
    for paragraph in (part for file in files for part in file.read_text(encoding="utf-8").split("\n\n")):
        text = f"{text}\n\n{paragraph.strip()}".strip()
        if len(text) >= 300:
            texts.append(text)
            text = ""
    return texts


def pages(count: int) -> list[dict[str, Any]]:
    """`count` good pages, one of each fault, page 3 again, and page 5 with a sentence more; each with a url of its own."""
    texts = prose()[:count]
    rows: list[dict[str, Any]] = [{"text": text, "date": "2024-05-01"} for text in texts]
    rows += [dict(fault) for fault in FAULTS.values()]
    rows += [{"text": texts[3]}, {"text": texts[5] + " یہ جملہ نیا ہے۔"}]
    for number, row in enumerate(rows):
        row["url"] = f"https://{HOSTS[number % len(HOSTS)]}/{number}"
    return rows


def write(folder: Path, rows: list[dict[str, Any]], files: int = 7) -> Path:
    """The rows in some files of JSONL. In 7, four tasks meet the two pages of one text in another order than one task."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows[number::files]]
        (folder / f"{number}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder
