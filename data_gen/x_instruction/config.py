"""The typed config of the X-Instruction recipe: values, their bounds, and which of them decide what a stage makes.

The paper (arXiv 2405.19744) published no pipeline: its seed's size and source, the hyper-parameters of generator and evaluator, the
levels of the rating data, the number of rounds and the clusters are not known. What stands here is this project's choice, but for
32,000 a language, ten languages and the prompts, which are the authors'.
"""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from data_gen import UsageError
from data_gen.documents import DocumentRules
from data_gen.endpoint import OFFLINE, TeacherConfig, check_base_url
from data_gen.languages import load_pack

SAMPLE, TINY = "sample", "tiny"
ROLES = ("generator", "forward", "evaluator")


@dataclass(kw_only=True)
class RoleConfig:
    """A model with a task of its own. by: `trained` here from its recipe, or the config's `teacher`. url: of a server that somebody
    starts for it and that calls it by its name under models/; the run stops and says so where it does not. "": the driver starts a
    server and stops it again.
    """

    recipe: str = ""  # of launch/train.py; its own paths and template, the directories come from the driver
    by: Literal["trained", "teacher"] = "trained"
    url: str = ""


@dataclass(kw_only=True)
class SeedConfig:
    """Pairs of an English instruction and an answer in the language. input: JSONL files of {"instruction", "response", "language"},
    or "sample", those shipped; a row in English is translated by the teacher into every language.
    """

    input: tuple[str, ...] = (SAMPLE,)
    heldout_share: float = 0.1  # of the pairs, by instruction: the same one is on the same side in all languages
    heldout_rows: int = 200  # a language, beside the share; never more than a third of the pairs in all
    min_heldout: int = 20  # a language; with fewer no gate says anything
    max_letters: int = 2000
    min_chrf: float = 40.0  # of a translation, translated back
    min_confidence: float = 0.9  # of the language identifier, of a translation
    min_yield: float = 0.6  # of the pairs; with less the source is wrong


@dataclass(kw_only=True)
class GenerateConfig:
    """Documents in, candidates out. Lengths are in letters."""

    documents: int = 100_000  # a language, by the lowest ids: three for a sample of the final data
    min_letters: int = 200
    max_letters: int = 2500  # longer ones are cut at the end of a sentence
    max_news_share: float = 0.3
    samples: int = 2  # a document
    temperature: float = 0.7
    top_p: float = 0.9
    max_tokens: int = 128
    min_instruction: int = 10
    max_instruction: int = 400
    max_copied: float = 0.5  # of the instruction's runs of 5 words, those that stand in the text


@dataclass(kw_only=True)
class RateConfig:
    """Rating data and the score. A sample's score is the probability of the best of three levels."""

    at_least: int = 3000  # a language and level; fewer are told
    forward_tokens: int = 768
    forward_temperature: float = 0.7
    probabilities: Literal["auto", "logprobs", "votes"] = "auto"  # auto: votes where the endpoint gives no logprobs
    votes: int = 5
    keep: float = 0.7  # score from which a candidate is kept
    max_keep: float = 0.9  # of the candidates' documents: a rater that passes more, or less than min_keep, is none
    min_keep: float = 0.05
    cap: int = 100_000  # a language
    floor: int = 32_000  # a language; below it is told that it starves


@dataclass(kw_only=True)
class RefineConfig:
    """Rounds. anchor: JSONL files of {"instruction", "response", "language", "rating"} with 0, 1 or 2, rated by people or a strong
    teacher and never trained on; "sample": those shipped, 48 a language.
    """

    rounds: int = 2
    anchor: tuple[str, ...] = (SAMPLE,)
    min_anchor: int = 200  # a language; fewer are told
    max_fall: float = 0.02  # of the AUC against the anchor, from the best so far; beyond it a round is not kept and the loop stops
    min_move: float = 0.02  # of the share kept; below it there is nothing left to refine
    new_high: float = 1.0  # kept samples that join the rating data as the best level, for each pair of the seed
    new_pairs: float = 3.0  # kept samples that join the generator's pairs, for each pair of the seed


@dataclass(kw_only=True)
class DiversifyConfig:
    """embedder: tfidf (words, reduced by SVD; needs nothing), sentence_transformers (a local model) or endpoint (/embeddings)."""

    embedder: Literal["tfidf", "sentence_transformers", "endpoint"] = "tfidf"
    model: str = ""
    url: str = ""
    dimensions: int = 128  # of tfidf
    clusters: int = 1000  # a language
    target: int = 32_000  # a language
    max_cosine: float = 0.95  # of two English instructions


@dataclass(kw_only=True)
class OutputConfig:
    """Forms of the instruction in the final data, by share of the records: what native_share and system_share leave is English."""

    answer_in: float = 0.9  # of the English instructions, those that end in "Answer in {Language}."
    native_share: float = 0.0  # the instruction in the answer's language, translated by the teacher
    system_share: float = 0.1  # a system message names the language
    heldout_share: float = 0.02
    shard_records: int = 10_000
    licence: str = ""
    decontaminate: tuple[str, ...] = ()
    max_wrong_language: float = 0.01  # of the answers
    language_id: bool = True
    glotlid_model: str = ""


