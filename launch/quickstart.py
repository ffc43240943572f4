"""The whole path in one command: synthetic data, base model, continued pre-training, instruction tuning, export, report.

    launch/quickstart.sh --workdir=DIR                                    # everything made here, CPU, no weights downloaded
    launch/quickstart.sh --workdir=DIR --base=meta-llama/Llama-3.2-1B --teacher_url=https://... --teacher_model=NAME \
        --teacher_terms='https://... what they allow'

Leaves DIR/data (shards), DIR/run (run directory), DIR/export/{merged,peft} and DIR/report.json. The same command again continues
where it stopped. Exit code 1: it ran, but what came out is below the bars of `BARS`.
"""

import dataclasses
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from launch import app

WORKDIR = flags.DEFINE_string("workdir", "runs/quickstart", "where everything goes")
BASE = flags.DEFINE_string("base", None, "a Hugging Face directory or hub id instead of the tiny base trained here")
DATA = flags.DEFINE_string("data", None, "a directory of instruction shards with a held-out split, instead of making one")
TEACHER_URL = flags.DEFINE_string("teacher_url", None, "an OpenAI-compatible endpoint instead of the offline teacher")
TEACHER_MODEL = flags.DEFINE_string("teacher_model", None, "the model's name there")
TEACHER_TERMS = flags.DEFINE_string("teacher_terms", None, "the URL of its terms and what they allow to do with its replies")
NO_VERIFY = flags.DEFINE_bool("no_verify", False, "do not load the exports with transformers and PEFT: no torch needed")
QUICK = flags.DEFINE_bool("quick", False, "a minute's version for tests: less data, fewer steps, no quality bars")

VOCAB_SIZE = 2048
CLOSED_TASKS = ("classification", "sentiment")
SHOWN_TASK = "question_answering"  # the task of the prompt on the report
PROMPTS = 100  # held-out prompts that are answered
MAX_NEW_TOKENS = 160
# What a sound run on the defaults reaches at least; the measured values stand in tests/benchmarks/quickstart.md.
BARS = {"cpt_fall": 0.30, "sft_fall": 0.50, "stop_rate": 0.95, "script_purity": 0.98, "closed_exact": 0.80}


