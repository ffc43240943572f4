"""Checks of an answer that a model is asked for: is it good, is it decent, does another way lead to the same? Requests and verdicts
only; acceptance.py says when to ask and what follows.

    quality           a judge's mark from 1 to 5
    ethics            a judge's pass or fail
    majority          the item solved again, k times: most solutions must agree with its answer
    back_translation  the answer translated back: chrF (Popović 2015) with the text it came from

All items of a reply are put together into one request a check (and sample), as numbered blocks; so is the reply.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import regex

from data_gen.checks import after_mark, choices, chosen, final_answer, numbers, recomputed
from data_gen.config import SelfInstructConfig
from data_gen.languages import ENGLISH
from data_gen.prompt import build_body, reply_content
from data_gen.record import Item
from data_gen.task import Task
from data_gen.text import fold_digits, script_share, tokens

REASONS = ("majority_differs", "back_translation_low", "no_source_text", "ethics_failed", "quality_low", "unchecked")
AGAIN = 100  # more than there are samples
PROMPT_OF = {"quality": "quality", "ethics": "ethics", "majority": "solve", "back_translation": "back_translate"}
_BLOCK = regex.compile(r"^[ \t]*#{2,4}[ \t]*(\d{1,4})[ \t.:]*$", regex.MULTILINE)
# A whole mark: 4, 4/5 and 4 of 5, but none of 3.5, 0/5, 1-5 and 10.
_MARK = regex.compile(r"(?<![\d.\-–/]|\bof )[1-5](?!\.?\d|[-–])")
# A verdict opens a line or follows a colon; what stands elsewhere may be part of the reasons.
_MARK_IN_PLACE = regex.compile(rf"(?:^|:)[^\w:]*({_MARK.pattern})", regex.MULTILINE)
_PASS_IN_PLACE = regex.compile(r"(?:^|:)[^\w:]*(pass|fail)(?:e[ds]|s)?\b", regex.MULTILINE)
_PASS, _FAIL = regex.compile(r"\bpass(?:e[ds])?\b"), regex.compile(r"\bfail|(?:not|n['’]t|never) pass")
_AFTER_COLON = regex.compile(r"[^:؟?\"“«]*[:؟?]\s*(\S.*)", regex.DOTALL)
_QUOTED = regex.compile(r"[^\"“«]*[\"“«](.+)[\"”»]", regex.DOTALL)
MIN_SOURCE_WORDS = 4  # before "… کا انگریزی میں ترجمہ کریں"; "اس جملے کا" is no text


@dataclass(frozen=True)
class Question:
    """One request that is to be made: which check, which of its samples, of which items (by their number in the reply). What a
    reply leaves out is asked once again, as sample + AGAIN.
    """

    check: str
    sample: int
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class Verdict:
    """What a check says of one item: the score that is kept with it, and the reason against it, or None."""

    score: float | None
    reason: str | None


def source_text(item: Item, task: Task) -> str:
    """What a translation item asks to have translated, or "": after the request and a colon, in quotation marks, or before the
    request. "… ترجمہ کریں: Good morning.", "«Good morning.» کا اردو ترجمہ کریں۔" → "Good morning."
    """
    if item.input:
        return item.input
    patterns, asked = task.pack.patterns, item.instruction
    request = (patterns.into_english if item.language == ENGLISH else patterns.into).search(asked)
    if found := _AFTER_COLON.match(asked, request.end() if request else 0) or _QUOTED.match(asked):
        return found[1].strip().strip('"“”«»')
    before = asked[: request.start()] if request else ""
    foreign = item.language != ENGLISH and script_share(before, "Latin") > 0.5
    return before.strip() if foreign or len(tokens(before)) >= MIN_SOURCE_WORDS else ""


def _applies(check: str, item: Item) -> bool:
    return check != "majority" or not recomputed(item.output)  # a sum is recomputed, which is cheaper and surer


def questions(task: Task, items: Mapping[int, Item], config: SelfInstructConfig) -> list[Question]:
    """The requests that the task's checks need for these items; [] where none is on or applies."""
    samples = {
        "majority": config.checks.majority_samples,
        "back_translation": int(config.checks.min_chrf > 0),
        "ethics": int(config.checks.ethics),
        "quality": int(config.checks.min_quality > 0),
    }
    asked = []
    for check in task.rules.checks:
        wanted = tuple(number for number, item in items.items() if _applies(check, item))
        asked += [Question(check, sample, wanted) for sample in range(samples.get(check, 0)) if wanted]
    return asked


@lru_cache
def _instructions(check: str) -> str:
    return (resources.files("data_gen") / "tasks" / "checks" / f"{PROMPT_OF[check]}.txt").read_text(encoding="utf-8").strip()


def _block(check: str, item: Item, task: Task) -> str:
    if check == "back_translation":
        into = "English" if item.language != ENGLISH else task.pack.name
        said = item.output if task.rules.source != ENGLISH else "\n".join(filter(None, (item.instruction, item.input, item.output)))
        return f"Into: {into}\nText: {said}"
    lines = [f"Instruction: {item.instruction}"] + [f"Input: {item.input}"] * bool(item.input)
    return "\n".join(lines + [f"Output: {item.output}"] * (check != "majority"))


