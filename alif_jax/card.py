"""The model card, README.md of an export: what the model was made from and with, what was measured, how to run it.

It says what the run directory and the manifests of its data know. What they do not know is left out or said to be unknown; no
figure is made up, and no path of the machine that trained it gets in.
"""

import hashlib
import json
import posixpath
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from alif_jax import files
from alif_jax.checkpoint import about
from alif_jax.files import join
from alif_jax.languages import english_name
from alif_jax.load import Run
from alif_jax.lora import LoraConfig
from alif_jax.metrics import metrics_path, read_rows
from alif_jax.trained import render_table

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
# By the names under which Meta publishes them; other makers change the licence from one size to the next.
LLAMA_LICENSES = ("Llama-3.3", "Llama-3.2", "Llama-3.1", "Llama-3")
LICENSE_TEXTS = {
    "Apache License": "apache-2.0", "MIT License": "mit", "LLAMA 3.1 COMMUNITY": "llama3.1", "LLAMA 3.2 COMMUNITY": "llama3.2",
    "LLAMA 3.3 COMMUNITY": "llama3.3", "META LLAMA 3 COMMUNITY": "llama3", "LLAMA 2 COMMUNITY": "llama2",
}  # fmt: skip
LICENSE_FILE = re.compile(r"(LICEN[CS]E|NOTICE).*")
TERMS = ("license", "licence", "terms")  # keys of a manifest's config that say what its data may be used for
URL = re.compile(r"<?(https?://[^\s<>]*[^\s<>.,;:!?)\]'\"])>?")
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that --max-lora-rank takes
RELATIONS = {"merged": "finetune", "peft": "adapter"}


def write_card(directory: str, *, form: str, workdir: str, step: int, run: Run) -> None:
    """Writes `directory/README.md`. form: merged or peft; step: of the checkpoint that was exported."""
    config = files.read_json(join(workdir, "config.json"))
    sources = [_source(path) for path in run.data.path]
    license, license_said = license_of(run)
    sections = [
        front_matter(form, run, license, sources),
        f"# {'Adapter for ' if form == 'peft' else ''}{_base_said(run)}, trained on {_languages_said(sources) or 'text'}",
        _what(form, run, step),
        _usage(form, run),
        f"## Base and licence\n\n{license_said}",
        "## Data\n\n" + "\n".join(map(_source_said, sources)),
        _recipe(config, workdir, step),
        _results(read_rows(metrics_path(workdir), upto=step), step),
        "## Known limits\n\n" + "\n".join(f"- {limit}" for limit in _limits(run)),
    ]
    files.write_text(join(directory, "README.md"), "\n\n".join(sections) + "\n")


# --- the head


def front_matter(form: str, run: Run, license: str, sources: Sequence[Mapping[str, Any]]) -> str:
    """What the hub indexes. Values are quoted as JSON strings, which YAML reads."""
    languages, base = list(dict.fromkeys(code.split("-")[0] for code in _languages(sources))), hub_base(run)
    fields: dict[str, Any] = {"license": license}
    if license == "other":
        fields |= {"license_name": "see-the-base"} | ({"license_link": f"https://huggingface.co/{base}"} if base else {})
    fields |= {"base_model": [base], "base_model_relation": RELATIONS[form]} if base else {}
    fields |= {"language": languages} if languages else {}
    fields |= {"pipeline_tag": "text-generation", "library_name": "peft" if form == "peft" else "transformers"}
    fields["tags"] = ["alif-jax", *(["lora"] if run.lora.targets() else [])]
    lines = []
    for key, value in fields.items():
        lines += [f"{key}:", *(f"- {_yaml(item)}" for item in value)] if isinstance(value, list) else [f"{key}: {_yaml(value)}"]
    return "\n".join(["---", *lines, "---"])


def _yaml(value: str) -> str:
    """Plain where YAML takes it for a string: `no` (Norwegian) is a truth value to it, and 3.1 a number."""
    plain = re.fullmatch(r"[A-Za-z][\w./-]+", value) and value.lower() not in ("yes", "no", "on", "off", "true", "false", "null")
    return value if plain else json.dumps(value, ensure_ascii=False)