@dataclass(kw_only=True)
class SftConfig:
    """The comparison: every arm is trained by one recipe, for the same number of steps, and measured on the same pairs. translated,
    distilled: directories of shards (launch/self_instruct.py and launch/import_data.py make them); "": that arm is left out.
    """

    recipe: str = "configs/x_instruction_sft.py"
    single: bool = False  # a model for each language too, on that language's records
    translated: str = ""
    distilled: str = ""
    max_steps: int = 0  # of every arm; 0: the recipe's epochs over the smallest arm
    answers: int = 50  # held-out instructions a language that are answered
    answer_tokens: int = 512


@dataclass(kw_only=True)
class GatesConfig:
    """What a trained model must reach on held-out pairs before it is used."""

    english: float = 0.99  # of the generator's instructions
    dangling: float = 0.05  # at most, of them: those that speak of a text, link or picture that is not there
    distinct_2: float = 0.3  # different pairs of words among all
    cosine: float = 0.2  # mean, with the written instruction, by tfidf; 0.5 is usual with a neural embedder
    macro_f1: float = 0.85
    macro_f1_language: float = 0.75
    calibration: float = 0.1  # expected calibration error, at most
    length_correlation: float = 0.2  # Spearman's, of score and length, at most
    length_accuracy: float = 0.45  # of levels guessed by length alone, at most
    min_auc: float = 0.6  # against the anchor, every language


