"""A Dask scheduler of this master's own, in a process of its own.

There the master's loop and it have a processor each: for each package Dask's scheduler takes a millisecond or more,
several times as much as the master's loop.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import InputError, MachineError
from cluster.host.tls import Identity
from cluster.process import Child

CONFIG = Path(__file__).parents[2] / "host" / "dask.yaml"

_START_S = 60.0
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Scheduler:
    """One that runs."""

    address: str
    """`tls://HOST:PORT`, where workers and the master connect to."""
    child: Child

    @property
    def port(self) -> int:
        """The port of its address."""
        return int(self.address.rpartition(":")[2])


def require() -> None:
    """Raise InputError unless Dask is installed."""
    if importlib.util.find_spec("distributed") is None:
        raise InputError("building on other hosts needs Dask", "pip install 'portage-cluster[dask]'")


@contextmanager
def running(identity: Identity, directory: Path, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[Scheduler]:
    """Run a scheduler that listens at `host` and `port` (0: any) for those whom the authority of `identity` signed.

    Its log and its address are in `directory`. It ends with the context, and with the thread that enters it.
    Raises InputError without Dask, MachineError if it does not start.
    """
    require()
    file = directory / "scheduler.json"
    file.unlink(missing_ok=True)
    argv: list[str | Path] = [
        *(sys.executable, "-m", "dask", "scheduler", "--protocol", "tls", "--host", host, "--port", str(port)),
        *("--tls-ca-file", identity.authority, "--tls-cert", identity.certificate, "--tls-key", identity.key),
        *("--no-dashboard", "--no-show", "--scheduler-file", file, "--preload", "cluster.master.engines.announcer"),
    ]
    log = directory / "scheduler.log"
    with Child(argv, log_path=log, env={**os.environ, "DASK_CONFIG": str(CONFIG)}) as child:
        yield Scheduler(_address(file, child), child)


def _address(file: Path, child: Child) -> str:
    """What the scheduler writes into `file` when it listens."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and not child.ended:
        try:
            address: str = json.loads(file.read_text())["address"]
            return address
        except (FileNotFoundError, json.JSONDecodeError):  # not there yet, or not all of it
            time.sleep(_POLL_S)
    raise MachineError("the Dask scheduler did not start", child.why())
