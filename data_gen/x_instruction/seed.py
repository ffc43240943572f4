"""Stage seed: pairs of an English instruction and an answer in the language, on two sides; and the documents that are to get one.

A pair comes as it is (an answer in the language), or in English, and then the teacher translates the answer there and back. Sides
go by the instruction: the same one is held out in all languages or in none.
"""

import glob
import gzip
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any

import regex

from data_gen import UsageError, web_text
from data_gen.ask import Question
from data_gen.contamination import WORDS, contaminated, ngrams_of
from data_gen.ingest import run as ingest
from data_gen.ingest_config import IngestConfig
from data_gen.judging import chrf
from data_gen.language_id import Identifier, language_of
from data_gen.languages import ENGLISH, Pack
from data_gen.readable import percent
from data_gen.record import record_id
from data_gen.text import fold_digits, script_share, tokens
from data_gen.x_instruction.config import SAMPLE, SeedConfig
from data_gen.x_instruction.instruction_rules import dangling, is_english
from data_gen.x_instruction.stage import Row, Stage, file_digest
from data_gen.x_instruction.work import NotGood, Work

PAIR = ("instruction", "response", "language")
MIN_SCRIPT = 0.8  # of the letters of an answer, in the script of its language
_NUMBER = regex.compile(r"\d+")
TRANSLATE = "Translate the text into {language}. Keep its lines, lists and numbers. Write the translation alone.\n\n{text}"


# --- files of pairs -----------------------------------------------------------------------------------------------------


def read_pairs(paths: Sequence[str], kind: str, languages: Sequence[str], wanted: Sequence[str] = PAIR) -> dict[str, list[Row]]:
    """Rows by language of JSONL files, or of those shipped ("sample"; kind: seed or anchor). Rows in other languages than these and
    English are left out. Raises UsageError naming file and line of what is no row.
    """
    found: dict[str, list[Row]] = {}
    for name, text in _files(paths, kind, languages):
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip():
                continue
            row = _row(line, f"{name}:{number}", wanted)
            if row["language"] in (*languages, ENGLISH):
                found.setdefault(row["language"], []).append(row)
    return found


def _files(paths: Sequence[str], kind: str, languages: Sequence[str]) -> Iterator[tuple[str, str]]:
    for path in paths:
        if path == SAMPLE:
            folder = resources.files("data_gen") / "x_instruction" / "shipped" / kind
            shipped = sorted(file.name.removesuffix(".jsonl") for file in folder.iterdir())
            for code in languages:
                if code not in shipped:
                    raise UsageError(f"no {kind} is shipped for {code}; there are {', '.join(shipped)}. Give files of your own")
                yield f"the {kind} shipped for {code}", (folder / f"{code}.jsonl").read_text(encoding="utf-8")
            continue
        try:
            with open(path, encoding="utf-8-sig") as file:
                yield path, file.read()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{kind} {path} cannot be read: {error}") from error


def _row(line: str, where: str, wanted: Sequence[str]) -> Row:
    there = "a row is a JSON object with " + ", ".join(wanted)
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UsageError(f"{where}: no JSON ({error}); {there}") from error
    if not isinstance(row, dict) or (missing := [name for name in wanted if row.get(name) in (None, "")]):
        raise UsageError(f"{where}: {'no object' if not isinstance(row, dict) else 'lacks ' + ', '.join(missing)}; {there}")
    if wrong := [name for name in PAIR if not isinstance(row[name], str)]:
        raise UsageError(f"{where}: {wrong[0]} is {row[wrong[0]]!r}; expected text")
    return row


def files_digest(paths: Sequence[str], kind: str, languages: Sequence[str]) -> list[list[str]]:
    """What a stage depends on: name and digest of each file."""
    texts = _files(paths, kind, languages)
    return [[os.path.basename(name), hashlib.sha256(text.encode()).hexdigest()[:16]] for name, text in texts]


# --- the stage ----------------------------------------------------------------------------------------------------------


def seed_inputs(work: Work) -> dict[str, Any]:
    """What stage seed depends on."""
    settings = work.settings("seed", "seeds")
    settings["seeds.input"] = files_digest(work.config.seeds.input, "seed", work.languages)
    if read_pairs(work.config.seeds.input, "seed", work.languages).get(ENGLISH):
        settings["teacher.model"] = work.config.teacher.model
    return {"languages": work.languages, **settings}


def shared(anchor: Sequence[Row], pairs: Sequence[Row], pack: Pack) -> list[Row]:
    """The anchor's rows of a language that have 13 words running in common with answers of the seed: what is trained on says
    nothing of what is measured.
    """
    size = WORDS * pack.pieces_a_word
    runs = ngrams_of((pack.normalise(row["response"]) for row in pairs), size)
    return [row for row in anchor if row["lang"] == pack.code and contaminated(row["response"], runs, size)]


