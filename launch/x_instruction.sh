#!/usr/bin/env bash
# X-Instruction on a fresh machine: environment, then launch/x_instruction.py with the same arguments.
#
#   launch/x_instruction.sh --config=configs/x_instruction.py:tiny --workdir=runs/xi    # the shipped sample, on a CPU, ten minutes
#
# --help lists the options. On a GPU or TPU first install what it needs, as launch/train.sh does: ALIF_EXTRAS=cuda or tpu adds it here.
# PYTHON and ALIF_PYTHON: see launch/env.sh.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

alif_environment core data ingest serve x_instruction ${ALIF_EXTRAS:-}
exec "$ALIF_PYTHON" "$ALIF_ROOT/launch/x_instruction.py" "$@"
