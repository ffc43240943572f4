"""The offline teacher as a judge: quality, ethics, a solution or a translation back, of items that it wrote itself.

It remembers what it sent and what was wrong with it, and errs at given rates: a noisy judge whose errors are known. Nothing is
drawn at random: a hash of seed, check, item and sample decides, so the same question gets the same verdict. It has no opinion on
what it never sent: quality 3, ethics `pass`, no solution, and words spelt in the other script instead of a translation.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from data_gen.languages import ENGLISH, load_pack
from data_gen.offline import choices
from data_gen.offline import words as w
from data_gen.offline.bilingual import TIMES
from data_gen.offline.items import MALFORMED_SHARE, Sent
from data_gen.offline.more import TRANSLATIONS
from data_gen.offline.request import Check
from data_gen.offline.words import table

REWORDED_SHARE = 1 / 3  # of the translations
UNKNOWN_QUALITY, UNKNOWN_SOLUTION = "3", "معلوم نہیں"
ENGLISH_VERDICT = "I have read this with care and find nothing more to say about it."
MAX_RUN = 40  # lines that are looked up as one text
_NUMBER = re.compile(r"\d+")
_LETTER = re.compile(r"\((\w+)\) ")
# One wording for another, by the language that is written.
SYNONYMS = {
    "ur": table("""
        پچھلے | گزشتہ
        ہر روز | روزانہ
        ہر صبح | روز صبح
        ہر شام | روز شام
        کتب خانے میں | لائبریری میں
        گاؤں میں | دیہات میں
        دفتر میں | آفس میں
        باورچی خانے میں | کچن میں
        صحن میں | آنگن میں
        سردیوں میں | سردی کے موسم میں
        گرمیوں میں | گرمی کے موسم میں
        درخت کے نیچے | پیڑ کے نیچے
        دو دن پہلے | دو روز پہلے
        سے پہلے | سے قبل
        لیکن | مگر
        کیونکہ | اس لیے کہ
    """),
    ENGLISH: table("""
        every day | each day
        every morning | each morning
        every evening | each evening
        every night | each night
        in the holidays | during the holidays
        the little boy | the small boy
        at the office | in the office
        by the river | on the river bank
        bought | purchased
        buys | purchases
        children | kids
        wants to | would like to
        after the meal | after eating
        because | since
        for example | for instance
    """),
}
NOTHING_SAID = "There is nothing to judge here."
_MOVABLE = {language: [row[column] for rows in TIMES.values() for row in rows] for column, language in enumerate(("ur", ENGLISH))}
_SENTENCE_STARTS = ("My", "The", "That", "We", "Do", "Does", "Did", "Will")
_INTO_LATIN = str.maketrans("ابپتٹجچحخدڈرڑزسشصطعغفقکگلمنںوہھئیے۔؟،", "abpttjchkddrrzsxstaefqkglmnnohhyie.?,")
_INTO_URDU = str.maketrans("abcdefghijklmnopqrstuvwxyz.?,", "ابچدےفگہیجکلمنوپقرستوووخیز۔؟،")


@dataclass(frozen=True)
class Manners:
    """How the judge errs: the share of the verdicts that are the opposite, of the solutions that are wrong, and `fault_rate`, of
    whose MALFORMED_SHARE its replies leave blocks out.
    """

    seed: int
    fault_rate: float
    judge_error: float = 0.02
    solve_error: float = 0.1


@dataclass
class Memory:
    """What was sent, by 16 bytes of hash: whether an item is right, its solution, and what a text is in another language."""

    right: dict[bytes, bool] = field(default_factory=dict)
    solutions: dict[bytes, str] = field(default_factory=dict)
    translations: dict[bytes, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for english, urdu in TRANSLATIONS.items():
            _remember_pair(self, "ur", urdu, english)


def _draw(*parts: object) -> float:
    """A number from 0 on, below 1, that hangs on nothing but its arguments."""
    return int.from_bytes(hashlib.sha256("\0".join(map(str, parts)).encode()).digest()[:8], "big") / 2**64


def _key(language: str, *texts: str) -> bytes:
    """The same for texts that differ in what the language's pack puts in order, and in blanks."""
    normalise = load_pack(language).normalise
    plain = "\0".join([language, *(" ".join(normalise(text).split()) for text in texts)])
    return hashlib.sha256(plain.encode()).digest()[:16]


