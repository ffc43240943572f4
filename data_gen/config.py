"""The typed config of the self-instruct recipe: values and their bounds."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from data_gen import UsageError
from data_gen.endpoint import TeacherConfig
from data_gen.filters import SCRIPT_OF_LANGUAGE

# May differ between two runs on one work directory: they decide how fast, where to and what is kept, not what is asked.
_ASKED = ("model", "reply_format", "seed", "max_tokens_field", "offline_fault_rate")
_FREE = {"shard_records", "min_acceptance", "rouge_threshold", "pool_lag"}
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


@dataclass(kw_only=True)
class SelfInstructConfig:
    """What to generate. On a work directory already begun only that may change which changes no request: targets, the novelty
    filter's threshold, shard size, where the teacher is, what it costs and how hard it is pressed.
    """

    seed: int = 0
    language: str = "ur"
    targets: Targets = field(default_factory=Targets)
    heldout_share: float = 0.1  # of all accepted items, and of the seeds (whole topics)
    items_per_request: int = 10
    seeds_per_prompt: int = 4
    pool_per_prompt: int = 2
    rouge_threshold: float = 0.7
    pool_lag: int | None = None  # a request may not see items younger than this many requests; none: 4 × teacher.max_in_flight
    min_acceptance: float = 0.02  # the run stops when less than this share of the last items was accepted
    temperature: float | None = 1.0  # none: not sent
    max_tokens: int = 8192  # of a reply, a reasoning model's thoughts included
    shard_records: int = 10_000
    teacher: TeacherConfig = field(default_factory=TeacherConfig)

    def validate(self) -> None:
        """Raises UsageError naming the first field that makes no sense."""
        bounds: list[tuple[str, float, float, float]] = [
            ("heldout_share", self.heldout_share, 0, 0.5),
            ("rouge_threshold", self.rouge_threshold, 0, 0.99),
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
        if self.language not in SCRIPT_OF_LANGUAGE:
            raise UsageError(f"language is {self.language!r}; there are {', '.join(SCRIPT_OF_LANGUAGE)}")
        if not any(asdict(self.targets).values()):
            raise UsageError("all targets are 0; set one, for example --config.targets.generation=50")

    def asked(self, digests: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, int]]:
        """What decides what is asked, by dotted name (with the digest of each task's prompt and seeds), and the targets."""
        flat = {name: value for name, value in _flat(asdict(self)).items() if name not in _FREE}
        targets = {name: flat.pop(name) for name in list(flat) if name.startswith("targets.")}
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
