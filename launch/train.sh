#!/usr/bin/env bash
# Trains on whatever this host has; on a slice of several hosts, run the same command on every one of them.
#
#   launch/train.sh --config=configs/alif_sft.py --workdir=gs://bucket/run [any flag of launch/train.py]
#
# It finds a TPU, an NVIDIA GPU or the CPU, makes the environment for it (launch/env.sh) and becomes launch/train.py.
#
# Settings, all optional:
#   ALIF_ACCELERATOR=cpu|tpu|gpu   instead of looking (on the CPU, the gcs extra is installed when a flag names gs://)
#   ALIF_PYTHON=/path/python       use this interpreter as it is; nothing is installed
#   PYTHON=python3.12              build the environment from this one
#
# Several processes find each other in one of three ways (launch/processes.py):
#   TPU slice   from the slice's own metadata; nothing to set
#   Slurm       `srun launch/train.sh ...`; nothing to set
#   otherwise   three variables, on every host:
#                 JAX_COORDINATOR_ADDRESS=HOST:PORT   where process 0 runs, and a free port there
#                 JAX_NUM_PROCESSES=N
#                 JAX_PROCESS_ID=0 ... N-1
# JAX_LOCAL_DEVICE_IDS=0,1 (which of the host's GPUs are this process's) and JAX_COORDINATOR_BIND_ADDRESS are read by JAX.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

# alif_accelerator: prints tpu, gpu or cpu, and on stderr why.
alif_accelerator() {
  local found
  if [[ -n ${ALIF_ACCELERATOR:-} ]]; then
    alif_say "accelerator: $ALIF_ACCELERATOR, as ALIF_ACCELERATOR says"
    echo "$ALIF_ACCELERATOR"
  elif found=$(command -v nvidia-smi) && "$found" --list-gpus >/dev/null 2>&1; then
    alif_say "accelerator: gpu ($("$found" --list-gpus | wc -l) listed by nvidia-smi)"
    echo gpu
  elif [[ -e /dev/nvidia0 ]]; then
    alif_say "accelerator: gpu (/dev/nvidia0)"
    echo gpu
  elif [[ -e /dev/accel0 ]]; then
    alif_say "accelerator: tpu (/dev/accel0)"
    echo tpu
  elif [[ -n ${TPU_WORKER_ID:-}${TPU_ACCELERATOR_TYPE:-} ]]; then
    alif_say "accelerator: tpu (TPU_* in the environment)"
    echo tpu
  elif grep -qsi 0x1ae0 /sys/bus/pci/devices/*/vendor && compgen -G '/dev/vfio/[0-9]*' >/dev/null; then
    alif_say "accelerator: tpu (Google's PCI device behind /dev/vfio)"
    echo tpu
  else
    alif_say "accelerator: none found, using the CPU"
    echo cpu
  fi
}

ALIF_ACCELERATOR=$(alif_accelerator)
export ALIF_ACCELERATOR
case $ALIF_ACCELERATOR in
  cpu) extras=(core data) ;;
  tpu) extras=(core data gcs tpu) ;;
  gpu)
    extras=(core data gcs cuda)
    export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92} # what launch/plan.py counts on; JAX's own is 0.75
    ;;
  *) alif_fail "ALIF_ACCELERATOR=$ALIF_ACCELERATOR: expected cpu, tpu or gpu" ;;
esac
[[ $ALIF_ACCELERATOR != cpu || "$*" != *gs://* ]] || extras+=(gcs)
[[ $ALIF_ACCELERATOR != cpu ]] || export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}

alif_environment "${extras[@]}"
exec "$ALIF_PYTHON" "$ALIF_ROOT/launch/train.py" "$@"
