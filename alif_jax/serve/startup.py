"""From the flags of launch/serve.py to a running engine, said step by step on stderr. No HTTP."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from socket import socket
from time import perf_counter

from alif_jax import UsageError
from alif_jax.load import Loaded, load_adapter, load_model
from alif_jax.serve.engine import Engine
from alif_jax.sharding import MeshConfig, make_mesh
from alif_jax.tokenizer import Tokenizer

LONGEST = 4096  # tokens, where the user names no length: a cache is of this size for every row
SWITCH_SECONDS = 5e-4  # the engine waits no longer than this for the HTTP loop to let it start its next steps; Python's own is 5 ms
QUESTION = "پاکستان کا دارالحکومت کون سا شہر ہے؟"
OPENING = "پاکستان کا دارالحکومت"


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def named_paths(adapters: Sequence[str]) -> dict[str, str]:
    """["legal=runs/a", "poems=runs/b"] → {"legal": "runs/a", "poems": "runs/b"}"""
    found: dict[str, str] = {}
    for entry in adapters:
        name, equals, path = entry.partition("=")
        if not (name and equals and path):
            raise UsageError(f"--adapters: {entry!r} is not of the form name=DIR")
        if name in found:
            raise UsageError(f"--adapters: the name {name!r} comes twice")
        found[name] = path
    return found


def load(model: str, adapters: Sequence[str], *, served_name: str, step: str, dtype: str) -> dict[str, Loaded]:
    """Name → model, the base first; adapters share its arrays."""
    paths = named_paths(adapters)
    name = served_name or PurePath(model).name or model
    if name in paths:
        raise UsageError(f"--adapters: {name!r} is the name of the model itself; take another, or set --served_name")
    say(f"loading {name} from {model} ({dtype})")
    mesh = make_mesh(MeshConfig())
    if (platform := mesh.devices.flat[0].platform) != "cpu":  # for which nothing is kept, and the import takes seconds
        from alif_jax.run import keep_compiled

        keep_compiled(platform)
    base = load_model(model, mesh, dtype=dtype, param_dtype=dtype, step=step)
    models = {name: base}
    for adapter, path in paths.items():
        say(f"loading the adapter {adapter} from {path}")
        models[adapter] = load_adapter(base, path)
    return models


def context(models: Mapping[str, Loaded], max_length: int) -> int:
    """Tokens of a prompt and its answer: max_length, or for 0 the model's context and at most LONGEST.

    Raises UsageError for more than the model's context.
    """
    most = min(loaded.config.max_position_embeddings for loaded in models.values())
    if not 0 <= max_length <= most or max_length == 1:
        raise UsageError(f"max_length={max_length}: expected 2 to {most}, the model's context, or 0")
    return max_length or min(most, LONGEST)


def start(models: dict[str, Loaded], *, batch_size: int, max_length: int, max_queue: int) -> tuple[Engine, dict[str, Tokenizer]]:
    """A running engine with its programs compiled, so that no first request waits for it, and the models' tokenizers.

    Empties `models`: the engine may hold their arrays in another form, and both would not fit.
    """
    tokenizers = {name: loaded.tokenizer for name, loaded in models.items()}
    engine = Engine(models, batch_size=batch_size, max_length=max_length, max_queue=max_queue)
    models.clear()
    each = f" of each of {len(tokenizers)} models" if len(tokenizers) > 1 else ""
    weights, cache = (f"{size / 2**20:,.1f} MiB" for size in (engine.weight_bytes, engine.cache_bytes()))
    say(f"{weights} of weights; {batch_size} rows{each}, of {max_length} tokens: {cache} of cache")
    began = perf_counter()
    engine.warm_up()
    say(f"compiled in {perf_counter() - began:.1f} s")
    sys.setswitchinterval(SWITCH_SECONDS)
    engine.start()
    return engine, tokenizers


def say_how_to_ask(bound: socket, tokenizers: Mapping[str, Tokenizer], key: str) -> None:
    """The address, the names, and a command to try."""
    host, port = bound.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    url = f"http://{host}:{port}/v1"
    model, tokenizer = next(iter(tokenizers.items()))
    if tokenizer.template is None:
        path, body = "completions", {"model": model, "prompt": OPENING, "max_tokens": 60}
    else:
        path, body = "chat/completions", {"model": model, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 200}
    header = " -H 'Authorization: Bearer KEY'" if key else ""
    say(f"serving {', '.join(tokenizers)} at {url}; try")
    data = json.dumps(body, ensure_ascii=False).replace("'", r"'\''")
    say(f"  curl {url}/{path} -H 'Content-Type: application/json'{header} -d '{data}'")