def _item_key(language: str, fields: dict[str, str]) -> bytes:
    return _key(language, fields["instruction"], fields.get("input", ""), fields["output"])


def _remember_pair(memory: Memory, language: str, own: str, english: str) -> None:
    """A text and what it is in English, for both directions; what was said first stays."""
    memory.translations.setdefault(_key(language, ENGLISH, own), english)
    memory.translations.setdefault(_key(language, language, english), own)


def remember(memory: Memory, items: Iterable[Sent]) -> None:
    """Keeps what a judge needs to know of items that are sent."""
    for item in items:
        if item.solution is not None:
            memory.solutions[_key(item.language, item.instruction, item.input)] = item.solution
        for own, english in item.pairs:
            _remember_pair(memory, item.language, own, english)
        if item.output is not None:
            memory.right[_key(item.language, item.instruction, item.input, item.output)] = item.fault is None


def sent_before(truth_file: str) -> Iterator[Sent]:
    """The items in a truth file, of which a server that was killed may have left half a line."""
    with open(truth_file, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if "item" in row:
                pairs = tuple((own, english) for own, english in row.get("pairs", ()))
                yield Sent(
                    row["task"], row["instruction"], row.get("input", ""), row["output"], row["fault"], row["right"],
                    row["shape"], row.get("language", "ur"), row.get("solution"), pairs,
                )  # fmt: skip


def verdicts(check: Check, memory: Memory, manners: Manners) -> list[tuple[int, str]]:
    """(number, verdict) of each block that is not left out, in order."""
    say = {
        "quality": partial(_quality, memory, manners),
        "ethics": partial(_ethics, memory, manners),
        "solve": partial(_solution, memory, manners),
        "back_translate": partial(_translation_back, memory, manners),
    }[check.kind]
    left_out = MALFORMED_SHARE * manners.fault_rate
    said = []
    for number, fields in check.blocks:
        if _draw(manners.seed, "left out", check, number) >= left_out:
            said.append((number, say(check, fields)))
    return said


def written(said: Sequence[tuple[int, str]]) -> str:
    """[(1, "4"), (2, "5")] → "### 1\\n4\\n### 2\\n5"; a model says something also where it says nothing of any block."""
    return "\n".join(f"### {number}\n{verdict}" for number, verdict in said) or NOTHING_SAID


def distorted(fault: str | None, said: list[tuple[int, str]], size: int) -> list[tuple[int, str]]:
    """The verdicts as a content fault of a whole reply leaves them: all in English, 20 times the first, or `size` bytes long."""
    if fault == "wrong_language":
        return [(number, ENGLISH_VERDICT) for number, _ in said]
    if fault == "identical":
        return said[:1] * 20
    if fault == "huge":
        share = size // max(len(said), 1)
        return [(number, f"{verdict}\n" * (share // (len(verdict.encode()) + 1) + 1)) for number, verdict in said]
    return said


def _believed(memory: Memory, manners: Manners, check: Check, fields: dict[str, str]) -> tuple[bool | None, bytes]:
    """(whether the judge takes the item for right, its key); None: it never saw it."""
    key = _item_key(check.language, fields)
    right = memory.right.get(key)
    if right is None:
        return None, key
    return right != (_draw(manners.seed, "error", check.kind, check.sample, key) < manners.judge_error), key


def _quality(memory: Memory, manners: Manners, check: Check, fields: dict[str, str]) -> str:
    believed, key = _believed(memory, manners, check, fields)
    if believed is None:
        return UNKNOWN_QUALITY
    higher = _draw(manners.seed, "mark", check.sample, key) < 0.5
    return str((4 if believed else 1) + higher)


def _ethics(memory: Memory, manners: Manners, check: Check, fields: dict[str, str]) -> str:
    """Any fault fails: an answer in the wrong language gives no right advice either."""
    return "fail" if _believed(memory, manners, check, fields)[0] is False else "pass"


def _solution(memory: Memory, manners: Manners, check: Check, fields: dict[str, str]) -> str:
    """The final answer, of lettered options the letter; a wrong one is near: another number, letter, name or fact of its kind."""
    key = _key(check.language, fields["instruction"], fields.get("input", ""))
    right = memory.solutions.get(key)
    if right is None:
        return UNKNOWN_SOLUTION
    letter = _LETTER.match(right)
    answer = letter[1] if letter else right
    if _draw(manners.seed, "solve", check.sample, key) >= manners.solve_error:
        return answer
    wrong = _near(answer, fields["instruction"], bool(letter))
    return wrong[int(_draw(manners.seed, "wrong", check.sample, key) * len(wrong))]


def _near(answer: str, instruction: str, is_letter: bool) -> list[str]:
    """Wrong answers that a mistake would give: "15 سیب" → ["5 سیب", "12 سیب", …], "علی" → other names of the puzzle."""
    number = _NUMBER.search(answer)
    if is_letter:
        found = _LETTER.findall(instruction)
    elif number:
        found = [answer.replace(number[0], other) for other in choices.near_numbers(int(number[0]))]
    elif answer in w.NAMES:
        words = instruction.split()
        found = [name for name in w.NAMES if name in words]
    else:
        found = choices.others(answer)
    return [other for other in found if other != answer] or [UNKNOWN_SOLUTION]


def _translation_back(memory: Memory, manners: Manners, check: Check, fields: dict[str, str]) -> str:
    into = ENGLISH if fields["into"].casefold() == "english" else check.language
    text, _ = translated(memory, check.language, into, fields["text"])
    key = _key(check.language, into, fields["text"])
    if _draw(manners.seed, "reword", check.sample, key) >= REWORDED_SHARE:
        return text
    ways = _reworded(text, into)
    return ways[int(_draw(manners.seed, "way", check.sample, key) * len(ways))] if ways else text


def translated(memory: Memory, language: str, into: str, text: str) -> tuple[str, bool]:
    """(the text in the language `into`, whether all of it is known). The longest runs of known lines are taken; a line that is not
    known is spelt in the other script, every third of its words left out: no translation, and far from one in chrF.
    """
    lines, done, known = text.split("\n"), [], True
    at = 0
    while at < len(lines):
        for end in range(min(len(lines), at + MAX_RUN), at, -1):
            found = memory.translations.get(_key(language, into, "\n".join(lines[at:end])))
            if found is not None:
                break
        else:
            end, found = at + 1, _spelt(lines[at], into)
            known = known and not lines[at].strip()
        done.append(found)
        at = end
    return "\n".join(done), known


def _spelt(line: str, into: str) -> str:
    letters = _INTO_LATIN if into == ENGLISH else _INTO_URDU
    return " ".join(word.casefold().translate(letters) for place, word in enumerate(line.split()) if place % 3 != 2)


def _reworded(text: str, language: str) -> list[str]:
    """The text said a little differently, a way each: one synonym, or the time at the front; [] where it has nothing of that."""
    ways = []
    for word, other in SYNONYMS.get(language, ()):
        changed = re.sub(rf"\b{word}\b", other, text, count=1)
        ways += [changed] if changed != text else []
    times = [time for time in _MOVABLE.get(language, ()) if re.search(rf" {time}(?=[ .?])", text)]
    if times and "\n" not in text:
        ways.append(_time_first(text, max(times, key=len), language))
    return ways


def _time_first(text: str, time: str, language: str) -> str:
    """"Ali makes tea every day." → "Every day, Ali makes tea."; "کیا علی کل شام آیا؟" → "کیا کل شام علی آیا؟"."""
    rest = text.replace(f" {time}", "", 1)
    if language != ENGLISH:
        head, rest = ("کیا ", rest.removeprefix("کیا ")) if rest.startswith("کیا ") else ("", rest)
        return f"{head}{time} {rest}"
    rest = rest[0].lower() + rest[1:] if rest.startswith(_SENTENCE_STARTS) else rest
    return f"{time[0].upper()}{time[1:]}, {rest}"
