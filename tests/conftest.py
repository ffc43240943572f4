"""Settings of every test: 8 pretended CPU devices, no hub, and no network beyond this machine.

They are made here, before any test imports JAX, so that a bare `pytest` runs under the same ones as launch/test.sh.
"""

import importlib.util
import ipaddress
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from typing import Any

import pytest

from launch.app import AWAY_FROM_TPU

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a script that ends in & has its shell see to that, also for our children
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
# Most of the suite's time is compiling the same tiny programs; workers and child processes share what one has compiled.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", tempfile.mkdtemp(prefix="alif-test-cache-"))
os.environ.setdefault("JAX_PERSISTENT_COMPILATION_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Tokenised test data does not belong into the user's cache.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="alif-test-data-")
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")


class NetworkBlocked(RuntimeError):
    """A test reached for the network. Not an OSError, which a client may take for an outage and try again."""


def _check(host: Any) -> None:
    if isinstance(host, bytes):
        host = host.decode()
    if host in (None, "", "localhost"):
        return
    try:
        local = ipaddress.ip_address(host).is_loopback or host in ("0.0.0.0", "::")
    except ValueError:
        local = False
    if not local:
        raise NetworkBlocked(f"a test reached for {host!r}: tests run without network, 127.0.0.1 apart")


def _guard(name: str) -> None:
    original = getattr(socket.socket, name)

    def guarded(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            _check(address[0])
        return original(self, address)

    setattr(socket.socket, name, guarded)


def _guard_names() -> None:
    original = socket.getaddrinfo

    def guarded(host: Any, *args: Any, **kwargs: Any) -> Any:
        _check(host)
        return original(host, *args, **kwargs)

    socket.getaddrinfo = guarded


_guard("connect")
_guard("connect_ex")
_guard_names()


@pytest.fixture
def away_from_tpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that compile for TPUs which are not here; skips them where libtpu is not either."""
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("needs libtpu: pip install '.[plan]'")
    for key, value in AWAY_FROM_TPU.items():
        monkeypatch.setenv(key, value)


@pytest.fixture
def takes_less() -> Callable[[float, Callable[[], object]], bool]:
    """Whether one of three calls takes less CPU time than so many seconds, which another process or a pause does not change."""

    def seconds(call: Callable[[], object]) -> float:
        began = time.process_time()
        call()
        return time.process_time() - began

    return lambda bound, call: any(seconds(call) < bound for _ in range(3))
