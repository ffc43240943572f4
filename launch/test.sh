#!/usr/bin/env bash
# The whole test suite on a fresh machine: environment, ruff, mypy, pytest. What continuous integration runs.
#
#   launch/test.sh                       the first tier (at most 12 minutes)
#   launch/test.sh --all                 the slow tier too (at most 60 minutes)
#   launch/test.sh --no_torch            without torch, transformers and PEFT; the tests that need them are skipped
#   launch/test.sh tests/test_x.py -k y  everything else goes to pytest
#
# The tests run on 8 pretended CPU devices and without network. PYTHON and ALIF_PYTHON: see launch/env.sh.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$ALIF_ROOT"

extras=(core data import ingest x_instruction eval ray serve tools plan verify)
# Three workers for two cores, as many tests wait for a server or a child.
pytest=(-n 3 --dist loadfile --no-loadscope-reorder) # reordered, long files of few tests come last, one after the other
for argument in "$@"; do
  case $argument in
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" && exit ;;
    --all) pytest+=(-m '') ;;
    --no_torch) extras=(core data import ingest x_instruction eval ray serve tools plan) ;;
    *) pytest+=("$argument") ;;
  esac
done

alif_environment "${extras[@]}"
export JAX_PLATFORMS=cpu XLA_FLAGS=--xla_force_host_platform_device_count=8
unset PYTHONDONTWRITEBYTECODE # tests start many processes, each of which would compile our modules again
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 TOKENIZERS_PARALLELISM=false

status=0
step() {
  local began=$SECONDS
  alif_say "$*"
  "$ALIF_PYTHON" -m "$@" || {
    status=1
    alif_say "FAILED: $1"
  }
  alif_say "$1 took $((SECONDS - began)) s"
}
step ruff check .
step mypy
step pytest "${pytest[@]}"
alif_say "$( ((status == 0)) && echo passed || echo FAILED) after $SECONDS s"
exit $status