def main(argv: list[str]) -> None:
    if len({flag.value is None for flag in (TEACHER_URL, TEACHER_MODEL, TEACHER_TERMS)}) > 1:
        raise app.UsageError("--teacher_url, --teacher_model and --teacher_terms belong together")
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):  # a mesh of two, for CPUs only
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2".strip()
    started = time.monotonic()
    root = Path(WORKDIR.value).resolve()
    paths = {name: str(root / name) for name in ("data", "text", "base_run", "base", "cpt", "run", "export/merged", "export/peft")}
    if BASE.value:
        from alif_jax.hf import resolve_model

        resolve_model(BASE.value)  # downloaded, or refused, before anything else
        paths["base"] = BASE.value
    if DATA.value:
        paths["data"] = str(Path(DATA.value).resolve())
    else:
        make_data(root, paths)
    if not BASE.value:
        make_base(paths)
    train("cpt", paths["cpt"], {"model.path": paths["base"], "data.path": paths["data"]})
    train("sft", paths["run"], {"model.path": paths["base"], "data.path": paths["data"], "model.init_from": paths["cpt"]})
    for form in ("merged", "peft"):  # compared with the run at the end, also those of an earlier start
        step(f"export {form}", Path(paths[f"export/{form}"]), ["export", f"--workdir={paths['run']}", f"--format={form}",
             f"--output={paths[f'export/{form}']}", "--noverify"])  # fmt: skip
    report = measure(paths)
    report |= {"seconds": time.monotonic() - started, "peak_memory_gib": peak_memory_gib()}
    (root / "report.json").write_text(json.dumps(report, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    print(screen(report, root))
    if report["missed"]:
        sys.exit(1)


def part(name: str) -> str:
    return f"--config=configs/tiny.py:{name}" + (",quick" if QUICK.value else "")


def step(title: str, done: Path | None, command: list[str]) -> None:
    """Runs one entry point as a command of its own; skipped where its result is there."""
    if done and done.exists():
        print(f"\n== {title}: done before ({done})", flush=True)
        return
    print(f"\n== {title}\n   python launch/{command[0]}.py {' '.join(command[1:])}", flush=True)
    process = subprocess.Popen([sys.executable, str(app.ROOT / "launch" / f"{command[0]}.py"), *command[1:]], cwd=app.ROOT)
    try:
        status = process.wait()
    except KeyboardInterrupt:  # the command got it too, and may be saving replies that were paid for
        process.wait()
        status = 130
    if status:
        print(f"error: {title} ended with exit code {status}; the same quickstart command continues from here", file=sys.stderr)
        sys.exit(status)


def make_data(root: Path, paths: dict[str, str]) -> None:
    command = ["self_instruct", part("data"), f"--workdir={root}"]
    if TEACHER_URL.value:
        command += [f"--config.teacher.base_url={TEACHER_URL.value}", f"--config.teacher.model={TEACHER_MODEL.value}",
                    f"--config.teacher.terms={TEACHER_TERMS.value}"]  # fmt: skip
    step("instruction data", None, command)  # asks nothing that was answered, and refuses another teacher's work directory


def make_base(paths: dict[str, str]) -> None:
    """A tokenizer and a tiny model trained on the Urdu text that data_gen ships, exported as a Hugging Face directory."""
    from alif_jax.tiny_base import make_tiny_base
    from data_gen.text.shipped import text_records, write_text_shards

    initial = paths["base_run"] + "_init"
    if not Path(initial, "config.json").exists():
        make_tiny_base(initial, (record.text or "" for record in text_records("ur")), vocab_size=VOCAB_SIZE)
    if not Path(paths["text"], "manifest.json").exists():
        write_text_shards(paths["text"], "ur")
    train("base", paths["base_run"], {"model.path": initial, "data.path": paths["text"]})
    export = ["export", f"--workdir={paths['base_run']}", f"--output={paths['base']}", "--noverify"]
    step("base model", Path(paths["base"]), export)


def train(name: str, workdir: str, values: dict[str, str]) -> None:
    overrides = [f"--config.{key}={value}" for key, value in values.items()]
    if BASE.value and name in ("cpt", "sft"):
        overrides += for_real_base(values["model.path"], name)
    step(f"train: {name}", None, ["train", part(name), f"--workdir={workdir}", "--resume", *overrides])


def for_real_base(base: str, name: str) -> list[str]:
    """The tiny recipe's learning rates and precision are for a model made in a minute; a real one wants gentler ones."""
    from alif_jax.hf import read_model_config, resolve_model

    trained = "embed_tokens" if read_model_config(resolve_model(base)).tie_word_embeddings else "embed_tokens,lm_head"
    overrides = {
        "lora.modules_to_save": trained,
        "optim.learning_rate": "5e-5",
        "optim.embedding_learning_rate": "1e-5",
        "optim.weight_decay": "0.01",
        "model.dtype": "bfloat16",
        "model.param_dtype": "bfloat16",
        "model.remat": "full",
        "data.sequence_length": "1024",
    }
    if name == "sft":
        overrides["data.template"] = chat_template(base)
    return [f"--config.{key}={value}" for key, value in overrides.items()]


def chat_template(base: str) -> str:
    """A real base's own template; Alpaca's, in plain text, for one without."""
    from alif_jax.hf import resolve_model
    from alif_jax.tokenizer import load_tokenizer

    return "" if load_tokenizer(resolve_model(base)).template else "alpaca"


def measure(paths: dict[str, str]) -> dict[str, Any]:
    """Everything in the report: data counts, held-out loss after each stage, answers to held-out prompts, the exports' verdict."""
    from alif_jax.data.tfrecord import read_manifest, read_records
    from alif_jax.evaluate import evaluate_loss
    from alif_jax.generate import generate
    from alif_jax.load import load_model
    from alif_jax.sharding import MeshConfig, make_mesh
    from data_gen.text import script_share

    print("\n== measure", flush=True)
    mesh = make_mesh(MeshConfig())
    template = "turns" if not BASE.value else chat_template(paths["base"])
    losses = {}
    for name in ("base", "cpt", "run"):
        loaded = load_model(paths[name], mesh)
        losses[name] = evaluate_loss(loaded, paths["data"], sequence_length=1024, template=template)["loss"]
    turns = [(record, record.messages) for record in read_records(paths["data"], "heldout") if record.messages][:PROMPTS]
    answers = generate(loaded, [m[0]["content"] for _, m in turns], max_new_tokens=MAX_NEW_TOKENS, batch_size=32)
    urdu = [a.text for a, (r, _) in zip(answers, turns, strict=True) if r.language == "ur" and a.text.strip()]
    exact = [(r.task, a.text.strip() == m[1]["content"].strip()) for a, (r, m) in zip(answers, turns, strict=True)]
    closed = [right for task, right in exact if task in CLOSED_TASKS]
    shown = next((i for i, (r, _) in enumerate(turns) if r.task == SHOWN_TASK), 0)
    rejects = Path(paths["data"]).with_name("rejected.jsonl")
    rejected = [json.loads(line)["reason"] for line in rejects.open(encoding="utf-8")] if rejects.exists() else []
    report: dict[str, Any] = {
        "counts": read_manifest(paths["data"])["counts"],
        "rejected": {reason: rejected.count(reason) for reason in sorted(set(rejected))},
        "heldout_loss": losses,
        "cpt_fall": 1 - losses["cpt"] / losses["base"],
        "sft_fall": 1 - losses["run"] / losses["cpt"],
        "prompts": len(answers),
        "stop_rate": sum(a.finish_reason == "stop" for a in answers) / len(answers),
        "script_purity": sum(map(script_share, urdu)) / max(len(urdu), 1),
        "closed_exact": sum(closed) / max(len(closed), 1),
        "closed_prompts": len(closed),
        "example": dataclasses.asdict(answers[shown]) | {"expected": turns[shown][1][1]["content"]},
        "exports": {form: paths[f"export/{form}"] for form in ("merged", "peft")},
        "verify": "skipped (--no_verify)",
    }
    on_defaults = not (QUICK.value or BASE.value or TEACHER_URL.value)  # what the bars were measured on
    report["missed"] = missed_bars(report) if on_defaults else []
    if not QUICK.value and not losses["base"] > losses["cpt"] > losses["run"]:
        report["missed"].append("held-out loss does not fall after each stage")
    if not NO_VERIFY.value:
        del loaded
        report["verify"] = verify_exports(paths)
        report["missed"] += [f"{form}: {said}" for form, said in report["verify"].items() if not said.startswith("verified")]
    return report


def verify_exports(paths: dict[str, str]) -> dict[str, str]:
    """By form, what transformers and PEFT say of it: "verified …", or how it differs from the run."""
    from alif_jax import UsageError
    from alif_jax.checkpoint import latest_step
    from alif_jax.verify import verify_export

    newest, said = latest_step(paths["run"]) or 0, {}
    for form in ("merged", "peft"):
        try:
            said[form] = verify_export(paths[f"export/{form}"], form=form, workdir=paths["run"], step=newest)
        except UsageError as error:
            said[form] = str(error)
    return said


def missed_bars(report: dict[str, Any]) -> list[str]:
    """The names of the bars that a report falls below."""
    return [name for name, bar in BARS.items() if report[name] < bar]


def peak_memory_gib() -> float:
    """Of the largest process so far: this one or any it started. Linux counts in KiB."""
    usage = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return max(usage) / 2**20


def screen(report: dict[str, Any], root: Path) -> str:
    loss = report["heldout_loss"]
    train_counts = report["counts"]["train"]
    verdict = report["verify"]
    if isinstance(verdict, dict):
        loaders = {"merged": "transformers", "peft": "peft"}
        same = {form: "same greedy tokens as JAX" if said.startswith("verified") else said for form, said in verdict.items()}
        verdict = ", ".join(f"{loaders[form]}: {said}" for form, said in same.items())
    lines = [
        "",
        "=" * 100,
        f"data        {train_counts['records']} training items, {report['counts']['heldout']['records']} held out; rejected "
        + ", ".join(f"{count} {reason}" for reason, count in report["rejected"].items()),
        f"loss        held-out items: base {loss['base']:.3f} → continued pre-training {loss['cpt']:.3f} "
        f"(−{report['cpt_fall']:.0%}) → instruction tuning {loss['run']:.3f} (−{report['sft_fall']:.0%})",
        f"answers     {report['prompts']} held-out prompts: {report['stop_rate']:.0%} end with the turn token, script purity "
        f"{report['script_purity']:.1%}, closed tasks {report['closed_exact']:.0%} exact of {report['closed_prompts']}",
        f"prompt      {report['example']['prompt']}",
        f"answer      {report['example']['text']}",
        f"exports     {report['exports']['merged']}, {report['exports']['peft']}",
        f"loaded by   {verdict}",
        f"took        {report['seconds'] / 60:.1f} minutes, {report['peak_memory_gib']:.1f} GiB of memory at most",
    ]
    if report["missed"]:
        lines.append(f"FAILED      {', '.join(report['missed'])}; the bars: {BARS}")
    else:
        lines.append(f"next        python launch/generate.py --model={root}/run --prompt='...'")
        lines.append(f"            python launch/evaluate.py --model={root}/run --suite=urdu_quick")
    return "\n".join([*lines, "=" * 100])


if __name__ == "__main__":
    app.run(main)