def given_pairs(work: Work) -> tuple[dict[str, list[Row]], list[Row]]:
    """The seed's pairs by language, and those in English. Raises UsageError where a language has none, or nobody translates."""
    given = read_pairs(work.config.seeds.input, "seed", work.languages)
    english = given.pop(ENGLISH, [])
    if english:
        work.config.check_teacher(f"seeds.input has {len(english)} pairs in English, which the teacher translates")
    for code in work.languages:
        if not given.get(code) and not english:
            raise UsageError(f'seeds.input has no pair for {code}: rows need "language": "{code}", or "en" and a teacher')
    return given, english


def make_seed(work: Work, stage: Stage) -> None:
    """Rows {id, lang, instruction, response, side}."""
    config, (given, english) = work.config.seeds, given_pairs(work)
    found: dict[str, Any] = {}
    kept: dict[str, list[Row]] = {}
    for code, pack in work.packs.items():
        pairs = [(row, "") for row in given.get(code, [])] + translated(work, stage, english, pack)
        rows: dict[str, Row] = {}
        taken = set[str]()
        came = len(given.get(code, [])) + len(english)
        for row, original in pairs:
            pair = _pair(row, pack)
            reason = pair_reason(pair, original, pack, work.labellers[code], config)
            if reason is None and pair["response"] in taken:
                reason = "duplicate"  # one answer under two instructions might come on both sides
            if reason:
                stage.reject(code, reason, pair["id"], pair["response"])
            else:
                rows[pair["id"]] = pair
                taken.add(pair["response"])
        kept[code] = sorted(rows.values(), key=lambda row: row["id"])
        _check_yield(code, len(rows), came, stage, config)
        found[code] = {"came": came, "kept": len(rows)}
    smallest = min(map(len, kept.values()))
    share = min(1 / 3, config.heldout_share + config.heldout_rows / max(smallest, 1))
    for code, several in kept.items():
        for row in several:
            row["side"] = "heldout" if _place(row["instruction"], work.config.seed) < share else "train"
        held = sum(row["side"] == "heldout" for row in several)
        found[code]["heldout"] = held
        if held < config.min_heldout or held == len(several):
            raise UsageError(
                f"the seed of {code} has {len(several)} pairs, {held} of them held out, and {config.min_heldout} are wanted "
                "for the gates to say anything: give more pairs, or a larger seeds.heldout_share (a smaller seeds.min_heldout says "
                "less)"
            )
        stage.write(code, several)
    stage.finish(seed_inputs(work), found=found | {"translated": len(english)})


def _pair(row: Row, pack: Pack) -> Row:
    instruction, response = row["instruction"].strip(), pack.normalise(row["response"])
    return {
        "id": record_id(f"{pack.code}\n{instruction}\n{response}"), "lang": pack.code, "instruction": instruction,
        "response": response,
    }  # fmt: skip


def _place(instruction: str, seed: int) -> float:
    """Where an instruction stands between 0 and 1, evenly and for good."""
    drawn = hashlib.blake2b(f"{seed} {' '.join(tokens(instruction))}".encode(), digest_size=8).digest()
    return int.from_bytes(drawn) / 2**64


def pair_reason(pair: Row, original: str, pack: Pack, identifier: Identifier, config: SeedConfig) -> str | None:
    """The first reason against a pair; `original` is the English text that its answer was translated from, or ""."""
    response, instruction = pair["response"], pair["instruction"]
    if not is_english(instruction):
        return "not_english"
    if dangling(instruction):
        return "dangling"
    if len(response) > config.max_letters:
        return "too_long"
    if script_share(response, pack.script) < MIN_SCRIPT:
        return "wrong_script"
    label, confidence = language_of(response, pack, identifier)
    surely_other = label not in ("", pack.glotlid) and confidence >= config.min_confidence
    if surely_other or (original and (label != pack.glotlid or confidence < config.min_confidence)):
        return "wrong_language"
    if original and numbers_in(original) != numbers_in(response):
        return "numbers_changed"
    return None


def numbers_in(text: str) -> list[str]:
    """The numbers of a text, sorted; of any script's digits: numbers_in("۲۰ اور 3") == ["20", "3"]."""
    return sorted(_NUMBER.findall(fold_digits(text)))


def _check_yield(code: str, kept: int, came: int, stage: Stage, config: SeedConfig) -> None:
    if kept < config.min_yield * came:
        why = ", ".join(f"{count} {reason}" for reason, count in stage.rejected().get(code, {}).items())
        raise NotGood(
            f"of {came} pairs for {code} {kept} ({percent(kept, came)}) are good enough, less than seeds.min_yield="
            f"{config.min_yield:g}: {why}. Look at them in {stage.directory}/rejected.jsonl.gz; mend the source"
        )


