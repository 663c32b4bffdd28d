"""What a host is. `python -m cluster.host.facts` prints it as JSON there, `Facts.parse` reads that on the master."""

from __future__ import annotations

import importlib.metadata
import json
import multiprocessing
import os
import platform
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from pydantic import TypeAdapter, ValidationError

from cluster import paths
from cluster.errors import MachineError

_MEASURED_S = 1.0
_KVM = Path("/dev/kvm")
_SOURCE = "".join(
    f"def f{n}(a, *b, c={n}, **d):\n    return [x * {n} + a for x in b if x % {n + 1}] or {{k: c for k in d}}\n"
    for n in range(40)
)
"""What is compiled to measure a processor: always the same 40 functions."""


@dataclass(frozen=True, slots=True)
class Rates:
    """How often a processor of the host compiles the same text in a second of its time."""

    alone: float
    """With the others idle."""
    together: float
    """With all of them at it, which is how nodes find them: siblings share a core, and clocks go down."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a host has. `speed` and `clock_offset_s` compare it with the master, once `beside` did."""

    arch: str
    """As uname has it: x86_64."""
    cpus: int
    """Processors that its processes may use."""
    memory_mib: int
    """All of its memory."""
    disk_mib: int
    """Free where its files are kept."""
    python: str
    """Its version: 3.11.2."""
    version: str
    """portage-cluster's."""
    release: str
    """The distribution: Debian GNU/Linux 12 (bookworm)."""
    kvm: bool
    """Whether /dev/kvm may be opened; whether a node comes up on it is tried before the first."""
    clock_s: float
    """Its time of day when this was printed, in seconds since the epoch."""
    rates: Rates
    speed: float = 1.0
    """Of its processors, the master's being 1."""
    clock_offset_s: float = 0.0
    """How far its clock is ahead of the master's, to a second or the delay between them."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """What a host printed, whatever its shell said before. Raises MachineError if it is something else."""
        try:
            return TypeAdapter(cls).validate_json(text.strip().rpartition("\n")[2])
        except ValidationError as error:
            raise MachineError("the host does not say what it is", text.strip()[-200:]) from error

    def beside(self, master: Facts, clock_offset_s: float) -> Facts:
        """The same, compared with what the `master` measured of itself, and with its clock."""
        return replace(self, speed=self.rates.together / master.rates.together, clock_offset_s=clock_offset_s)


def gather(directory: Path) -> Facts:
    """What this machine is, with `directory` for its files, in some two seconds: all its processors are measured."""
    rates = measure()
    return Facts(
        arch=platform.machine(),
        cpus=_cpus(),
        memory_mib=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20,
        disk_mib=paths.free_mib(directory),
        python=platform.python_version(),
        version=importlib.metadata.version("portage-cluster"),
        release=_release(),
        kvm=os.access(_KVM, os.R_OK | os.W_OK),
        rates=rates,
        clock_s=time.time(),
    )


def measure() -> Rates:
    """Measure this machine's processors, one alone and all together, a second of each."""
    with multiprocessing.get_context("spawn").Pool(_cpus()) as pool:
        alone = pool.apply(_rate)
        together = pool.map(_rate_of, range(_cpus()), chunksize=1)
    return Rates(alone, sum(together) / len(together))


def _rate_of(number: int) -> float:
    return _rate()


def _rate() -> float:
    """Compiles in a second of CPU time, so that what else a machine does matters little."""
    compile(_SOURCE, "warm", "exec")
    start, count = time.process_time(), 0
    while (took := time.process_time() - start) < _MEASURED_S:
        compile(_SOURCE, "measured", "exec")
        count += 1
    return count / took


def _cpus() -> int:
    return len(os.sched_getaffinity(0))


def _release() -> str:
    return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())


if __name__ == "__main__":
    print(json.dumps(asdict(gather(paths.directories().cache))))