def license_of(run: Run) -> tuple[str, str]:
    """(the hub's identifier, the chain in words): from the base's card, its licence file, or its name; `other` if none tells."""
    base = _base_said(run)
    if run.random_init:
        return "other", "It was trained from random weights: no base's licence applies. The terms of its data do; see below."
    found = [name for name in files.list_names(run.base) if LICENSE_FILE.fullmatch(name)]
    license, how = _license_in_card(run.base), "its own card"
    if not license and found:
        license, how = _license_in_file(join(run.base, found[0])), f"its {found[0]}"
    if not license:
        license, how = _license_by_name(run.base_name), "its name"
    said = f"Base: {base}. "
    said += f"Its licence is {license} (by {how})" if license else "Its licence is not known here (see the base)"
    said += ", and holds for this model too. "
    said += f"{', '.join(found)} of the base {'lies' if len(found) == 1 else 'lie'} beside this file. " if found else ""
    said += "The terms of the data and of the teacher that wrote it come on top; see below."
    if license.startswith("llama3"):
        said += ' Whoever distributes it has to show "Built with Llama" and to begin its name with "Llama".'
    return license or "other", said


def _license_in_card(base: str) -> str:
    path = join(base, "README.md")
    if not files.exists(path):
        return ""
    with files.open_file(path, "r") as file:
        head = re.match(r"---\n(.*?)\n---", file.read(), re.DOTALL)
    found = re.search(r"^license:\s*[\"']?([\w.-]+)", head.group(1), re.MULTILINE) if head else None
    return found.group(1) if found and found.group(1) != "other" else ""


def _license_in_file(path: str) -> str:
    with files.open_file(path, "r") as file:
        start = file.read(500)
    return next((license for text, license in LICENSE_TEXTS.items() if text.lower() in start.lower()), "")


def _license_by_name(name: str) -> str:
    if not name.startswith("meta-llama/"):
        return ""
    return next((known.lower().replace("-", "") for known in LLAMA_LICENSES if known in name), "")


def hub_base(run: Run) -> str:
    """The base's hub id; "" for a local one (whose path may look like an id) and for a run from random weights."""
    from_hub = run.base != run.base_name and HUB_ID.fullmatch(run.base_name)
    return run.base_name if from_hub and not run.random_init else ""


def _base_said(run: Run) -> str:
    if run.random_init:
        return "a model of its own"
    return hub_base(run) or f"the local base `{_name_of(run.base_name)}`"


def _name_of(path: str) -> str:
    """The last part of a path: the rest says something of the machine only."""
    return posixpath.basename(path.rstrip("/")) or path


def _what(form: str, run: Run, step: int) -> str:
    how = "all of its weights were trained" if run.lora.full else _trained_said(run.lora)
    kinds = {
        "merged": "This is a whole model: the trained parameters are merged into the base's weights.",
        "peft": "This is a PEFT adapter: it needs its base.",
    }
    vocabulary = ""
    if run.config.original_vocab_size is not None:
        vocabulary = f" {run.config.vocab_size - run.config.original_vocab_size:,} tokens of its vocabulary were added."
    held = f" The base was held in {run.quantization} meanwhile." if run.quantization else ""
    return f"{kinds[form]} It is step {step:,} of a run in which {how}.{held}{vocabulary}"


def _trained_said(lora: LoraConfig) -> str:
    kind = "DoRA" if lora.use_dora else "LoRA"
    parts = [f"{kind} of rank {lora.rank} on {', '.join(lora.targets())}"] if lora.targets() else []
    rows = "the new rows of " if lora.new_rows_only else ""
    parts += [f"{rows}{' and '.join(lora.modules_to_save)}"] if lora.modules_to_save else []
    return " and ".join(parts) + " was trained"


# --- how to run it


def _usage(form: str, run: Run) -> str:
    parts = (_with_peft, _adapter_with_vllm) if form == "peft" else (_with_transformers, _with_vllm)
    said = ["## How to run it", "`PATH` is this directory or its hub id.", *(part(run) for part in parts)]
    if run.tokenizer.template is not None:
        said.append("Prompts go through the chat template beside the tokenizer: the model was trained on it and ends by its token.")
    return "\n\n".join(said)


