"""GGUF by llama.cpp's own converter and quantiser; nothing of the format is written here.

The merged model is written first and stays, the GGUF file beside it. Without a llama.cpp directory the commands are told instead.
"""

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass

from alif_jax import UsageError, files
from alif_jax.export import export_run
from alif_jax.files import join

CONVERTER = "convert_hf_to_gguf.py"
QUANTIZER = "llama-quantize"
BUILT = ("build/bin", "build/bin/Release", "bin", "")  # where a build puts it
OUTTYPES = {"F32": "f32", "F16": "f16", "BF16": "bf16", "Q8_0": "q8_0"}  # that the converter writes by itself
# Of llama-quantize; those below 3 bits that want an importance matrix are left out.
QUANTS = (
    *OUTTYPES, "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K",
    "IQ3_S", "IQ3_M", "IQ4_NL", "IQ4_XS",
)  # fmt: skip


@dataclass(frozen=True)
class Commands:
    """convert, then quantize where the converter cannot write `result` by itself; `between` is what lies between them."""

    convert: list[str]
    quantize: list[str] | None
    between: str
    result: str


def export_gguf(
    workdir: str, output: str, step: str, *, quant: str, llama_cpp: str, dtype: str = "", verify: bool = True
) -> str:
    """The merged model in `output` with the GGUF file in it, or with the commands that make it. Says in lines what it did.

    Raises UsageError for a quantisation or llama.cpp directory that cannot be, before anything is written, and where one of its
    programs fails: the merged model stays then.
    """
    if quant not in QUANTS:
        raise UsageError(f"--quant={quant} is not one of {', '.join(QUANTS)}")
    if not files.is_local(output):
        raise UsageError(f"--output={output}: llama.cpp reads and writes local files only; give a local directory")
    output = files.absolute(output)
    if llama_cpp:
        converter, quantizer = find_programs(llama_cpp, quant)
        todo = commands(output, quant, converter, quantizer)
    else:
        todo = commands(output, quant, f"LLAMA_CPP/{CONVERTER}", f"LLAMA_CPP/build/bin/{QUANTIZER}")
    said = export_run(workdir, output, "merged", step, dtype=dtype, verify=verify)
    if not llama_cpp:
        steps = [shlex.join(command) for command in (todo.convert, todo.quantize) if command]
        where = "for GGUF, with LLAMA_CPP a clone of https://github.com/ggml-org/llama.cpp that is built:"
        return "\n".join([said, where, *steps])
    run_commands(todo, output)
    return f"{said}\nGGUF: {todo.result} (llama-server -m {shlex.quote(todo.result)})"


def find_programs(llama_cpp: str, quant: str) -> tuple[str, str]:
    """(converter, quantiser) of a llama.cpp directory. Raises UsageError naming the one that is needed and not there."""
    root = files.absolute(llama_cpp)
    converter = join(root, CONVERTER)
    if not os.path.isfile(converter):
        raise UsageError(f"--llama_cpp={llama_cpp}: no {CONVERTER} in it; give a clone of https://github.com/ggml-org/llama.cpp")
    candidates = [os.path.normpath(join(root, place, QUANTIZER)) for place in BUILT]
    built = [path for path in candidates if os.access(path, os.X_OK) and os.path.isfile(path)]
    if not built and quant not in OUTTYPES:
        raise UsageError(
            f"--llama_cpp={llama_cpp}: no {QUANTIZER} in {', '.join(place or '.' for place in BUILT)}, needed for --quant={quant}; "
            f"build it (cmake -B build && cmake --build build --target {QUANTIZER}), or take one of {', '.join(OUTTYPES)}"
        )
    return converter, (built or candidates)[0]


def commands(model: str, quant: str, converter: str, quantizer: str) -> Commands:
    """What makes MODEL/NAME-QUANT.gguf of a merged model. Quantised is from 16 bits, the base's own (`auto`)."""
    name = join(model, os.path.basename(model))
    result = f"{name}-{quant}.gguf"
    direct = quant in OUTTYPES
    between = result if direct else f"{name}-16bit.gguf"
    outtype = OUTTYPES.get(quant, "auto")
    convert = [sys.executable, converter, model, "--outfile", between, "--outtype", outtype]
    return Commands(convert, None if direct else [quantizer, between, result, quant], between, result)


def run_commands(todo: Commands, model: str) -> None:
    """Runs them, their output going where ours does. What a failure left half written is removed."""
    done = False
    try:
        for command in (todo.convert, todo.quantize):
            if command is None:
                continue
            try:
                status = subprocess.run(command, stdin=subprocess.DEVNULL).returncode
            except OSError as error:
                raise UsageError(f"{command[0]} cannot be run: {error}. The merged model is in {model}") from None
            if status:
                raise UsageError(
                    f"llama.cpp ended with exit code {status}, its message is above. The merged model is in {model}; the command "
                    f"was: {shlex.join(command)}"
                )
        done = True
    finally:
        if not done:
            _remove(todo.result)
        if todo.between != todo.result:
            _remove(todo.between)


def _remove(path: str) -> None:
    if os.path.exists(path):
        os.remove(path)
