"""What every stage of one run has at hand: config, languages, journal, the processes that train and serve, the finished stages."""

import json
import os
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Protocol

from data_gen import UsageError
from data_gen.ask import Asker, Model
from data_gen.endpoint import TeacherConfig
from data_gen.engine import Shows
from data_gen.language_id import Identifier, load_labeller
from data_gen.languages import Pack, load_pack
from data_gen.record import Message, Record, record_id
from data_gen.tfrecord import MANIFEST as SHARDS_MANIFEST
from data_gen.tfrecord import write_shards
from data_gen.x_instruction.config import ROLES, TINY, XInstructionConfig
from data_gen.x_instruction.stage import Row, Stage, digest_of

MODELS = "models"
STAGES = (
    "seed", "train_generator", "generate", "rate_data", "train_evaluator", "refine", "diversify", "audit", "sft", "eval"
)  # fmt: skip


class NotGood(UsageError):
    """A model, a rater or a set did not reach its gate: what came, what was wanted, what to do."""


class Children(Protocol):
    """The processes that use an accelerator; one at a time, each ended before the next begins. launch/children.py has them."""

    def resolve(self, recipes: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The whole training config of each recipe, as JSON. Raises UsageError for one that is none."""

    def train(self, recipe: str, overrides: Mapping[str, str], workdir: str) -> None:
        """Trains to the end, or goes on with what is there."""

    def serve(self, model: str, name: str, batch_size: int) -> AbstractContextManager[str]:
        """The URL of a server that answers for the model (a run directory) under this name."""

    def answers(self, data: str) -> Iterator[str]:
        """What is answered in the training records of a directory of shards."""

    def evaluate(self, model: str, data: str) -> dict[str, Any]:
        """What launch/evaluate.py says of held-out shards: loss, bits_per_byte, tokens, by_language."""

    def tiny_base(self, directory: str, texts: Iterable[str]) -> None:
        """A tokenizer and a config of a tiny model, without weights."""


@dataclass
class Work:
    """languages: those of the config, or some of them. recipes: each recipe's whole config, as Children.resolve gave it."""

    config: XInstructionConfig
    workdir: str
    languages: tuple[str, ...]
    children: Children
    asker: Asker
    show: Shows
    recipes: Mapping[str, dict[str, Any]]
    command: str = ""  # what the card says to give for the same data
    base: str = ""  # of all trained models instead of their recipes' own; of the tiny one its directory, once it is made
    stages: dict[str, Stage] = field(default_factory=dict)
    rated_by: dict[str, str] = field(default_factory=dict)  # by model: logprobs or votes, as it was found out

    def stage(self, name: str) -> Stage:
        return self.stages.setdefault(name, Stage(self.workdir, name))

    @cached_property
    def packs(self) -> dict[str, Pack]:
        return {code: load_pack(code) for code in self.languages}

    @cached_property
    def labellers(self) -> dict[str, Identifier]:
        return {code: load_labeller(pack, self.config.output.glotlid_model) for code, pack in self.packs.items()}

    def say(self, line: str) -> None:
        self.show.say(line)

    def path(self, *parts: str) -> str:
        return os.path.join(self.workdir, *parts)

    # --- models trained here ------------------------------------------------------------------------------------------

    def set_base(self, made_from: Any, texts: Iterable[str]) -> None:
        """The config's base; the tiny one is made from texts, and named after what these depend on."""
        self.base = self.config.base
        if self.base == TINY:
            self.base = self.path(MODELS, f"base-{digest_of(made_from)}")
            if not os.path.exists(os.path.join(self.base, "config.json")):
                self.children.tiny_base(self.base, texts)

    def train(
        self, name: str, recipe: str, sides: Mapping[str, list[Record]] | str, overrides: Mapping[str, str] | None = None
    ) -> str:
        """Trains a model on records, or on a directory of shards, and returns its name under models/. In that is a digest of
        recipe, base, overrides and data: the same is trained once, and another never goes on from it.
        """
        given = dict(overrides or {})
        if isinstance(sides, str):
            came: Any = shards_digest(sides)
        else:
            came = {side: [digest_of([one.id, one.language, one.messages]) for one in records] for side, records in sides.items()}
        # The tiny base's directory says in its name what it is made from, and where it lies is no part of that.
        base = os.path.basename(self.base) if self.config.base == TINY else self.base
        named = f"{name}-{digest_of([self.recipes[recipe], base, sorted(given.items()), came])}"
        directory = self.path(MODELS, named)
        data, done = sides if isinstance(sides, str) else os.path.join(directory, "data"), os.path.join(directory, "done.json")
        if os.path.exists(done):
            return named
        if not isinstance(sides, str) and not os.path.exists(os.path.join(data, SHARDS_MANIFEST)):
            about = {"x_instruction": name, "recipe": recipe}
            write_shards(data, sides, config=about, shard_records=self.config.output.shard_records)
        self.say(f"training {named} on {shards_counts(data)}")
        base_path = {"model.path": self.base} if self.base else {}
        self.children.train(recipe, {"data.path": data, **base_path, **given}, os.path.join(directory, "run"))
        with open(done, "w", encoding="utf-8") as file:
            json.dump({"recipe": recipe, "overrides": given}, file)
        return named

    def steps_of(self, trained: str) -> int:
        """How many steps a trained model took."""
        with open(os.path.join(self.run_of(trained), "metrics.jsonl"), encoding="utf-8") as file:
            return max(json.loads(line).get("step", 0) for line in file)

    def run_of(self, trained: str) -> str:
        """The run directory of what `train` returned."""
        return self.path(MODELS, trained, "run")

    @contextmanager
    def model(self, role: str, trained: str = "") -> Iterator[Model]:
        """Whom to ask in a role: the teacher, a server that somebody started, or one that is started here when it is first asked,
        and is gone afterwards.
        """
        config = self.config.role(role)
        if config.by == "teacher":
            yield self.teacher()
            return
        if config.url:
            yield Model(trained, trained, lambda: self._served_at(config.url, trained), self._own_limits(), own=True)
            return
        with self.served(trained, role) as model:
            yield model

    @contextmanager
    def served(self, trained: str, name: str) -> Iterator[Model]:
        """A model trained here, served by a child under this name from its first question to the end of the block."""
        with ExitStack() as servers:

            def at() -> str:
                return servers.enter_context(self.children.serve(self.run_of(trained), name, self.config.serve_batch_size))

            yield Model(trained, name, at, self._own_limits(), own=True)

    def _served_at(self, url: str, trained: str) -> str:
        """The URL of somebody's server. Raises UsageError unless it has this very model."""
        try:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on this machine or near it
            with opener.open(f"{url.rstrip('/')}/models", timeout=30) as reply:
                names = [one["id"] for one in json.load(reply)["data"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{url}/models does not answer as a server of models does: {error!r}") from error
        if trained not in names:
            there = os.path.join(self.workdir, MODELS, trained)
            raise UsageError(
                f"the server at {url} has {', '.join(names)}, and {trained} is to be asked now. python launch/export.py "
                f"--workdir={there}/run --format=merged --output={there}/merged; serve {there}/merged there as {trained}; then "
                "give the same command"
            )
        return url

    def _own_limits(self) -> TeacherConfig:
        """Of a server of one's own: it costs nothing, and may take its time."""
        elsewhere = self.config.serve_command or any(self.config.role(name).url for name in ROLES)
        many = 256 if elsewhere else min(4 * self.config.serve_batch_size, 256)
        return TeacherConfig(max_in_flight=many, timeout_s=3600.0, give_up_s=120.0)  # the latter: of failures without a reply

    def teacher(self) -> Model:
        """The config's teacher, whose replies are kept for its model and address (as a digest: keys get into the data)."""
        teacher = self.config.teacher
        return Model(f"{teacher.model}-{digest_of(teacher.base_url)}", teacher.model, lambda: teacher.base_url, teacher)

    # --- inputs of a stage --------------------------------------------------------------------------------------------

    def settings(self, *parts: str) -> dict[str, Any]:
        """Parts of the config by dotted name, for a stage's inputs. settings("rate") == {"rate.at_least": 3000, …}."""
        found: dict[str, Any] = {}
        for part in parts:
            value = getattr(self.config, part)
            if hasattr(value, "__dataclass_fields__"):
                found |= {f"{part}.{name}": inner for name, inner in asdict(value).items()}
            else:
                found[part] = value
        return found

    def made_by(self, *stages: str) -> dict[str, str]:
        """Digests of stages that were made before, for a stage's inputs: {"stage seed": "1a2b…"}."""
        return {f"stage {name}": self.stage(name).digest() for name in stages}

    def role_inputs(self, role: str) -> dict[str, Any]:
        """What decides what a role's model answers. Where its server stands does not."""
        config = self.config.role(role)
        if config.by == "teacher":
            return {f"{role}.by": "teacher", "teacher.model": self.config.teacher.model}
        return {f"{role}.by": "trained", f"{role}.recipe": digest_of(self.recipes[config.recipe]), "base": self.config.base}

    def trained_or_teacher(self, role: str, sides: Mapping[str, list[Record]]) -> str:
        """Trains a role's model on records and returns its name; of a teacher in this role the teacher's."""
        if self.config.role(role).by == "teacher":
            return self.teacher().key
        return self.train(role, self.config.role(role).recipe, sides)


def shards_digest(directory: str) -> str:
    """Of the shards that a directory's manifest names. Raises UsageError where there is none."""
    return digest_of([[shard["path"], shard["sha256"]] for shard in _shards(directory)["shards"]])


def shards_size(directory: str) -> int:
    """Bytes to train on."""
    return int(sum(shard["bytes"] for shard in _shards(directory)["shards"] if shard["split"] == "train"))


def shards_counts(directory: str) -> str:
    """ "1,204 records (133 held out)"."""
    counts = _shards(directory)["counts"]
    return f"{counts['train']['records']:,} records ({counts.get('heldout', {}).get('records', 0):,} held out)"


def _shards(directory: str) -> dict[str, Any]:
    path = os.path.join(directory, SHARDS_MANIFEST)
    try:
        with open(path, encoding="utf-8") as file:
            return dict(json.load(file))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error}): {directory} is no directory of finished shards") from error


def conversation(source: str, language: str, messages: Iterable[Message]) -> Record:
    """A record to train on; its id is that of its messages."""
    said = tuple(messages)
    return Record(record_id(said), source, source, language, {}, messages=said)


def by_side(rows: Iterable[tuple[Row, Record]]) -> dict[str, list[Record]]:
    """Records on the side that their row has, each id once."""
    sides: dict[str, dict[str, Record]] = {"train": {}, "heldout": {}}
    for row, record in rows:
        sides[row.get("side", "train")].setdefault(record.id, record)
    for known in sides["train"]:
        sides["heldout"].pop(known, None)
    return {side: list(records.values()) for side, records in sides.items()}


def named_values(values: Mapping[str, Any]) -> str:
    """{"a": 0.5, "b": "x"} → "a 0.5, b x"."""
    return ", ".join(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items())
