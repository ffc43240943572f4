"""What a document passes through, as blocks of datatrove: data_gen's own functions (documents.py, web_text.py, language_id.py,
near_documents.py) behind its classes. What is a good text is decided there and not here.

A task of `clean`: reader → Prepare → FILTERS, cheap ones first → Facts → writer → SaveTally; the one of `choose`: Choose; a task of
`write`: Cleaned → Chosen → writer → SaveTally. Blocks reach the workers pickled, so they hold values, and no pack, identifier or
open file: those are made where the task runs.
"""

import io
import posixpath
import unicodedata
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
from datatrove.data import Document
from datatrove.io import DataFolder, get_datafolder
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters.base_filter import BaseFilter

from data_gen import UsageError, documents, web_text
from data_gen.ingest_config import IngestConfig
from data_gen.ingest_counts import GzipWriter, Removed, Tally, read_tallies
from data_gen.language_id import UNKNOWN, Identifier, language_of, load_labeller
from data_gen.languages import Pack, load_label
from data_gen.near_documents import CHOICES, FACTS, choose, document_facts
from data_gen.record import canonical_json, record_id

CLEANED, FACTS_OF, CHOSEN, EVALUATION = "work/cleaned", "work/facts", "work/chosen", "work/evaluation.npy"
SEEN = 300  # letters that tell a script
LEAST = 50  # documents whose languages say something about a corpus
# The columns of the output, where they are known, in their order.
_COLUMNS = ("url", "domain", "date", "title", "licence", "source", "source_id", "news", "file", "row")


