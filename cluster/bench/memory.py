"""What processes hold in memory, as Linux counts it (proc(5), /proc/PID/smaps_rollup). MiB."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import NodeLost

_KIB = 1024  # in a MiB


@dataclass(frozen=True, slots=True)
class Usage:
    """One process. What is shared is in the memory of another process as well."""

    rss_mib: float
    pss_mib: float
    """Its share: a page that N processes have counts as 1/N. Sums of this count nothing twice."""
    private_mib: float
    shared_mib: float


@dataclass(frozen=True, slots=True)
class Idle:
    """Nodes that wait for work, first one of them, then all at once."""

    one: Usage
    """The first while it was the only one."""
    all: tuple[Usage, ...]
    """Each, while all were there."""

    @property
    def sum_mib(self) -> float:
        """What all of them hold together."""
        return round(sum(usage.pss_mib for usage in self.all), 1)

    @property
    def further_mib(self) -> float | None:
        """What each one after the first adds; None if there is none."""
        more = len(self.all) - 1
        return round((self.sum_mib - self.one.pss_mib) / more, 1) if more else None


def parse(rollup: str) -> Usage:
    """What the text of a smaps_rollup says. Raises ValueError for a text that is none."""
    kib: dict[str, int] = {}
    for line in rollup.splitlines():
        name, colon, value = line.partition(": ")
        if colon and value.endswith(" kB"):
            kib[name] = int(value.removesuffix(" kB"))
    try:
        return Usage(
            rss_mib=_mib([kib["Rss"]]),
            pss_mib=_mib([kib["Pss"]]),
            private_mib=_mib([kib["Private_Clean"], kib["Private_Dirty"]]),
            shared_mib=_mib([kib["Shared_Clean"], kib["Shared_Dirty"]]),
        )
    except KeyError as error:
        raise ValueError(f"no {error.args[0]} in smaps_rollup") from error


def _mib(kib: Iterable[int]) -> float:
    return round(sum(kib) / _KIB, 1)


def of(pids: Sequence[int]) -> tuple[Usage, ...]:
    """What each of these processes holds now. Raises NodeLost if one has ended."""
    try:
        return tuple(parse(Path(f"/proc/{pid}/smaps_rollup").read_text()) for pid in pids)
    except (OSError, ValueError) as error:  # of a process that has ended, but is not reaped, it is empty
        raise NodeLost("a node ended while its memory was read", str(error)) from error
