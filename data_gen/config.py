"""The typed config of the self-instruct recipe: values and their bounds."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from data_gen import UsageError
from data_gen.endpoint import OFFLINE, TeacherConfig
from data_gen.languages import load_pack

# May differ between two runs on one work directory: they decide how fast, where to and what is kept, not what is asked.
_ASKED = ("model", "reply_format", "seed", "max_tokens_field", "offline_fault_rate")
_FREE = {
    "shard_records", "min_acceptance", "rouge_threshold", "answer_threshold", "heldout_threshold", "pool_lag", "scale",
    "offline_scale", "language_id", "glotlid_model", "decontaminate", "licence", "checks.min_chrf", "checks.min_quality",
    "checks.ethics", "checks.majority_samples",
}  # fmt: skip
_FREE |= {f"teacher.{one.name}" for one in fields(TeacherConfig) if one.name not in _ASKED}


@dataclass(kw_only=True)
class Targets:
    """Training items wanted of each task; 0 leaves a task out. Held-out items come on top."""

    generation: int = 50
    reasoning: int = 50
    ethics: int = 50
    question_answering: int = 50
    translation: int = 50
    classification: int = 50
    sentiment: int = 50
    reading_comprehension: int = 0
    summarisation: int = 0
    conversation: int = 0
    long_answer: int = 0
    culture: int = 0
    code_mixed: int = 0
    roman: int = 0
    helpful_refusal: int = 0
    translated: int = 0  # of the English items in `translate`


@dataclass(kw_only=True)
class ChecksConfig:
    """What the teacher is asked about an answer before it is kept, beside what can be computed. 0 or false: not asked, and not paid
    for.
    """

    majority_samples: int = 0  # solutions asked of a reasoning item that has no sums; more than half must agree with its answer
    min_chrf: float = 0.0  # of the translation back with the text it came from, 0 to 100
    ethics: bool = False  # a judge's pass or fail, of tasks about conduct
    min_quality: int = 0  # a judge's mark, 1 to 5


@dataclass(kw_only=True)
class SelfInstructConfig:
    """What to generate. On a work directory already begun only that may change which changes no request that was made: targets,
    thresholds and checks, shard size, where the teacher is, what it costs and how hard it is pressed.
    """

    seed: int = 0
    language: str = "ur"
    targets: Targets = field(default_factory=Targets)
    heldout_share: float = 0.1  # of all accepted items, and of the seeds (whole topics)
    items_per_request: int = 10
    seeds_per_prompt: int = 4
    pool_per_prompt: int = 2
    scale: float = 1.0  # of all targets: 0.1 makes a tenth of each
    offline_scale: float = 1.0  # the same for the offline teacher alone, whose grammars have only so much to say
    rouge_threshold: float = 0.7  # of an instruction with any other; above it is not new
    answer_threshold: float = 0.8  # Jaccard similarity of an answer with any other; from it on is not new
    heldout_threshold: float = 0.5  # Jaccard similarity of an item with any on the other side; from it on one goes
    language_id: bool = False  # by lingua, or by the GlotLID model
    glotlid_model: str = ""  # a local file
    decontaminate: tuple[str, ...] = ()  # evaluation files: what has 13 words running in common with one goes
    translate: str = ""  # a JSONL file of English items to translate; "sample": the one shipped
    licence: str = ""  # of the data, for its card
    pool_lag: int | None = None  # a request may not see items younger than this many requests; none: 4 × teacher.max_in_flight
    min_acceptance: float = 0.02  # the run stops when less than this share of the last items was accepted
    temperature: float | None = 1.0  # none: not sent
    max_tokens: int = 8192  # of a reply, a reasoning model's thoughts included
    shard_records: int = 10_000
    checks: ChecksConfig = field(default_factory=ChecksConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)

    def wanted(self) -> dict[str, int]:
        """The targets by task, scaled; those of 0 are left out."""
        scale = self.scale * (self.offline_scale if self.teacher.base_url == OFFLINE else 1.0)
        return {name: max(1, round(count * scale)) for name, count in asdict(self.targets).items() if count}

    def validate(self) -> None:
        """Raises UsageError naming the first field that makes no sense."""
        bounds: list[tuple[str, float, float, float]] = [
            ("heldout_share", self.heldout_share, 0, 0.5),
            ("rouge_threshold", self.rouge_threshold, 0, 0.99),
            ("answer_threshold", self.answer_threshold, 0.1, 1),
            ("heldout_threshold", self.heldout_threshold, 0.1, 1),
            ("scale", self.scale, 1e-6, 1e6),
            ("offline_scale", self.offline_scale, 1e-6, 1e6),
            ("checks.majority_samples", self.checks.majority_samples, 0, 25),
            ("checks.min_chrf", self.checks.min_chrf, 0, 100),
            ("checks.min_quality", self.checks.min_quality, 0, 5),
            ("min_acceptance", self.min_acceptance, 0.0001, 1),
            ("temperature", 0 if self.temperature is None else self.temperature, 0, 2),
            ("max_tokens", self.max_tokens, 1, float("inf")),
            ("items_per_request", self.items_per_request, 1, 100),
            ("seeds_per_prompt", self.seeds_per_prompt, 1, 100),
            ("pool_per_prompt", self.pool_per_prompt, 0, 100),
            ("shard_records", self.shard_records, 1, float("inf")),
            *((f"targets.{name}", count, 0, float("inf")) for name, count in asdict(self.targets).items()),
        ]
        for name, value, low, high in bounds:
            if not low <= value <= high:
                raise UsageError(f"{name} is {value}; it must be between {low} and {high}")
        self.teacher.validate()
        self.check_lag(self.pool_lag)
        load_pack(self.language)
        if self.targets.translated and not self.translate:
            raise UsageError(
                f"targets.translated is {self.targets.translated} and translate is empty: give the JSONL file of English items, or "
                "'sample' for those shipped"
            )
        if not any(asdict(self.targets).values()):
            raise UsageError("all targets are 0; set one, for example --config.targets.generation=50")

    def asked(self, digests: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, int]]:
        """What decides what is asked, by dotted name (with the digest of each task's prompt and seeds), and the targets."""
        flat = {name: value for name, value in _flat(asdict(self)).items() if name not in _FREE}
        for name in [name for name in flat if name.startswith("targets.")]:
            del flat[name]
        wanted = self.wanted()
        targets = {f"targets.{name}": wanted.get(name, 0) for name in asdict(self.targets)}
        return flat | {f"seeds and prompt of {name}": digest for name, digest in digests.items()}, targets

    def check_lag(self, pool_lag: int | None) -> None:
        """Raises UsageError for a lag, given here or when the work directory was begun, that is shorter than the window."""
        if pool_lag is not None and pool_lag < self.teacher.max_in_flight:
            raise UsageError(
                f"teacher.max_in_flight is {self.teacher.max_in_flight} and pool_lag {pool_lag}: a request waits for the one that "
                "many before it, so no more can be in flight. Lower max_in_flight; or give a larger pool_lag and another --workdir"
            )


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"teacher": {"model": "m"}} → {"teacher.model": "m"}."""
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{prefix}{key}.") if isinstance(inner, dict) else {prefix + key: inner}
    return flat
