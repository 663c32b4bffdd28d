"""The distccds that a host's nodes may use: where they are, how they stand, which one is next. No I/O."""

from __future__ import annotations

import ipaddress
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from cluster.errors import InputError

LOOPBACK: Final = "127.0.0.1"
_MOST_WAIT_S = 300.0
_FORGET_S = 300.0
_SLOW = 4.0
"""Times the others' seconds for a byte that make a member slow: a factor of two is between any two machines."""
_EVIDENCE = 8.0
"""Compiles without which nobody is called slow: files differ."""
_DECAY = 0.9
"""Of what was counted, with each compile: the last ten weigh as much as all before."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a host has for the compiles of all: its distccd."""

    address: str
    """On which it listens."""
    port: int
    cores: int
    signature: str
    """Of its compilers, as `cluster.node.sysroot.signature` has it."""
    pilots: bool = False
    """Whether each of its own packages keeps another processor busy."""


@dataclass(frozen=True, slots=True)
class Member:
    """One distccd of a pool, as one host reaches it."""

    name: str
    """Of the host on which it runs."""
    address: str
    """Loopback for the host's own and for the end of an ssh tunnel, else that host's on a trusted network."""
    port: int
    slots: int
    """Compiles at once that all packages of the reaching host together may have there."""
    tunnel: bool = False

    def __post_init__(self) -> None:
        if self.tunnel and not is_loopback(self.address):
            raise InputError(
                f"the tunnel to the distccd of {self.name} ends at {self.address}", "let it listen on loopback only"
            )


def is_loopback(address: str) -> bool:
    """Whether only this machine's programs can connect to `address`. Raises InputError if it is no IP address."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError as error:
        raise InputError(f"{address} is no IP address", "distcc's pool takes addresses, not names") from error


@dataclass(frozen=True, slots=True)
class Pool:
    """What the master tells a host of the distccds that its nodes may use."""

    members: tuple[Member, ...] = ()
    packages: Mapping[str, Mapping[str, int]] = field(default_factory=lambda: MappingProxyType({}))
    """By package and member, its part of the slots; one that is not named may use all of them."""
    lzo: bool = False
    """Whether nodes that start now are to compress."""

    def allowed(self, package: str, member: Member) -> int:
        """How many compiles of `package` there may be at once on `member`."""
        given = self.packages.get(package)
        return member.slots if given is None else min(member.slots, given.get(member.name, 0))


@dataclass(frozen=True, slots=True)
class Pace:
    """How long compiles took for what was sent; later ones count more."""

    seconds: float = 0.0
    size: float = 0.0
    """Bytes of the requests."""
    compiles: float = 0.0

    def after(self, seconds: float, size: int) -> Pace:
        """The pace with one more compile."""
        return Pace(self.seconds * _DECAY + seconds, self.size * _DECAY + size, self.compiles + 1)

    @property
    def per_byte(self) -> float:
        """Seconds."""
        return self.seconds / self.size if self.size else 0.0


def is_slow(mine: Pace, others: Iterable[Pace]) -> bool:
    """Whether a member takes far longer for a byte than the others do, as far as that is known by now."""
    known = [other.per_byte for other in others if other.compiles >= _EVIDENCE]
    return bool(known) and mine.compiles >= _EVIDENCE and mine.per_byte > _SLOW * statistics.median(known)


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a member is given compiles, and how it came to that; times are of one clock, in seconds."""

    out: str = ""
    """Why it is given none; empty if it is."""
    since: float = 0.0
    """When it was taken out, or in again."""
    failures: int = 0
    pace: Pace = field(default_factory=Pace)

    def failed(self, why: str, now: float) -> Standing:
        """It is out from now on, twice as long as the last time, unless that is long ago."""
        forgotten = not self.out and now - self.since > _FORGET_S
        return Standing(why, now, 1 if forgotten else self.failures + 1)

    def answered(self, now: float) -> Standing:
        """It is in; what is known of its pace is of another time if it was out."""
        return replace(self, out="", since=now, pace=Pace()) if self.out else self

    def wait_s(self, first_s: float) -> float:
        """How long it is left alone before it is tried again: `first_s` at first, twice that the next time."""
        return min(_MOST_WAIT_S, first_s * 2.0 ** min(self.failures - 1, 10))


@dataclass(frozen=True, slots=True)
class Load:
    """A member that could be next for a package."""

    member: Member
    allowed: int
    """Of the package."""
    used: int
    """By the package."""
    working: int
    """For all packages of this host."""
    doubted: bool = False
    """Whether it is being probed, because a compile failed there: it may be free again soon."""

    @property
    def is_free(self) -> bool:
        """Whether there is a slot for the package now."""
        return not self.doubted and self.used < self.allowed and self.working < self.member.slots


def choose(loads: Sequence[Load], own: str) -> Load | None:
    """The least loaded member that has a slot, by its part in use; the host's own, named `own`, first among equals."""
    free = [load for load in loads if load.is_free]
    return min(free, key=lambda load: (load.working / load.member.slots, load.member.name != own), default=None)
