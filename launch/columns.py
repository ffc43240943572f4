"""The models of an evaluation, each a column of its report. Not an entry point: launch/evaluate.py calls it by evaluation.py.

A run stands beside what it came from: its base, then the run it started from. Others: `run:DIR`, `jax:DIR_OR_HUB_ID` (this
project's model code), `hf:DIR_OR_HUB_ID` (transformers), `url:NAME@http://HOST:PORT/v1`; `WORD=run:DIR` calls a column WORD.
"""

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from alif_jax import files
from alif_jax.chat_template import read_template
from alif_jax.checkpoint import latest_step, which_step
from alif_jax.hf import resolve_model
from alif_jax.load import is_run, load_model, read_run
from alif_jax.run import keep_compiled
from alif_jax.sharding import MeshConfig, make_mesh
from alif_jax.tokenizer import Tokenizer, load_tokenizer
from launch.app import UsageError

KINDS = ("run", "jax", "hf", "url")
HF_ROWS = 16  # of a batch of transformers
NOT_A_NAME = re.compile(r"[^\w.+-]+")


@dataclass(frozen=True)
class Loading:
    """How models are loaded and asked. template: of all models instead of their own; fallback: of those that have none.

    output: where replies of addresses are kept; max_cost: US dollars that addresses may take, None for no bound; prices: theirs, in
    US dollars per million tokens in and out.
    """

    output: str
    dtype: str = "float32"
    template: str = ""
    step: str = "latest"
    max_length: int = 0
    max_cost: float | None = None
    prices: tuple[float, ...] = ()
    fallback: str = ""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One model. about: facts for the report. identity: what makes it this one. main: the one that was asked about. train: shards
    that it was trained on, heldout: those whose held-out records it has not seen.
    """

    name: str
    kind: str
    about: dict[str, Any]
    identity: str
    load: Callable[[ExitStack], Any]
    main: bool = False
    train: tuple[str, ...] = ()
    heldout: tuple[str, ...] = ()


def columns(model: str, compare: Sequence[str], loading: Loading) -> list[Column]:
    """The base and stages of `model` and itself, then what it is compared with. Raises UsageError for what is none of these, and
    for a model that is not there or cannot be loaded here.
    """
    if any("hf:" in text for text in compare):  # JAX would keep three quarters of a GPU for itself
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    found = [*_of_run(model, loading)] if is_run(model) else [_jax(file_name(Path(model).name), model, loading)]
    found[-1] = dataclasses.replace(found[-1], main=True)
    fallback = files.read_json(files.join(model, "config.json"))["data"]["template"] if is_run(model) else ""
    found += [_given(text, dataclasses.replace(loading, fallback=loading.fallback or fallback)) for text in compare]
    taken = set[str]()
    for number, one in enumerate(found):
        name = next(name for name in (one.name, *(f"{one.name}-{n}" for n in range(2, len(found) + 2))) if name not in taken)
        taken.add(name)
        found[number] = dataclasses.replace(one, name=name)
    return found


def file_name(text: str) -> str:
    """A column's name, after which files are called: "meta-llama/Llama 3" → "meta-llama-Llama-3"."""
    return NOT_A_NAME.sub("-", text).strip("-.") or "model"


def _given(text: str, loading: Loading) -> Column:
    """One of --compare."""
    word, equals, address = text.partition("=")
    name, address = (file_name(word), address) if equals and ":" not in word else ("", text)
    kind, _, place = address.partition(":")
    if kind not in KINDS or not place:
        raise UsageError(
            f"--compare={text}: expected run:DIR, jax:DIR_OR_HUB_ID, hf:DIR_OR_HUB_ID or url:NAME@http://HOST:PORT/v1, perhaps "
            "with WORD= before it"
        )
    if kind == "run" and not is_run(place):
        raise UsageError(f"--compare={text}: {place} is no run directory; a Hugging Face directory is jax:{place} or hf:{place}")
    if kind == "run":
        own = [*_of_run(place, loading)][-1]
        return dataclasses.replace(own, name=name or own.name)
    if kind == "url":
        return _url(name, place, loading)
    return (_jax if kind == "jax" else _hf)(name or file_name(Path(place).name), place, loading)


# --- of each kind -------------------------------------------------------------------------------------------------------