def question_body(config: SelfInstructConfig, task: Task, question: Question, items: Sequence[Item], rng: random.Random) -> str:
    """The exact text of the request that asks `question` about its items."""
    head = f"Check: {PROMPT_OF[question.check]}\nLanguage: {task.pack.name} ({task.pack.code})\nSample: {question.sample + 1}\n"
    asked = _instructions(question.check).replace("{language}", task.pack.name)
    blocks = [f"### {number}\n{_block(question.check, item, task)}" for number, item in enumerate(items, start=1)]
    messages = [{"role": "user", "content": f"{head}{asked}\n\n" + "\n".join(blocks)}]
    cool = {} if question.check == "majority" or config.temperature is None else {"temperature": 0.0}
    return build_body(config, messages, rng, **cool)


def read_answers(question: Question, reply: str | None) -> dict[int, str]:
    """What a reply says of each item, by the item's number: "### 1\\n4\\n### 2\\n5" of items 3 and 7 → {3: "4", 7: "5"}.

    Items that it leaves out are missing here, and so are all when there is no reply.
    """
    if reply is None:
        return {}
    parts = _BLOCK.split(reply_content(reply))
    said = {int(number): text.strip() for number, text in zip(parts[1::2], parts[2::2], strict=True)}
    return {number: said[place] for place, number in enumerate(question.numbers, start=1) if said.get(place)}


def left_out(question: Question, answers: Mapping[int, str]) -> Question | None:
    """What is to be asked again; None where nothing was left out, or it was asked again already."""
    missing = tuple(number for number in question.numbers if number not in answers)
    return Question(question.check, question.sample + AGAIN, missing) if missing and question.sample < AGAIN else None


def _majority(item: Item, task: Task, answers: Sequence[str]) -> Verdict:
    own = final_answer(item, task) or item.output
    agree = sum(_agrees(own, after_mark(answer, task) or answer, choices(item, task)) for answer in answers)
    share = agree / len(answers)
    return Verdict(round(share, 3), None if 2 * agree > len(answers) else "majority_differs")


def _agrees(own: str, other: str, offered: Mapping[str, str]) -> bool:
    """Two solutions have the letter chosen, the numbers, or (where either has none) the words in common: "1/2 کلو" and "0.5", "علی
    کے پاس 3 تھے، اب 5 ہیں" and "5", "سلیم (12 سال)" and "سلیم".
    """
    if offered and all(letters := [_letter(own, offered), _letter(other, offered)]):
        return letters[0] == letters[1]
    one, two = numbers(own), numbers(other)
    if one and two:
        return one == two or (len(one) == 1 and one[0] in two) or (len(two) == 1 and two[0] in one)
    short, long = sorted((Counter(tokens(own)), Counter(tokens(other))), key=lambda words: words.total())
    return bool(short) and short <= long


def _letter(text: str, offered: Mapping[str, str]) -> str:
    """The letter chosen, or that of the option whose words are given: "ب", "(ب) لاہور" and "لاہور" → "ب"."""
    letter, said = chosen(text, offered)
    return letter or next((own for own, option in offered.items() if tokens(option) == tokens(said)), "")


def chrf(hypothesis: str, reference: str) -> float:
    """chrF of one text, 0 to 100, by sacrebleu: characters' n-grams up to 6, no words, β = 2. Case and the digits' script do not
    count.
    """
    from sacrebleu.metrics import CHRF

    return float(CHRF().sentence_score(fold_digits(hypothesis).casefold(), [fold_digits(reference).casefold()]).score)


def verdict(
    check: str, item: Item, task: Task, answers: Sequence[str | None], config: SelfInstructConfig, original: str = ""
) -> Verdict:
    """What the answers to a check's samples (None: the reply left the item out) say of one item.

    `original`: the English text that an item was translated from. An item that half or more of the replies leave out is unchecked.
    """
    given = [answer for answer in answers if answer]
    if 2 * len(given) <= len(answers):
        return Verdict(None, "unchecked")
    if check == "majority":
        return _majority(item, task, given)
    if check == "back_translation":
        source = original or source_text(item, task)
        if not source:
            return Verdict(None, "no_source_text")
        score = chrf(given[0], source)
        return Verdict(round(score, 1), None if score >= config.checks.min_chrf else "back_translation_low")
    if check == "ethics":
        passed = _passed(given[0].casefold())
        return Verdict(None, "unchecked") if passed is None else Verdict(float(passed), None if passed else "ethics_failed")
    mark = _mark(fold_digits(given[0]))
    return Verdict(mark, "unchecked" if mark is None else None if mark >= config.checks.min_quality else "quality_low")


def _mark(text: str) -> float | None:
    """The mark that a judge gives: "Score (1-5): 4" → 4; None where it cannot be told, as of "3.5"."""
    found = _MARK_IN_PLACE.findall(text)[-1:] or list(set(_MARK.findall(text)))
    return float(found[0]) if len(found) == 1 else None


def _passed(text: str) -> bool | None:
    """Pass or fail, of text in small letters: "verdict: **pass**" → True, "it cannot pass" → False; None where neither is said."""
    if found := _PASS_IN_PLACE.findall(text):
        return bool(found[-1] == "pass")
    return False if _FAIL.search(text) else True if _PASS.search(text) else None
