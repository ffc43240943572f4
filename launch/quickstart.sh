#!/usr/bin/env bash
# The whole path on a fresh Linux machine: environment, synthetic Urdu data, training with LoRA, export, verification.
#
#   launch/quickstart.sh [--workdir=DIR] [--base=PATH_OR_HUB_ID] [--teacher_url=URL --teacher_model=NAME --teacher_terms=TEXT] [--no_verify]
#
# Needs Python 3.11 or later and a package index, nothing else. Without flags no weights are downloaded and nothing is
# paid for: a tiny model learns from a local teacher made of grammars. --no_verify does without torch, transformers and
# PEFT (206 MB less). All flags go to launch/quickstart.py; --help tells more once the environment is there.
# PYTHON and ALIF_PYTHON: see launch/env.sh.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

extras=(core data ingest serve eval verify)
help=no
for argument in "$@"; do
  case $argument in
    --no_verify | --no_verify=true) extras=(core data ingest serve eval) ;;
    -h | --help | -help) help=yes ;;
  esac
done

if [[ $help == yes && -z ${ALIF_PYTHON:-} ]]; then
  alif_choose
  if [[ -n $(alif_missing core data) ]]; then
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit
  fi
  extras=(core data)
fi

alif_environment "${extras[@]}"
exec "$ALIF_PYTHON" "$ALIF_ROOT/launch/quickstart.py" "$@"
