"""Joins the processes of one training run. No entry point: launch/train.py calls it before any other use of JAX."""

import os

from launch.app import UsageError

SETTINGS = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
HEARTBEAT_S = 30  # a process whose peer has died ends after about this long; JAX's own default is 100 s


def connect() -> None:
    """Calls jax.distributed.initialize where there is more than one process; does nothing where there is one.

    1. JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID, all three. JAX itself
       reads only the first of them, so the other two are handed over here.
    2. Slurm: `srun` with more than one task; JAX reads the rest from Slurm.
    3. A TPU slice (launch/train.sh sets ALIF_ACCELERATOR=tpu): JAX asks the slice's metadata.

    Raises UsageError where the three settings are incomplete or contradict each other.
    """
    given = {name: os.environ[name] for name in SETTINGS if os.environ.get(name)}
    if not given and not _on_cluster():
        return
    address, count, index = _read(given) if given else (None, None, None)
    if count == 1:
        return
    import jax  # not at the top: commands that only make data run without JAX

    jax.distributed.initialize(
        address,
        count,
        index,
        cluster_detection_method="deactivate" if given else None,
        heartbeat_timeout_seconds=HEARTBEAT_S,
    )


def _read(given: dict[str, str]) -> tuple[str, int, int]:
    missing = [name for name in SETTINGS if name not in given]
    if missing:
        raise UsageError(f"{', '.join(given)} set without {', '.join(missing)}: several processes need all three")
    address, count, index = (given[name] for name in SETTINGS)
    if not (count.isdecimal() and index.isdecimal() and int(index) < int(count)):
        raise UsageError(f"JAX_NUM_PROCESSES={count} JAX_PROCESS_ID={index}: expected N and 0 to N-1")
    return address, int(count), int(index)


def _on_cluster() -> bool:
    env = os.environ
    if "SLURM_STEP_NODELIST" in env and int(env.get("SLURM_NTASKS", "1")) > 1:
        return True
    if env.get("ALIF_ACCELERATOR") != "tpu":
        return False
    workers = env.get("TPU_WORKER_HOSTNAMES", env.get("TPU_PROCESS_ADDRESSES"))
    return workers is None or "," in workers or int(env.get("MEGASCALE_NUM_SLICES", "1")) > 1
