"""A loaded model as lm-evaluation-harness's `LM`: its three kinds of requests answered on the model's mesh.

What tokens mean (prefix, BOS, where context and continuation part, what is cut) follows the harness's Hugging Face backend, so that
figures can be compared with published ones. Tasks and metrics are the harness's own; which are run: launch/evaluate.py.

`B` rows, `L` padded length, `N` scored tokens a row, `D` model dim.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from alif_jax import UsageError
from alif_jax.generate import generate_ids
from alif_jax.load import Loaded
from alif_jax.loss import token_scores
from alif_jax.model import Params, Skeleton, in_cpu_cache
from alif_jax.sharding import batch_parts, put_batch, replicated

SHORTEST, EACH = 16, 4  # the smallest bucket of lengths; buckets up to twice a length
# Of a batch: tokens that are scored, of each device; prompts, and their tokens with those to come (of an 8B model 128 kB each).
ROW_TOKENS, GENERATION_ROWS, GENERATION_TOKENS = 16_384, 32, 65_536
FEW_TOKENS, FEW_ROWS = 2048, 8  # what stays in a CPU's cache, beside weights that lie there
LONGEST = 8192  # tokens that a model sees, where nobody says: more costs memory by its square
WHOLE_SCORES, FEW_SCORES = 1024, 128  # tokens of a row up to which all attention scores are made at once; on a CPU
LOGITS, CHUNK = 2**26, 2048  # of a device that exist at a time, and of how many tokens at most
MAX_GEN_TOKS = 256  # where a task does not say, as in the harness
Scored = tuple[float, bool]  # log-likelihood in nats; whether greedy decoding would have written the same
Asked = tuple[tuple[str, str] | None, list[int], list[int]]  # texts, ids of the context, ids of the continuation


class Row(NamedTuple):
    """What the model reads once for one or more requests. tokens: all but the last of context and continuation.

    scored: places in `tokens` and the token that should follow there; requests: (number, which of `scored` are its own).
    """

    tokens: tuple[int, ...]
    scored: list[tuple[int, int]]
    requests: list[tuple[int, list[int]]]


class JaxLM(TemplateLM):
    """`lm_eval.simple_evaluate(model=JaxLM(loaded), tasks=[…])`.

    row_tokens: tokens of a device's batch, padding included, so that short rows are many; generation_rows: prompts of a batch;
    0: as many as suit the device. max_length: of context and continuation; 0: the model's own, 8,192 at most.

    To be set: language, its English name, for chat templates that write it where the prompt does not; apart: context and
    continuation are encoded each by itself, as in training. To be read: truncated, how many requests were cut from the left since
    it was last set; ended: by context, whether the answer generated to it ended by itself.
    """

    def __init__(self, loaded: Loaded, *, row_tokens: int = 0, generation_rows: int = 0, max_length: int = 0) -> None:
        super().__init__()
        longest = loaded.config.max_position_embeddings
        if max_length > longest:
            raise UsageError(f"max_length={max_length}: the model was made for {longest} positions")
        self.loaded, self.apart = loaded, False
        self.language: str | None = None
        self._max_length = max_length or min(longest, LONGEST)
        on_cpu = loaded.mesh.devices.flat[0].platform == "cpu"
        self._whole_scores = FEW_SCORES if on_cpu else WHOLE_SCORES
        self._parts = batch_parts(loaded.mesh)
        self._row_tokens = (row_tokens or (FEW_TOKENS if on_cpu else ROW_TOKENS)) * self._parts
        self._generation_rows = generation_rows or (FEW_ROWS if on_cpu and in_cpu_cache(loaded.params) else GENERATION_ROWS)
        self._prefix = loaded.tokenizer.core.decode([self.prefix_token_id], skip_special_tokens=False)
        self.truncated, self._silent = 0, False
        self.ended: dict[str, bool] = {}
        self._rendered: set[str] = set()

    # --- tokens -----------------------------------------------------------------------------------------------------------

    @property
    def max_length(self) -> int:
        return self._max_length

    @property
    def eot_token_id(self) -> int:
        return self.loaded.tokenizer.eos_id

    @property
    def prefix_token_id(self) -> int:
        """What an empty context is."""
        bos = self.loaded.tokenizer.bos_id
        return self.eot_token_id if bos is None else bos

    @property
    def tokenizer_name(self) -> str:
        return self.loaded.tokenizer.directory.replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Ids as the tokenizer's own post-processor has them (BOS). None is added to a text that begins with the prefix token, nor
        to one that a chat template made: as in training, what it does not write is not there.
        """
        if add_special_tokens is None:
            add_special_tokens = not string.startswith(self._prefix) and string not in self._rendered
        return self.loaded.tokenizer.core.encode(string, add_special_tokens=add_special_tokens).ids

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        return self.loaded.tokenizer.template if chat_template else None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The conversation as the model sees it. Without add_generation_prompt its last message is an answer that goes on.

        A template that refuses a system message has it before the first question. Raises UsageError where there is no template.
        """
        tokenizer = self.loaded.tokenizer
        if tokenizer.template is None:
            raise UsageError(
                f"{tokenizer.directory}: a chat template is asked for and the tokenizer has none; give --template=NAME (one of "
                "alif_jax/templates/, or a Jinja file), or ask without one (--chat=never)"
            )
        begun = "" if add_generation_prompt else chat_history[-1]["content"]
        messages = chat_history if add_generation_prompt else chat_history[:-1]
        said = self.language and any(f"Answer in {self.language}" in message["content"] for message in messages)
        render = partial(tokenizer.render, add_generation_prompt=True, language=None if said else self.language)
        try:
            text = render(messages) + begun
        except UsageError:
            if messages[0]["role"] != "system" or len(messages) < 2:
                raise
            first = {"role": messages[1]["role"], "content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}
            text = render([first, *messages[2:]]) + begun
        self._rendered.add(text)
        return text

    # --- log-likelihoods --------------------------------------------------------------------------------------------------

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Scored]:
        """Raises UsageError for an empty continuation, which has no likelihood to compare."""
        for request in requests:
            if request.args[1] == "":
                raise UsageError(
                    f"task {request.task_name}, document {request.doc_id}: an empty continuation after {request.args[0][-60:]!r}; "
                    "look at the document's answers and at the task's doc_to_choice or doc_to_target"
                )
        self._silent = disable_tqdm
        return super().loglikelihood(requests, disable_tqdm=True)  # its own bar is of the tokenizer, which takes no time

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """As in the harness: blanks at the context's end belong to the continuation, and what the context's tokens leave of both
        is its own. Apart where `apart` says so, and where the last token spans both and leaves the continuation none.
        """
        special = False if context in self._rendered else None
        if not self.apart:
            blanks = len(context) - len(context.rstrip())
            before = self.tok_encode(context[: len(context) - blanks], special)
            if after := self.tok_encode(context + continuation, special)[len(before) :]:
                return before, after
        return self.tok_encode(context, special), self.tok_encode(continuation, add_special_tokens=False)

    def _loglikelihood_tokens(self, requests: list[Asked], **kwargs: Any) -> list[Scored]:
        """Each in nats, in the requests' order. Those that differ in a last token only (A, B, C, D) share a row."""
        shared: dict[tuple[int, ...], list[tuple[int, int, int]]] = defaultdict(list)
        for number, (_, context, continuation) in enumerate(requests):
            ids = (context + continuation)[-(self.max_length + 1) :]
            self.truncated += len(ids) < len(context) + len(continuation)
            shared[tuple(ids[:-1])].append((number, min(len(continuation), len(ids) - 1), ids[-1]))
        found: list[Scored] = [(0.0, True)] * len(requests)
        with self._bar(len(requests), "log-likelihoods") as bar:
            for batch in self._batches([_row(tokens, asked) for tokens, asked in shared.items()]):
                logp_BN, greedy_BN = self._score(batch)
                for row, logp_N, greedy_N in zip(batch, logp_BN, greedy_BN, strict=False):  # padded with empty rows
                    for number, own in row.requests:
                        found[number] = float(logp_N[own].sum()), bool(greedy_N[own].all())
                bar.update(sum(len(row.requests) for row in batch))
        return found

    def _bar(self, total: int, what: str) -> Any:
        """On a terminal only."""
        return tqdm(total=total, desc=what, leave=False, disable=self._silent or None)

    def _batches(self, rows: list[Row]) -> Iterator[list[Row]]:
        """The longest first, as many of like length (none under half of the first) as make the tokens of a batch."""
        rows, start = sorted(rows, key=lambda row: len(row.tokens), reverse=True), 0
        while start < len(rows):
            longest = len(rows[start].tokens)
            many = max(self._row_tokens // self._length(longest) // self._parts, 1) * self._parts
            batch = [row for row in rows[start : start + many] if 2 * len(row.tokens) >= longest]  # its first ones, they are sorted
            yield batch
            start += len(batch)

    def _length(self, tokens: int, shortest: int = SHORTEST) -> int:
        """A bucket that the mesh can split along its `sequence` axis."""
        shards = self.loaded.mesh.shape["sequence"]
        return -(-bucket(tokens, shortest) // shards) * shards

    def _rows(self, used: int) -> int:
        """Of a batch: so many that few numbers of rows are compiled and few rows are empty."""
        return bucket(-(-used // self._parts), shortest=1) * self._parts

    def _score(self, batch: list[Row]) -> tuple[np.ndarray, np.ndarray]:
        """Of a batch: log p of its scored tokens [B, N], and whether each is the likeliest."""
        length = self._length(len(batch[0].tokens))
        scored = self._length(max(len(row.scored) for row in batch), shortest=1)
        shape = (self._rows(len(batch)), length)
        arrays = {name: np.zeros(shape, np.int32) for name in ("tokens", "segment_ids")}
        arrays |= {name: np.zeros((shape[0], scored), np.int32) for name in ("where", "targets")}
        for number, row in enumerate(batch):
            arrays["tokens"][number, : len(row.tokens)] = row.tokens
            arrays["segment_ids"][number, : len(row.tokens)] = 1
            arrays["where"][number, : len(row.scored)], arrays["targets"][number, : len(row.scored)] = zip(*row.scored, strict=True)
        mesh = self.loaded.mesh
        with jax.set_mesh(mesh):
            on_devices = put_batch(mesh, {name: array[None] for name, array in arrays.items()})
            whole = length <= self._whole_scores or mesh.shape["sequence"] > 1
            found = _scores(
                self.loaded.params, on_devices, skeleton=self.loaded.skeleton, out=replicated(mesh),
                attention="xla" if whole else "chunked",
            )  # fmt: skip
            logp_BN, greedy_BN = jax.device_get(found)
        return np.asarray(logp_BN, np.float64), np.asarray(greedy_BN)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Of whole texts, each token with what stands before it in its window: windows of max_length that do not overlap."""
        windows: list[Asked] = []
        owners: list[int] = []
        for number, request in enumerate(requests):
            parts = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]), prefix_token=self.prefix_token_id, max_seq_len=self.max_length,
                context_len=1,
            )  # fmt: skip
            for context, continuation in map(make_disjoint_window, parts):
                windows.append((None, context, continuation))
                owners.append(number)
        self._silent = disable_tqdm
        found = self._loglikelihood_tokens(windows)
        sums = np.zeros(len(requests))
        np.add.at(sums, owners, [logp for logp, _ in found])
        return [float(one) for one in sums]

    # --- generation -------------------------------------------------------------------------------------------------------

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """What continues each context, up to a stop token, one of the task's `until`, or max_gen_toks tokens."""
        groups: dict[str, list[int]] = defaultdict(list)
        for number, request in enumerate(requests):
            groups[repr(sorted(request.args[1].items(), key=str))].append(number)
        found, self._silent = [""] * len(requests), disable_tqdm
        with self._bar(len(requests), "answers") as bar:
            for numbers in groups.values():
                wanted = dict(normalize_gen_kwargs(requests[numbers[0]].args[1], MAX_GEN_TOKS))
                texts = self._generate([requests[number].args[0] for number in numbers], wanted, bar)
                for number, text in zip(numbers, texts, strict=True):
                    found[number] = text
        return found

    def _generate(self, contexts: Sequence[str], wanted: dict[str, Any], bar: Any) -> list[str]:
        """wanted: the task's generation_kwargs in the harness's names."""
        tokenizer, longest = self.loaded.tokenizer, int(wanted["max_gen_toks"])
        room = self.max_length - longest
        if room < 1:
            raise UsageError(
                f"max_gen_toks={longest}: a task wants to generate as many tokens as the model has positions ({self.max_length}) "
                "and leaves no room for its prompt; give fewer in its generation_kwargs"
            )
        until = wanted["until"] if isinstance(wanted.get("until"), list) else [wanted.get("until")]
        stops = [stop for stop in until if stop]
        # A stop that is a token of its own is not in the text: special tokens are not decoded.
        tokens = [token for token in map(tokenizer.core.token_to_id, stops) if token is not None]
        encoded = [self.tok_encode(context) for context in contexts]
        self.truncated += sum(len(ids) > room for ids in encoded)

        def over(ids: list[int]) -> bool:
            text = tokenizer.decode(ids)
            return any(stop in text for stop in stops)

        temperature, top_p = float(wanted.get("temperature", 0.0)), float(wanted.get("top_p", 1.0))
        rows = min(self._generation_rows, max(GENERATION_TOKENS // (max(map(len, encoded)) + longest), 1))
        made = generate_ids(
            self.loaded, [ids[-room:] for ids in encoded], max_new_tokens=longest, batch_size=rows, more_stop_ids=tokens,
            over=over if stops else None, temperature=temperature, top_p=top_p, done=bar.update,
        )  # fmt: skip
        texts = []
        for context, (ids, stopped) in zip(contexts, made, strict=True):
            text = tokenizer.decode(ids)
            ends = [place for place in map(text.find, stops) if place >= 0]
            self.ended[context] = stopped or bool(ends)
            texts.append(text[: min(ends)] if ends else text)
        return texts


def _row(tokens: tuple[int, ...], asked: Sequence[tuple[int, int, int]]) -> Row:
    """asked: (number of the request, tokens of its continuation, the last of them) of all that have read the same `tokens`.

    Context 7 8, continuations 9 1 and 9 2: tokens 7 8 9, scored (1, 9), (2, 1), (2, 2); the requests' own 0 1 and 0 2.
    """
    end, longest = len(tokens) - 1, max(count for _, count, _ in asked)
    scored = [(place, tokens[place + 1]) for place in range(end - longest + 1, end)]
    requests = []
    for number, count, last in asked:
        requests.append((number, [*range(longest - count, longest - 1), len(scored)]))
        scored.append((end, last))
    return Row(tokens, scored, requests)


def bucket(length: int, shortest: int = SHORTEST) -> int:
    """The next of 16, 20, 24, 28, 32, 40, 48, …: few lengths are compiled, and a fifth at most is padding."""
    if length <= shortest:
        return shortest
    step = max((1 << (length - 1).bit_length()) // (2 * EACH), 1)
    return -(-length // step) * step


@partial(jax.jit, static_argnames=("skeleton", "out", "attention"))
def _scores(
    params: Params, batch: dict[str, Array], *, skeleton: Skeleton, out: jax.sharding.Sharding, attention: str
) -> tuple[Float[Array, "B N"], Bool[Array, "B N"]]:
    """log p of `targets` after the tokens at `where`, [1, B, N] both; only these tokens' logits are made, a chunk at a time.

    attention: not the model's own, which may want lengths that these are not.
    """
    model = skeleton.model(params)
    model.attention = attention
    rows = {name: array[0] for name, array in batch.items()}
    positions_BL = jnp.broadcast_to(jnp.arange(rows["tokens"].shape[1]), rows["tokens"].shape)
    hidden_BLD, _ = model(rows["tokens"], positions_BL=positions_BL, segment_ids_BL=rows["segment_ids"])
    hidden_BND = jnp.take_along_axis(hidden_BLD, rows["where"][..., None], axis=1)
    chunk = min(CHUNK, max(LOGITS // model.config.padded_vocab_size, 1))
    logp_BN, greedy_BN = token_scores(model.head(), hidden_BND, rows["targets"], chunk=chunk)
    return jax.lax.with_sharding_constraint(logp_BN, out), jax.lax.with_sharding_constraint(greedy_BN, out)
