"""To Hugging Face: `python launch/export.py --workdir=RUN --format=merged|peft|gguf --output=DIR [--step=best]`. No accelerator.

`merged` is a whole model that transformers, vLLM and llama.cpp load; `peft` an adapter for its base. An adapter with trained
embeddings (modules_to_save) is loaded by PEFT only: vLLM and llama.cpp want the merged model. `gguf` is `merged` and then
llama.cpp's own converter and quantiser. What was written is loaded with transformers and PEFT and compared with the run.
"""

import sys
from pathlib import Path

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from launch import app

WORKDIR = flags.DEFINE_string("workdir", None, "the run directory", required=True)
FORMAT = flags.DEFINE_enum("format", "merged", ["merged", "peft", "gguf"], "what to write")
STEP = flags.DEFINE_string("step", "latest", "which checkpoint: latest, best (lowest held-out loss), or a step's number")
OUTPUT = flags.DEFINE_string("output", None, "the directory to make; must not exist yet", required=True)
DTYPE = flags.DEFINE_string("dtype", "", "of an adapter's tensors (float32), of a model's without a base; else the base's own")
VERIFY = flags.DEFINE_bool("verify", None, "compare with the run by transformers and PEFT; default: where they are installed")
PUSH_TO_HUB = flags.DEFINE_string("push_to_hub", None, "owner/name of a Hugging Face repository to send it to")
PUBLIC = flags.DEFINE_bool("public", False, "that repository is, or becomes when it is made, public")
QUANT = flags.DEFINE_string("quant", "Q4_K_M", "of --format=gguf: as llama.cpp calls them")
LLAMA_CPP = flags.DEFINE_string("llama_cpp", "", "of --format=gguf: a built clone of llama.cpp; without it the commands are told")


def main(argv: list[str]) -> None:
    form, verify = FORMAT.value, VERIFY.value
    if form != "gguf" and (LLAMA_CPP.value or QUANT.present):
        raise app.UsageError("--quant and --llama_cpp belong to --format=gguf")
    if PUBLIC.value and not PUSH_TO_HUB.value:
        raise app.UsageError("--public belongs to --push_to_hub=owner/name")
    from alif_jax.export import export_run
    from alif_jax.gguf import export_gguf
    from alif_jax.hub import check_push, check_shareable, push
    from alif_jax.load import read_run
    from alif_jax.verify import available

    if PUSH_TO_HUB.value:
        check_push(PUSH_TO_HUB.value, OUTPUT.value)
        if form == "peft":
            check_shareable(read_run(WORKDIR.value))
    if verify is not False and not available(form):
        if verify:
            raise app.UsageError("--verify needs torch, transformers and peft: pip install '.[verify]'")
        print("not verified: torch, transformers or peft is not installed (pip install '.[verify]')")
    verify = verify is not False and available(form)
    workdir, output, step, dtype = WORKDIR.value, OUTPUT.value, STEP.value, DTYPE.value
    if form == "gguf":
        quant, llama_cpp = QUANT.value, LLAMA_CPP.value
        print(export_gguf(workdir, output, step, quant=quant, llama_cpp=llama_cpp, dtype=dtype, verify=verify))
    else:
        print(export_run(workdir, output, form, step, dtype=dtype, verify=verify))
    if PUSH_TO_HUB.value:
        print(push(OUTPUT.value, PUSH_TO_HUB.value, public=PUBLIC.value))


if __name__ == "__main__":
    app.run(main)