@dataclass(kw_only=True)
class XInstructionConfig:
    """languages: codes of packs. documents: "CODE=DIR" each, an ingest's work directory, or "sample". base: the Hugging Face model
    that every recipe starts from instead of its own; "tiny": a model of random weights made here, to try the programs.
    """

    seed: int = 0
    languages: tuple[str, ...] = ("ur", "hi")
    documents: tuple[str, ...] = (SAMPLE,)
    base: str = ""
    seeds: SeedConfig = field(default_factory=SeedConfig)
    generator: RoleConfig = field(default_factory=lambda: RoleConfig(recipe="configs/x_instruction_generator.py"))
    forward: RoleConfig = field(default_factory=lambda: RoleConfig(recipe="configs/x_instruction_forward.py"))
    evaluator: RoleConfig = field(default_factory=lambda: RoleConfig(recipe="configs/x_instruction_evaluator.py"))
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    rate: RateConfig = field(default_factory=RateConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    diversify: DiversifyConfig = field(default_factory=DiversifyConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    sft: SftConfig = field(default_factory=SftConfig)
    gates: GatesConfig = field(default_factory=GatesConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    max_errors: float = 0.05  # of the requests of a stage to one model; with more it stops
    serve_batch_size: int = 32  # requests that a server of the driver answers at a time
    serve_command: str = ""  # another server, for volume: "vllm serve {model} --served-model-name {name} --port {port}"

    def role(self, name: str) -> RoleConfig:
        """generator, forward or evaluator."""
        found: RoleConfig = getattr(self, name)
        return found

    def rules(self) -> DocumentRules:
        """How a document is cut."""
        return DocumentRules(min_letters=self.generate.min_letters, cut_at=self.generate.max_letters, max_letters=10**9)

    def documents_of(self, language: str) -> str:
        """An ingest's work directory, or "sample"."""
        named = dict(one.split("=", 1) for one in self.documents if "=" in one)
        return named.get(language, SAMPLE)

    def asks_teacher(self) -> list[str]:
        """Why the teacher is needed; [] where it is not (seeds in English are seen only when they are read)."""
        found = [name for name in ROLES if self.role(name).by == "teacher"]
        return found + ["output.native_share"] * (self.output.native_share > 0)

    def validate(self) -> None:
        """Raises UsageError naming the first field that makes no sense."""
        for name, value, low, high in self._bounds():
            if not low <= value <= high:
                raise UsageError(f"{name} is {value}; it must be between {low} and {high}")
        self._check_languages()
        if self.output.native_share + self.output.system_share > 1:
            raise UsageError("output.native_share and output.system_share are shares of the same records: together at most 1")
        if self.rate.keep <= 1 / 3 and self.base != TINY:
            raise UsageError(f"rate.keep is {self.rate.keep}; a guess gives each of three levels 0.33, so it must be more")
        if self.generate.documents < self.diversify.clusters:
            raise UsageError(
                f"generate.documents is {self.generate.documents} and diversify.clusters {self.diversify.clusters}: there must be "
                "more documents than clusters, ten times as many at the least"
            )
        if self.rate.min_keep > self.rate.max_keep:
            raise UsageError(
                f"rate.min_keep is {self.rate.min_keep} and rate.max_keep {self.rate.max_keep}: no share is between them"
            )
        if self.diversify.embedder != "tfidf" and not self.diversify.model:
            raise UsageError(f"diversify.embedder is {self.diversify.embedder}: name its model, --config.diversify.model=NAME")
        if self.diversify.embedder == "endpoint":
            if not self.diversify.url:
                raise UsageError("diversify.embedder is endpoint: give --config.diversify.url=http://HOST/v1")
            check_base_url(self.diversify.url, "diversify.url")
        self._check_roles()
        if self.serve_command and not all(f"{{{name}}}" in self.serve_command for name in ("model", "name", "port")):
            raise UsageError(
                f"serve_command is {self.serve_command!r}; it needs {{model}}, {{name}} and {{port}}, which stand for the "
                "directory of the merged model, the name that it is asked by, and where the server listens"
            )

    def _bounds(self) -> list[tuple[str, float, float, float]]:
        many = float("inf")
        shares = {
            "seeds": ("heldout_share", "min_confidence", "min_yield"), "generate": ("max_news_share", "max_copied"),
            "rate": ("keep", "max_keep", "min_keep"), "refine": ("max_fall", "min_move"), "diversify": ("max_cosine",),
            "output": ("answer_in", "native_share", "system_share", "max_wrong_language"),
            "gates": tuple(one.name for one in fields(GatesConfig)),
        }  # fmt: skip
        found: list[tuple[str, float, float, float]] = [
            (f"{part}.{name}", getattr(getattr(self, part), name), 0, 1) for part, names in shares.items() for name in names
        ]
        ones = {
            "seeds": ("max_letters", "min_heldout"), "generate": ("documents", "max_tokens", "max_instruction", "min_letters"),
            "rate": ("at_least", "forward_tokens", "votes", "cap"), "diversify": ("dimensions", "clusters", "target"),
            "output": ("shard_records",), "sft": ("answers", "answer_tokens"),
        }  # fmt: skip
        found += [(f"{part}.{name}", getattr(getattr(self, part), name), 1, many) for part, names in ones.items() for name in names]
        return [
            *found, ("serve_batch_size", self.serve_batch_size, 1, 4096), ("max_errors", self.max_errors, 0, 1),
            ("seeds.heldout_rows", self.seeds.heldout_rows, 0, many),
            ("seeds.min_chrf", self.seeds.min_chrf, 0, 100), ("generate.samples", self.generate.samples, 1, 16),
            ("generate.temperature", self.generate.temperature, 0, 2), ("generate.top_p", self.generate.top_p, 0.01, 1),
            ("generate.max_letters", self.generate.max_letters, self.generate.min_letters, many),
            ("generate.min_instruction", self.generate.min_instruction, 1, self.generate.max_instruction),
            ("rate.forward_temperature", self.rate.forward_temperature, 0, 2), ("rate.floor", self.rate.floor, 0, many),
            ("refine.rounds", self.refine.rounds, 0, 4), ("refine.min_anchor", self.refine.min_anchor, 0, many),
            ("refine.new_high", self.refine.new_high, 0, 4),
            ("refine.new_pairs", self.refine.new_pairs, 0, 1000),
            ("output.heldout_share", self.output.heldout_share, 0, 0.5), ("sft.max_steps", self.sft.max_steps, 0, many),
        ]  # fmt: skip

    def _check_languages(self) -> None:
        if not self.languages or len(set(self.languages)) != len(self.languages):
            raise UsageError(f"languages is {','.join(self.languages)!r}; give codes such as ur,hi, each once")
        for code in self.languages:
            load_pack(code)
        given = [one.partition("=") for one in self.documents if one != SAMPLE]
        named = [code for code, _, _ in given]
        if not all(path for *_, path in given) or not set(named) <= set(self.languages) or len(set(named)) < len(named):
            raise UsageError(
                f"documents is {','.join(self.documents)!r}; expected CODE=DIR for codes of languages ({','.join(self.languages)}),"
                f" DIR being a work directory of launch/ingest.py, or {SAMPLE!r}"
            )
        if SAMPLE not in self.documents and (missing := [code for code in self.languages if code not in named]):
            raise UsageError(f"documents names no directory for {', '.join(missing)}: add {missing[0]}=DIR")

    def _check_roles(self) -> None:
        if self.forward.by == "teacher":
            raise UsageError(
                "forward.by is teacher; the level between best and worst is what the trained model itself writes, so it is trained"
            )
        for name in ROLES:
            role = self.role(name)
            if role.by == "trained" and not Path(role.recipe.partition(":")[0]).suffix == ".py":
                raise UsageError(
                    f"{name}.recipe is {role.recipe!r}; expected a training recipe such as configs/x_instruction_{name}.py"
                )
            if role.url:
                check_base_url(role.url, f"{name}.url")
        if wanted := self.asks_teacher():
            self.check_teacher(" and ".join(wanted))

    def check_teacher(self, why: str) -> None:
        """Raises UsageError where there is no teacher that could do it."""
        if self.teacher.base_url == OFFLINE:
            raise UsageError(
                f"{why}: a real teacher is needed, and teacher.base_url is {OFFLINE!r}, whose grammars write other things. Give "
                "--config.teacher.base_url=URL --config.teacher.model=NAME --config.teacher.terms=…"
            )
        self.teacher.validate()