def _with_transformers(run: Run) -> str:
    question = "پاکستان کا دارالحکومت کون سا شہر ہے؟"
    chat = f'[{{"role": "user", "content": "{question}"}}]' if run.tokenizer.template is not None else f'"{question}"'
    ask = (
        'from transformers import pipeline\ngenerate = pipeline("text-generation", model="PATH", dtype="auto")\n'
        f"print(generate({chat}, max_new_tokens=128))"
    )
    return f"With transformers:\n\n```python\n{ask}\n```"


def _with_vllm(run: Run) -> str:
    ask = (
        f"pip install vllm\nvllm serve PATH --max-model-len={min(8192, run.config.max_position_embeddings)}\n{_curl('PATH', run)}"
    )
    return f"With vLLM:\n\n```bash\n{ask}\n```"


def _curl(model: str, run: Run) -> str:
    chat = run.tokenizer.template is not None
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": "سلام"}]} if chat else {"prompt": "سلام"}
    body = json.dumps({"model": model, **asked}, ensure_ascii=False)
    return f"curl localhost:8000/v1/{'chat/' if chat else ''}completions -H 'Content-Type: application/json' -d '{body}'"


def _with_peft(run: Run) -> str:
    ask = (
        "from peft import AutoPeftModelForCausalLM\nfrom transformers import AutoTokenizer\n"
        'model, tokenizer = AutoPeftModelForCausalLM.from_pretrained("PATH"), AutoTokenizer.from_pretrained("PATH")'
    )
    said = f"With PEFT:\n\n```python\n{ask}\n```"
    if run.is_local:
        said += "\n\nadapter_config.json names the base by its full path on the machine that made it; elsewhere, or after a move, "
        said += "set base_model_name_or_path to where it is" + (" (`base/` beside it)." if run.brings_base else ".")
    return said


def refused_by_vllm(lora: LoraConfig) -> list[str]:
    """What of an adapter vLLM and llama.cpp do not read."""
    refused = [f"{' and '.join(lora.modules_to_save)} trained in full (modules_to_save)"] if lora.modules_to_save else []
    return [*refused, *(["DoRA"] if lora.use_dora else [])]


def _adapter_with_vllm(run: Run) -> str:
    if refused := refused_by_vllm(run.lora):
        return f"vLLM and llama.cpp refuse this adapter because of {' and '.join(refused)}: give them the merged model."
    rank = next((rank for rank in VLLM_RANKS if rank >= run.lora.rank), None)
    if rank is None:
        return f"vLLM takes adapters up to rank {VLLM_RANKS[-1]}, and this one has {run.lora.rank}: give it the merged model."
    base = "PATH/base" if run.brings_base else hub_base(run) or "BASE"
    serve = f"vllm serve {base} --enable-lora --max-lora-rank={rank} --lora-modules tuned=PATH"
    serve += " --chat-template=PATH/chat_template.jinja" if run.tokenizer.template is not None else ""
    where = ", `BASE` being its base's directory" if base == "BASE" else ""
    commands = f"pip install vllm\n{serve}\n{_curl('tuned', run)}"
    return f"With vLLM, which refuses a rank above its limit{where}:\n\n```bash\n{commands}\n```"


# --- data, recipe, results


def _source(path: str) -> dict[str, Any]:
    """A directory's manifest with its own hash and name; the name alone where the data has moved away."""
    known: dict[str, Any] = {"name": _name_of(path)}
    manifest = join(path, "manifest.json")
    if not files.exists(manifest):
        return known
    with files.open_file(manifest) as file:
        known["sha256"] = hashlib.sha256(file.read()).hexdigest()
    return known | files.read_json(manifest)


def _counts(source: Mapping[str, Any], field: str) -> dict[str, int]:
    return source.get("counts", {}).get("train", {}).get(field, {})


