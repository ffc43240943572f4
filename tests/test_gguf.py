"""GGUF: a stand-in llama.cpp that records its calls, and what the real converter would read of an export."""

import hashlib
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors
import transformers

from alif_jax import UsageError
from alif_jax.export import export_run
from alif_jax.gguf import commands, export_gguf, find_programs
from alif_jax.lora import LoraConfig
from tests import tiny
from tests.test_verify import LLAMA31, make_run

# As in llama.cpp's gguf-py/gguf/tensor_mapping.py, for the families here; {} is the layer.
TENSOR_NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "model.layers.{}.input_layernorm": "blk.{}.attn_norm", "model.layers.{}.post_attention_layernorm": "blk.{}.ffn_norm",
    **{f"model.layers.{{}}.self_attn.{name}_proj": f"blk.{{}}.attn_{to}" for name, to in (("q", "q"), ("k", "k"), ("v", "v"))},
    "model.layers.{}.self_attn.o_proj": "blk.{}.attn_output",
    "model.layers.{}.self_attn.q_norm": "blk.{}.attn_q_norm", "model.layers.{}.self_attn.k_norm": "blk.{}.attn_k_norm",
    **{f"model.layers.{{}}.mlp.{name}_proj": f"blk.{{}}.ffn_{name}" for name in ("gate", "up", "down")},
}  # fmt: skip
CONVERTER = """import json, sys
out = sys.argv[sys.argv.index("--outfile") + 1]
open(out, "w").write("gguf")
open("{log}", "a").write(json.dumps(sys.argv[1:]) + "\\n")
sys.exit({status})
"""


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("gguf")
    return make_run(root / "run", tiny.make_base(root / "base", **LLAMA31), LoraConfig(rank=4))


def stand_in(directory: Path, *, status: int = 0, quantizer_status: int = 0) -> Path:
    """A directory with a converter and a built quantiser that write a file and log how they were called."""
    (directory / "build" / "bin").mkdir(parents=True)
    (directory / "convert_hf_to_gguf.py").write_text(CONVERTER.format(log=directory / "log", status=status))
    quantizer = directory / "build" / "bin" / "llama-quantize"
    quantizer.write_text(
        f'#!/bin/sh\necho "[\\"quantize\\", \\"$1\\", \\"$2\\", \\"$3\\"]" >> {directory}/log\ncp "$1" "$2"\n'
        f"exit {quantizer_status}\n"
    )
    quantizer.chmod(0o755)
    return directory


def calls(llama_cpp: Path) -> list[list[str]]:
    return [json.loads(line) for line in (llama_cpp / "log").read_text().splitlines()]


def test_the_converter_and_the_quantiser_are_called(tmp_path: Path, workdir: str) -> None:
    llama_cpp, out = stand_in(tmp_path / "llama.cpp"), tmp_path / "alif"
    said = export_gguf(workdir, str(out), "latest", quant="Q4_K_M", llama_cpp=str(llama_cpp), verify=False)
    between, result = f"{out}/alif-16bit.gguf", f"{out}/alif-Q4_K_M.gguf"
    assert calls(llama_cpp) == [
        [str(out), "--outfile", between, "--outtype", "auto"],
        ["quantize", between, result, "Q4_K_M"],
    ]
    assert result in said and os.path.exists(result) and not os.path.exists(between)
    assert (out / "model.safetensors").exists() and (out / "README.md").exists()


def test_what_the_converter_can_write_needs_no_quantiser(tmp_path: Path, workdir: str) -> None:
    llama_cpp = stand_in(tmp_path / "llama.cpp")
    (llama_cpp / "build/bin/llama-quantize").unlink()
    out = f"{tmp_path}/out"
    export_gguf(workdir, out, "latest", quant="Q8_0", llama_cpp=str(llama_cpp), verify=False)
    assert calls(llama_cpp) == [[out, "--outfile", f"{out}/out-Q8_0.gguf", "--outtype", "q8_0"]]
    with pytest.raises(UsageError, match="no llama-quantize in build/bin.*cmake"):
        export_gguf(workdir, f"{tmp_path}/other", "latest", quant="Q4_K_M", llama_cpp=str(llama_cpp), verify=False)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(("status", "quantizer_status"), [(3, 0), (0, 4)])
def test_their_errors_are_passed_on(tmp_path: Path, workdir: str, status: int, quantizer_status: int) -> None:
    llama_cpp = stand_in(tmp_path / "llama.cpp", status=status, quantizer_status=quantizer_status)
    with pytest.raises(UsageError, match=f"exit code {status or quantizer_status}.*The merged model is in"):
        export_gguf(workdir, f"{tmp_path}/out", "latest", quant="Q4_K_M", llama_cpp=str(llama_cpp), verify=False)
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert not list((tmp_path / "out").glob("*.gguf"))