def translated(work: Work, stage: Stage, english: Sequence[Row], pack: Pack) -> list[tuple[Row, str]]:
    """English pairs with their answers in the language, and the English text; those that come back otherwise are rejected."""
    if not english:
        return []
    teacher, found = work.teacher(), list[tuple[Row, str]]()
    for row in (long := [row for row in english if len(row["response"]) > work.config.seeds.max_letters]):
        stage.reject(pack.code, "too_long", record_id(row["instruction"]), row["response"])  # before it is paid for
    english = [row for row in english if row not in long]
    there = [(row, translation(row["response"], pack.name)) for row in english]
    work.asker.ask(teacher, (question for _, question in there), title=f"translation into {pack.name}", wanted=len(there))
    answered = [(row, work.asker.answer(teacher, question)) for row, question in there]
    back = [(row, answer, translation(answer.text, "English")) for row, answer in answered if answer and not answer.cut]
    work.asker.ask(teacher, (question for *_, question in back), title=f"back from {pack.name}", wanted=len(back))
    for row, answer in answered:
        if answer is None or answer.cut:
            stage.reject(pack.code, "cut_off" if answer else "no_answer", record_id(row["instruction"]), row["response"])
    for row, answer, question in back:
        again = work.asker.answer(teacher, question)
        if again is None or chrf(again.text, row["response"]) < work.config.seeds.min_chrf:
            stage.reject(pack.code, "back_translation_low", record_id(row["instruction"]), answer.text)
        else:
            found.append(({**row, "response": answer.text}, row["response"]))
    return found


def translation(text: str, language: str) -> Question:
    """A text to be translated; its answer may be as long as its bytes, and no shorter than 256 tokens."""
    asked = TRANSLATE.format(language=language, text=text)
    longest = max(256, 3 * len(text.encode()) // 2)
    return Question(record_id(text), ({"role": "user", "content": asked},), {"max_tokens": longest, "temperature": 0.0})


# --- documents ----------------------------------------------------------------------------------------------------------


def document_directory(work: Work, code: str) -> str:
    """The ingest's work directory of a language; that of the shipped pages is made within the run's own."""
    given = work.config.documents_of(code)
    if given != SAMPLE:
        if not os.path.exists(os.path.join(given, "manifest.json")):
            raise UsageError(
                f"documents: {code}={given} has no manifest.json, so no ingest ended there: python launch/ingest.py "
                f"--config.language={work.packs[code].glotlid} --config.input=… --workdir={given}"
            )
        _check_language(work, code, given)
        return given
    directory = work.path("documents", code)
    ingest(IngestConfig(language=work.packs[code].glotlid, workers=1), directory, say=lambda line: None)
    return directory


def _check_language(work: Work, code: str, directory: str) -> None:
    with open(os.path.join(directory, "manifest.json"), encoding="utf-8") as file:
        made: dict[str, Any] = json.load(file)
    if made.get("language") != (wanted := work.packs[code].glotlid):
        raise UsageError(
            f"documents: {code}={directory} is an ingest of {made.get('language')}, and {code} wants {wanted}: python "
            f"launch/ingest.py --config.language={wanted} --config.input=… --workdir=DIR"
        )


def document_digest(work: Work, code: str) -> str:
    """Of the files of documents that the ingest wrote."""
    directory = document_directory(work, code)
    files = _document_files(directory)
    named = [[os.path.basename(name), file_digest(name)] for name in files]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:16]


def _document_files(directory: str) -> list[str]:
    files = sorted(glob.glob(os.path.join(directory, "documents", "*.jsonl.gz")))
    if not files:
        raise UsageError(f"{directory}/documents has no .jsonl.gz: the ingest kept nothing there")
    return files


def read_documents(work: Work, code: str) -> Iterator[Row]:
    """The documents of a language as {id, lang, response, source}, cut to length; response is "" for one too short then."""
    pack, rules = work.packs[code], work.config.rules()
    for name in _document_files(document_directory(work, code)):
        with gzip.open(name, "rb") as file:
            for line in file:
                row = json.loads(line)
                text = web_text.cut(pack.normalise(row["text"]), pack, rules)
                source = {key: row[key] for key in ("url", "domain", "date", "licence", "source") if row.get(key)}
                yield {
                    "id": row["id"], "lang": code, "response": text if len(text) >= rules.min_letters else "",
                    "source": source | {"news": bool(row.get("news"))},
                }  # fmt: skip


def tiny_texts(work: Work) -> Iterator[str]:
    """What the tiny base's tokenizer is learnt from: the seed, and a thousand documents a language."""
    for code in work.languages:
        for row in work.stage("seed").rows(code):
            yield row["instruction"]
            yield row["response"]
        for number, row in enumerate(read_documents(work, code)):
            if number < 1000:
                yield row["response"]