def _of_run(path: str, loading: Loading) -> Iterator[Column]:
    """Its base, the runs that it began from, and itself. What has no template of its own is asked by the run's."""
    run, config = read_run(path), files.read_json(files.join(path, "config.json"))
    began, fallback = config["model"].get("init_from") or "", config["data"]["template"] or loading.fallback
    before = dataclasses.replace(loading, step=config["model"].get("init_from_step", "latest"), fallback=fallback)
    if began and is_run(began):
        yield from _of_run(began, before)
    elif not run.random_init:
        base = _jax(file_name(Path(run.base_name).name), run.base, before)
        yield dataclasses.replace(base, about=base.about | {"path": run.base_name, "revision": run.revision})
    step = str(which_step(path, loading.step) or latest_step(path) or "latest")  # what is the latest may change until it is loaded
    asked, template = _asked_by(run.tokenizer, loading, config["data"]["template"])
    about = {"path": path, "step": step, "template": asked, "base": run.base_name} | _facts(loading)
    made_of = [about, template, config, _fingerprint(Path(path, "checkpoints", step)), _fingerprint(Path(run.base))]
    yield Column(
        name=file_name(Path(path).name), kind="run", about=about, identity=json.dumps(made_of, sort_keys=True),
        load=partial(_load_jax, path, dataclasses.replace(loading, step=step)), train=tuple(config["data"]["path"]),
        heldout=tuple(config["data"].get("eval_path") or config["data"]["path"]),
    )  # fmt: skip


def _jax(name: str, path: str, loading: Loading) -> Column:
    directory = resolve_model(path)
    asked, template = _asked_by(load_tokenizer(directory), loading)
    about = {"path": path, "template": asked} | _facts(loading)
    identity = json.dumps([about, template, directory, _fingerprint(Path(directory))])
    return Column(name=name, kind="jax", about=about, identity=identity, load=partial(_load_jax, path, loading))


def _asked_by(own: Tokenizer, loading: Loading, name: str = "") -> tuple[str, str]:
    """The name and the text of the template by which a model is asked."""
    if template := _template(loading, own.template):
        return template, read_template(template)
    return name or ("its own" if own.template else "none"), own.template or ""


def _facts(loading: Loading) -> dict[str, Any]:
    return {"dtype": loading.dtype} | ({"max_length": loading.max_length} if loading.max_length else {})


def _fingerprint(place: Path) -> list[Any]:
    """Names, sizes and times of local files; of a hub's model the directory's name says which commit it is."""
    local = sorted(file for file in place.glob("*") if file.is_file()) if place.is_dir() else []
    return [[file.name, file.stat().st_size, file.stat().st_mtime] for file in local]


def _load_jax(path: str, loading: Loading, _: ExitStack) -> Any:
    from alif_jax.harness import JaxLM

    step, dtype, mesh = loading.step if is_run(path) else "latest", loading.dtype, make_mesh(MeshConfig())
    keep_compiled(mesh.devices.flat[0].platform)
    loaded = load_model(path, mesh, dtype=dtype, param_dtype=dtype, step=step)
    if template := _template(loading, loaded.tokenizer.template):
        loaded = dataclasses.replace(loaded, tokenizer=load_tokenizer(loaded.tokenizer.directory, template))
    return JaxLM(loaded, max_length=loading.max_length)


def _template(loading: Loading, own: str | None) -> str:
    """The template by which a model is asked instead of its `own`, or ""."""
    return loading.template or ("" if own else loading.fallback)


def _hf(name: str, path: str, loading: Loading) -> Column:
    if missing := [package for package in ("torch", "transformers", "accelerate") if find_spec(package) is None]:
        raise UsageError(f"--compare=hf:{path} needs {', '.join(missing)}: pip install -e '.[verify]', or give url:NAME@ADDRESS")
    directory = resolve_model(path)
    about = {"path": path, "template": loading.template or loading.fallback, "by": "transformers"} | _facts(loading)
    template = read_template(about["template"]) if about["template"] else ""

    def load(_: ExitStack) -> Any:
        from data_gen.evaluation.backends import set_template, transformers_lm

        limit = {"max_length": loading.max_length} if loading.max_length else {}
        model = transformers_lm(directory, dtype=loading.dtype, batch_size=HF_ROWS, **limit)
        if other := _template(loading, model.tokenizer.chat_template):
            tokenizer = load_tokenizer(directory, other)
            set_template(model, tokenizer.template or "", tokenizer.stop_ids)
        return model

    identity = json.dumps([about, template, directory, _fingerprint(Path(directory))])
    return Column(name=name, kind="hf", about=about, identity=identity, load=load)


def _url(name: str, place: str, loading: Loading) -> Column:
    model, _, url = place.partition("@")
    if not model or "://" not in url:
        raise UsageError(f"--compare=url:{place}: expected url:NAME@http://HOST:PORT/v1, the model's name as its server calls it")
    if len(loading.prices) not in (0, 2) or (loading.max_cost is not None and not loading.prices):
        raise UsageError("--max_cost needs --price=IN --price=OUT, what the address takes in US dollars per million tokens")
    about = {"path": url, "model": model, "template": "the server's own"}

    def load(open_ones: ExitStack) -> Any:
        from data_gen.evaluation.backends import address_lm

        return open_ones.enter_context(address_lm(url, model, loading.output, loading.max_cost, loading.prices))

    return Column(name=name or file_name(model), kind="url", about=about, identity=json.dumps(about), load=load)
