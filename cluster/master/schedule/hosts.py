"""What there is to build on: hosts with nodes of a speed, and with memory and disk that their nodes share."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from cluster.errors import InputError

THIS_MACHINE = "this machine"
"""The name of the one that the master is on."""

_KIND = re.compile(r"(\d+)x(\d+(?:\.\d+)?|\.\d+)")


@dataclass(frozen=True, slots=True)
class Host:
    """A machine whose nodes take one package each at a time."""

    name: str
    nodes: tuple[str, ...]
    speed: float = 1.0
    """Of each of its nodes, for the target of the run; 1 is the reference of all times."""
    memory_mib: float = math.inf
    disk_mib: float = math.inf
    trusted: bool = False
    """Whether what fails there has failed; on others it is tried once more elsewhere."""


class Why(StrEnum):
    """Whose word it is that a host is given nothing."""

    DRAINED = "drained"
    """Its user's, or of whoever it is rented from."""
    QUARANTINED = "quarantined"
    """The run's: others build what failed there."""
    GONE = "gone"
    """Nobody's: it is not there."""


@dataclass(frozen=True, slots=True)
class Exclusion:
    """That a host is given nothing."""

    why: Why
    reason: str
    """In a line."""


ASKED = Exclusion(Why.DRAINED, "")
"""Where nobody said why."""


def capacity(hosts: Iterable[Host]) -> float:
    """What their nodes do together, in seconds of work a second."""
    return sum(host.speed * len(host.nodes) for host in hosts)


def fastest(hosts: Iterable[Host]) -> float:
    """The greatest speed; 0 of none."""
    return max((host.speed for host in hosts), default=0.0)


def parse(text: str) -> tuple[Host, ...]:
    """Hosts of one node each from `COUNTxSPEED,...`, as `2x4.0,6x1.0`. Raises InputError."""
    speeds = [speed for word in text.split(",") for speed in _kind(word.strip())]
    names = (f"{number}@{speed:g}" for number, speed in enumerate(speeds, 1))
    return tuple(Host(name, (name,), speed) for name, speed in zip(names, speeds, strict=True))


def _kind(word: str) -> list[float]:
    found = _KIND.fullmatch(word)
    if found is None or not int(found[1]) or not float(found[2]):
        raise InputError(f"--hosts {word!r} is not COUNTxSPEED", "for example --hosts 2x4.0,6x1.0")
    return [float(found[2])] * int(found[1])