def _languages_said(sources: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(english_name(code) or code for code in _languages(sources))


def _languages(sources: Sequence[Mapping[str, Any]]) -> list[str]:
    """BCP-47 codes, the one with most training records first."""
    totals: Counter[str] = Counter()
    for source in sources:
        totals.update(_counts(source, "language"))
    return [code for code, _ in totals.most_common()]


def _source_said(source: Mapping[str, Any]) -> str:
    if "counts" not in source:
        return f"- `{source['name']}`: no longer where the run read it, so nothing more is known here"
    records = {split: counts.get("records", 0) for split, counts in source["counts"].items()}
    parts = [f"{records.get('train', 0):,} records to train on, {records.get('heldout', 0):,} held out"]
    for field in ("source", "language", "task"):
        if counts := _counts(source, field):
            parts.append(f"by {field}: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()))
    config = source.get("config", {})
    teacher = config.get("teacher") or {}
    if teacher.get("base_url") == "offline":
        parts.append("written by grammars and word lists, not by a language model")
    elif teacher.get("model"):
        terms = _with_links(str(teacher.get("terms") or ""))
        parts.append(f"teacher: {teacher['model']}, terms: {terms or 'not recorded; those of its provider hold'}")
    if terms := next((str(config[key]) for key in TERMS if config.get(key)), ""):
        parts.append(f"terms of the data: {_with_links(terms)}")
    parts.append(f"manifest SHA-256 `{source['sha256']}`")
    return f"- `{source['name']}`: " + "; ".join(parts)


def _with_links(text: str) -> str:
    """One line, its addresses in angle brackets: without them Markdown takes a semicolon behind one for a part of it.

    "https://x.org/terms: no competing models" → "<https://x.org/terms>: no competing models".
    """
    return URL.sub(r"<\1>", " ".join(text.split()))


def _recipe(config: Mapping[str, Any], workdir: str, step: int) -> str:
    """The resolved config without its paths, its hash with them, and the table of what was trained."""
    with files.open_file(join(workdir, "config.json")) as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    shown = json.dumps(_without_paths(config), ensure_ascii=False, indent=1)
    said = [f"## Recipe\n\nThe run's resolved config (SHA-256 of its config.json `{digest}`; of paths the last part is shown):"]
    said.append(f"<details><summary>config.json</summary>\n\n```json\n{shown}\n```\n\n</details>")
    if table := about(workdir, step).get("trained"):
        said.append(f"What was trained:\n\n```\n{render_table(table)}\n```")
    return "\n\n".join(said)


def _without_paths(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_paths(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_paths(inner) for inner in value]
    is_path = isinstance(value, str) and "/" in value and not HUB_ID.fullmatch(value) and not any(c in value for c in "*\\{")
    return _name_of(value) if is_path else value


def _results(rows: Sequence[Mapping[str, Any]], step: int) -> str:
    evaluated = [row for row in rows if row.get("heldout_loss") is not None]
    trained = [row for row in evaluated if row["step"] > 0]
    if not evaluated:
        return "## Held-out results\n\nNone were measured up to this step."
    base = next((row for row in evaluated if row["step"] == 0), None)
    row = trained[-1] if trained else evaluated[0]
    names = sorted({name.removeprefix("heldout_loss").lstrip("/") for name in row if name.startswith("heldout_loss")})
    head = ["held out", "loss", "bits a byte", *(["loss before training", "bits a byte before training"] if base else [])]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for name in names:
        cells = [name.replace("/", " ", 1) or "all"]
        for one in [row, *([base] if base else [])]:
            cells += [_number(one, "heldout_loss", name), _number(one, "heldout_bits_per_byte", name)]
        lines.append(f"| {' | '.join(cells)} |")
    after = "" if row["step"] == step else f", measured at step {row['step']:,}, the last before it that was"
    said = f"Loss in nats a token and bits a byte of text, lower is better{after}. "
    if not base:
        said += "The base was not measured in this run (eval_on_start): `launch/evaluate.py --model=BASE --data=SHARDS` does so."
    return "## Held-out results\n\n" + said.strip() + "\n\n" + "\n".join(lines)


def _number(row: Mapping[str, Any], metric: str, name: str) -> str:
    value = row.get(f"{metric}/{name}" if name else metric)
    return "-" if value is None else f"{value:.4f}"


def _limits(run: Run) -> list[str]:
    limits = [
        f"It was trained on rows of {run.data.sequence_length:,} tokens; nothing longer was measured.",
        "Held-out loss on data of the same making says little about other questions: compare it with its base on benchmarks "
        "that native speakers wrote, and on English.",
        "Nothing was done for safety beyond what the base has; it can state falsehoods and repeat biases of its data.",
    ]
    if run.config.original_vocab_size is not None:
        limits.append("Its vocabulary is an extended one: tokenizer and weights belong together.")
    if run.quantization:
        limits.append(f"It was trained beside a base held in {run.quantization}; the exported weights are the unquantised ones.")
    return limits
