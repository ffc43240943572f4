"""Greedy answers to held-out prompts while a run is going on: does it stop, does it write the right script, what does it say?"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice

from alif_jax.data.tfrecord import read_records
from alif_jax.generate import generate
from alif_jax.languages import english_name
from alif_jax.load import Loaded

ScriptShare = Callable[[str, str], float | None]  # (text, language) → share of its letters in the language's script


@dataclass(frozen=True)
class Prompt:
    """The first user turn of a record."""

    id: str
    language: str
    prompt: str


def heldout_prompts(directories: Sequence[str], count: int, fits: Callable[[str], bool]) -> list[Prompt]:
    """First user turns of `count` held-out conversations, as many of each directory; fewer where there are not so many that fit."""
    prompts: list[Prompt] = []
    for index, directory in enumerate(directories, start=1):
        turns = (
            Prompt(record.id, record.language, message["content"])
            for record in read_records(directory, "heldout")
            for message in [m for m in record.messages or () if m["role"] == "user"][:1]
            if fits(message["content"])
        )
        prompts += islice(turns, count * index // len(directories) - len(prompts))
    return prompts


def sample(
    loaded: Loaded, prompts: Sequence[Prompt], *, max_new_tokens: int, script_share: ScriptShare | None
) -> tuple[dict[str, float], list[dict[str, str]]]:
    """({"sample_stop_rate", "sample_script_purity"}, one line a prompt for samples.jsonl).

    stop rate: share of the answers that end with a stop token. script purity: mean of `script_share` over the answers that have
    letters and of whose language it knows the script; left out without the function or such an answer.
    """
    answers = generate(
        loaded, [prompt.prompt for prompt in prompts], max_new_tokens=max_new_tokens,
        languages=[english_name(prompt.language) for prompt in prompts],
    )  # fmt: skip
    lines = [
        asdict(prompt) | {"text": answer.text, "finish_reason": answer.finish_reason}
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    metrics = {"sample_stop_rate": sum(answer.finish_reason == "stop" for answer in answers) / len(answers)}
    if script_share is not None:
        said = [(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True) if any(map(str.isalpha, answer.text))]
        shares = [script_share(answer.text, prompt.language) for prompt, answer in said]
        known = [share for share in shares if share is not None]
        if known:
            metrics["sample_script_purity"] = math.fsum(known) / len(known)
    return metrics, lines