class Prepare(PipelineStep):
    """Gives a document its id for good, and its domain. The id is a hash of language and normalised text as read: masking and
    cutting do not change it, nor does the task that the document came to.
    """

    type, name = "prepare", "id, domain"

    def __init__(self, config: IngestConfig, tally: Tally) -> None:
        super().__init__()
        self.language, self.tally = config.language, tally

    def run(self, data: Iterable[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        normalise = _pack(self.language).normalise
        self.tally.clear()
        for doc in data:
            self.tally.read += 1
            self.tally.text_bytes += len(doc.text.encode())
            doc.metadata["normal"] = normalise(doc.text)
            doc.id = record_id(f"{self.language}\n{doc.metadata['normal']}")
            url = doc.metadata.setdefault("url", "")
            doc.metadata["domain"] = web_text.domain_of(url)
            yield doc


class Rule(BaseFilter):
    """A filter that asks `reason` why a document goes; None if it stays. What goes is written as it was read, until persons' data
    are masked.
    """

    def __init__(self, config: IngestConfig, removed: Removed) -> None:
        super().__init__(removed)
        self.config, self.rules, self.tally = config, config.rules, removed.tally

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        reason = self.reason(doc, _pack(self.config.language))
        if not reason:
            return True
        doc.text = doc.metadata.get("read", doc.text)
        return False, reason

    @abstractmethod
    def reason(self, doc: Document, pack: Pack) -> str | None:
        """Why the document goes, or None."""


class Readable(Rule):
    """Takes out what the reader could not read as a document, what has no words, and what is no text."""

    name = "readable"

    def reason(self, doc: Document, pack: Pack) -> str | None:
        return doc.metadata.get("fault") or documents.empty(doc.text) or documents.binary(doc.text)


class Undamaged(Rule):
    """Takes out text that a wrong decoding or a broken font made, and leaves the text normalised."""

    name = "undamaged"

    def reason(self, doc: Document, pack: Pack) -> str | None:
        reason = documents.glyphs(doc.text)  # which the normaliser makes letters of
        doc.metadata["read"], doc.text = doc.text, doc.metadata.pop("normal")
        return reason or documents.damaged(doc.text, pack, self.rules)


class OwnText(Rule):
    """Takes menus, notices and the like off a page, and out what was little else."""

    name = "own text"

    def reason(self, doc: Document, pack: Pack) -> str | None:
        before, doc.text = doc.text, web_text.strip_boiler_plate(doc.text, pack)
        return documents.boiler_plate(before, doc.text, self.rules)


class InScript(Rule):
    """Takes out what is in another script, and counts it."""

    name = "in the script"

    def reason(self, doc: Document, pack: Pack) -> str | None:
        reason = documents.wrong_script(doc.text, pack, self.rules)
        if reason:
            _seen(f"script {script_of(doc.text)}", self.tally, self.config)
        return reason


class NoTable(Rule):
    """Takes out tables and lists of numbers."""

    name = "no table"

    def reason(self, doc: Document, pack: Pack) -> str | None:
        return documents.digits_and_symbols(doc.text, pack, self.rules)


class Length(Rule):
    """Cuts at a sentence's end where the rules say so, and takes out what is too short or too long."""

    name = "length"

    def reason(self, doc: Document, pack: Pack) -> str | None:
        before, doc.text = doc.text, web_text.cut(doc.text, pack, self.rules)
        if before and not doc.text:
            return "too_long"  # and there was no place to cut it at
        return documents.length(doc.text, pack, self.rules)


class NoRepetition(Rule):
    """Takes out what says the same again and again."""

    name = "no repetition"

    def reason(self, doc: Document, pack: Pack) -> str | None:
        return documents.repetition(doc.text, pack, self.rules)


class InLanguage(Rule):
    """Takes out what is in another language or not surely in the own one, and counts what there was."""

    name = "in the language"

    def run(self, data: Iterable[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        yield from super().run(data, rank, world_size)
        if self.tally.languages.total() < self.config.check_after:
            _check_share(self.tally.languages, self.config)

    def reason(self, doc: Document, pack: Pack) -> str | None:
        named, confidence = language_of(doc.text, pack, _labeller(self.config.language, self.config.glotlid_model))
        _seen(named or UNKNOWN, self.tally, self.config)
        return documents.wrong_language(named, confidence, pack, self.rules)


def _seen(language: str, tally: Tally, config: IngestConfig) -> None:
    tally.languages[language] += 1
    if tally.languages.total() == config.check_after:
        _check_share(tally.languages, config)


def _check_share(seen: Counter[str], config: IngestConfig) -> None:
    """Raises UsageError where too few documents are in the language: the corpus is not what it was said to be. Of fewer than LEAST
    nothing is said.
    """
    if seen.total() < LEAST or (share := seen[config.language] / seen.total()) >= config.min_language_share:
        return
    shown = ", ".join(f"{name} {count / seen.total():.0%}" for name, count in seen.most_common(4))
    raise UsageError(
        f"--config.input={config.input} is not in {config.language}: of {seen.total()} documents {share:.0%} are, and at least "
        f"{config.min_language_share:.0%} must be. Seen: {shown}. Mend --config.language, or lower --config.min_language_share"
    )


def script_of(text: str) -> str:
    """The script of most of the first letters, by their Unicode names: script_of("यह हिन्दी है") == "Devanagari"."""
    scripts = Counter(unicodedata.name(letter, "unknown").split()[0] for letter in text[:SEEN] if letter.isalpha())
    return scripts.most_common(1)[0][0].title() if scripts else "unknown"


class NoPersonalData(Rule):
    """Puts masks in the place of addresses and numbers of persons, and takes out pages that are full of them."""

    name = "personal data"

    def reason(self, doc: Document, pack: Pack) -> str | None:
        del doc.metadata["read"]
        doc.text, count = web_text.mask_personal(doc.text, pack)
        reason = documents.personal_data(count, self.rules)
        self.tally.masked += 0 if reason else count
        return reason


class NoEvaluationData(Rule):
    """Takes out what has a long run of words in common with an evaluation file; with what is compared, `save_evaluation` wrote."""

    name = "evaluation data"

    def __init__(self, config: IngestConfig, removed: Removed, workdir: str) -> None:
        super().__init__(config, removed)
        self.workdir = workdir

    def reason(self, doc: Document, pack: Pack) -> str | None:
        return documents.evaluation_data(doc.text, _evaluation_runs(self.workdir), pack)


FILTERS = (
    Readable, Undamaged, OwnText, InScript, NoTable, Length, NoRepetition, InLanguage, NoPersonalData,
)  # fmt: skip


@lru_cache
def _evaluation_runs(workdir: str) -> frozenset[int]:
    return frozenset(_load(get_datafolder(workdir), EVALUATION).tolist())


@lru_cache
def _pack(label: str) -> Pack:
    return load_label(label)


@lru_cache
def _labeller(label: str, glotlid_model: str) -> Identifier:
    return load_labeller(_pack(label), glotlid_model)


class Facts(PipelineStep):
    """Notes of each document what `choose` must know, in `work/facts/RANK.npy`, one row a document in their order."""

    type, name = "facts", "facts for choosing"

    def __init__(self, config: IngestConfig, workdir: str) -> None:
        super().__init__()
        self.config, self.workdir = config, workdir

    def run(self, data: Iterable[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        pack, rows = _pack(self.config.language), bytearray()
        for doc in data:
            said = doc.metadata
            said["news"] = web_text.is_news(said["url"], doc.text, pack)
            row = document_facts(
                doc.id, doc.text, domain=said["domain"], news=said["news"], tie=canonical_json(said), pieces=pack.pieces_a_word
            )
            rows += row.tobytes()
            yield doc
        _save(get_datafolder(self.workdir), f"{FACTS_OF}/{rank:05d}.npy", np.frombuffer(bytes(rows), FACTS))


# --- choose and write ---------------------------------------------------------------------------------------------------


class Choose(PipelineStep):
    """The one task of `choose`: looks at the facts of all documents and writes for each task of `write` which of its stay."""

    type, name = "choose", "near documents, domains, news"

    def __init__(self, config: IngestConfig, workdir: str) -> None:
        super().__init__()
        self.config, self.workdir = config, workdir

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        folder, rules = get_datafolder(self.workdir), self.config.rules
        tallies = read_tallies(self.workdir, "clean", self.config.tasks)
        _check_share(sum((tally.languages for tally in tallies), Counter()), self.config)  # a task may have had too few to say it
        facts = [_load(folder, f"{FACTS_OF}/{rank:05d}.npy") for rank in range(self.config.tasks)]
        chosen = choose(facts, domain_cap=rules.domain_cap, max_news_share=rules.max_news_share)
        for rank, rows in enumerate(chosen):
            _save(folder, f"{CHOSEN}/{rank:05d}.npy", rows)
        yield from ()


class Cleaned(PipelineStep):
    """Reads what the task of the same number of `clean` wrote, and puts with each document what was chosen."""

    type, name = "reader", "cleaned documents"

    def __init__(self, workdir: str, tally: Tally) -> None:
        super().__init__()
        self.workdir, self.tally = workdir, tally

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        self.tally.clear()
        folder, path = get_datafolder(self.workdir), f"{CLEANED}/{rank:05d}.jsonl.zst"
        chosen = _load(folder, f"{CHOSEN}/{rank:05d}.npy")
        if not len(chosen):
            return  # datatrove's writer makes no file of nothing
        with folder.open(path, "rb", compression="zstd") as file:
            for line, choice in zip(io.BufferedReader(file), chosen, strict=True):
                doc = Document(**orjson.loads(line))
                self.tally.read += 1
                if choice["reason"]:
                    doc.metadata |= {"reason": CHOICES[choice["reason"]], "of": f"{choice['of']:016x}" if choice["of"] else ""}
                yield doc


class Chosen(BaseFilter):
    """Takes out what `choose` said."""

    name = "chosen"

    def __init__(self, removed: Removed) -> None:
        super().__init__(removed)

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        reason = doc.metadata.pop("reason", "")
        return (False, reason) if reason else True


class FlatWriter(GzipWriter):
    """`documents/RANK.jsonl.gz`: one object a line, id and text beside what is known of the page. Of its file
    the name alone: where it lay is a matter of the machine.
    """

    def __init__(self, folder: str, language: str) -> None:
        super().__init__(folder)
        self.language = language

    def _default_adapter(self, document: Document) -> dict[str, Any]:
        said = document.metadata | {"file": posixpath.basename(document.metadata["file"])}
        return {"id": document.id, "text": document.text, "language": self.language} | {
            name: said[name] for name in _COLUMNS if said.get(name) not in ("", None)
        }


# --- arrays in the work directory ---------------------------------------------------------------------------------------


def _save(folder: DataFolder, path: str, rows: np.ndarray) -> None:
    with folder.open(path, "wb") as file:
        np.save(file, rows, allow_pickle=False)


def _load(folder: DataFolder, path: str) -> np.ndarray:
    """Memory-mapped where the work directory is local."""
    if folder.is_local():
        return np.load(folder.resolve_paths(path), mmap_mode="r", allow_pickle=False)
    with folder.open(path, "rb") as file:
        return np.load(io.BytesIO(file.read()), allow_pickle=False)


def save_evaluation(folder: DataFolder, runs: frozenset[int]) -> None:
    """What NoEvaluationData compares with: hashes as contamination.load_ngrams gives them."""
    _save(folder, EVALUATION, np.array(sorted(runs), np.uint64))


def same_evaluation(folder: DataFolder, runs: frozenset[int]) -> bool:
    """Whether the work directory has these, or none yet."""
    return not folder.exists(EVALUATION) or np.array_equal(_load(folder, EVALUATION), np.array(sorted(runs), np.uint64))