def test_without_llama_cpp_the_commands_are_told(tmp_path: Path, workdir: str) -> None:
    out = f"{tmp_path}/my model"
    said = export_gguf(workdir, out, "latest", quant="Q5_K_M", llama_cpp="", verify=False).splitlines()
    assert said[-2] == (
        f"{sys.executable} LLAMA_CPP/convert_hf_to_gguf.py '{out}' --outfile '{out}/my model-16bit.gguf' --outtype auto"
    )
    assert said[-1] == f"LLAMA_CPP/build/bin/llama-quantize '{out}/my model-16bit.gguf' '{out}/my model-Q5_K_M.gguf' Q5_K_M"
    assert (Path(out) / "model.safetensors").exists()


def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path: Path, workdir: str) -> None:
    for given, message in (
        ({"quant": "Q4KM", "llama_cpp": ""}, "--quant=Q4KM is not one of .*Q4_K_M"),
        ({"quant": "Q4_K_M", "llama_cpp": str(tmp_path)}, "no convert_hf_to_gguf.py in it"),
    ):
        with pytest.raises(UsageError, match=message):
            export_gguf(workdir, f"{tmp_path}/out", "latest", verify=False, **given)
    with pytest.raises(UsageError, match="local files only"):
        export_gguf(workdir, "memory://out", "latest", quant="Q4_K_M", llama_cpp="")
    assert list(tmp_path.iterdir()) == []
    assert find_programs(str(stand_in(tmp_path / "l")), "F16")[1].endswith("l/build/bin/llama-quantize")
    assert commands("/m", "BF16", "c", "q").quantize is None


def export_py(*flags: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "launch/export.py", *flags]
    return subprocess.run(command, cwd=Path(__file__).resolve().parents[1], capture_output=True, text=True)


def test_the_entry_point(tmp_path: Path, workdir: str) -> None:
    flags = (f"--workdir={workdir}", f"--output={tmp_path}/out", "--noverify")
    for wrong in ("--quant=Q8_0", "--public"):
        result = export_py(*flags, wrong)
        assert result.returncode == 2 and wrong.split("=")[0] in result.stderr and "Traceback" not in result.stderr
    result = export_py(*flags, "--format=gguf", "--quant=Q8_0")
    assert result.returncode == 0, result.stderr
    assert "--outtype q8_0" in result.stdout and "llama-quantize" not in result.stdout
    assert (tmp_path / "out" / "model.safetensors").exists()


# --- what the converter reads


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_every_tensor_has_a_name_in_gguf(tmp_path: Path, family: str) -> None:
    """By a table, and by llama.cpp's own map where the package `gguf` is installed."""
    workdir = make_run(tmp_path / "run", tiny.make_base(tmp_path / "base", family=family), LoraConfig(rank=4))
    export_run(workdir, str(tmp_path / "out"), "merged", verify=False)
    with safetensors.safe_open(tmp_path / "out" / "model.safetensors", "np") as file:
        names = list(file.keys())
    expected = {}
    for name in names:
        module, suffix = name.rsplit(".", 1)
        layer = module.split(".")[2] if ".layers." in module else ""
        expected[name] = f"{TENSOR_NAMES[module.replace(f'.{layer}.', '.{}.')].format(layer)}.{suffix}"
    assert len(set(expected.values())) == len(names)
    if importlib.util.find_spec("gguf") is not None:
        gguf = importlib.import_module("gguf")
        architecture = getattr(gguf.MODEL_ARCH, {"mistral": "LLAMA"}.get(family, family.upper()))
        theirs = gguf.get_tensor_name_map(architecture, 2)
        assert {name: theirs.get_name(name, try_suffixes=(".weight", ".bias")) for name in names} == {
            name: f"{to.rsplit('.', 1)[0]}.{name.rsplit('.', 1)[1]}" for name, to in expected.items()
        }


def test_keys_that_the_converter_reads(tmp_path: Path, workdir: str) -> None:
    """Rope in the form that converters before 2026 read too (without it theta falls back to 10,000), and the usual sizes."""
    export_run(workdir, str(tmp_path / "out"), "merged", verify=False)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"] and config["rope_theta"] == 500_000.0
    scaling = config["rope_scaling"]
    assert scaling["rope_type"] == "llama3" and scaling["original_max_position_embeddings"] == 8192
    assert all(isinstance(scaling[key], float) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    needed = {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
              "head_dim", "rms_norm_eps", "max_position_embeddings"}  # fmt: skip
    assert needed <= config.keys()
    with safetensors.safe_open(tmp_path / "out" / "model.safetensors", "np") as file:
        assert file.get_slice("model.embed_tokens.weight").get_shape()[0] == config["vocab_size"]


def test_the_pre_tokenizer_is_the_bases(tmp_path: Path, workdir: str) -> None:
    """The converter tells it by a hash of the ids of a probe text: with the base's hash it is known where the base is."""
    export_run(workdir, str(tmp_path / "out"), "merged", verify=False)
    base = json.loads((Path(workdir) / "config.json").read_text())["model"]["path"]
    probe = "\n \n\n \t\t \t\n 3 33 333 3333 33333 🚀 ပြီး 'll 're I'VE été Äpfel اردو زبان ۱۲۳ ```==" * 2
    hashes = []
    for directory in (base, tmp_path / "out"):
        ids = transformers.AutoTokenizer.from_pretrained(directory).encode(probe)
        hashes.append(hashlib.sha256(str(ids).encode()).hexdigest())
    assert hashes[0] == hashes[1]
