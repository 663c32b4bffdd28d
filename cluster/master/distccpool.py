"""Who compiles for whom: each host's idle processors, as distcc slots of the packages that are being built. No I/O.

A node that waits for a compile leaves a processor to it: so each package has one slot on its own host, however busy
that is. The idle processors of all hosts are given to packages on top of that, each package's part spread over
the hosts in proportion to what they have left.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cluster.host.pool import LOOPBACK, Member, Pool
from cluster.model import Cpv

# Measured, see docs/distcc.md#a-pool: sed 4.9, and the lzo that distcc uses.
COMPILE_BYTES: Final = 118_000
"""A preprocessed source and its object."""
NODE_COMPILE_S: Final = 0.5
"""What an emulated node takes for such a source itself."""
LZO_BYTES_S: Final = 174e6
"""What an emulated processor compresses."""
LZO_LEAVES: Final = 0.222
"""Of a preprocessed source."""
MOST_WAYS: Final = 8
"""From a host to others: with each to each, a thousand hosts would need a million tunnels."""
_ROUND_TRIPS = 3
"""Of one compile: connect, request, reply."""


@dataclass(frozen=True, slots=True)
class Host:
    """A host whose distccd may take compiles."""

    name: str
    cores: int
    nodes: int
    """Those that build now: each keeps one processor busy, or leaves it to the compile for which it waits."""
    busy: float
    """Processors that other work has: the compile server, pilots, other builds."""
    signature: str
    """Of the cross compiler of its distccd, as cluster.node.sysroot compares it; empty if it has none."""
    port: int
    """Of its distccd, on the address that it listens on."""
    address: str = LOOPBACK
    """Where its distccd listens."""

    @property
    def left(self) -> int:
        """Idle processors."""
        return max(0, math.floor(self.cores - self.nodes - self.busy))


@dataclass(frozen=True, slots=True)
class Link:
    """The way from one host to the distccd of another."""

    address: str
    port: int
    tunnel: bool
    round_trip_s: float
    bytes_s: float
    """Both as cluster.host.relay.measure found them when the later of the two joined."""


@dataclass(frozen=True, slots=True)
class Want:
    """A package that is being built."""

    cpv: Cpv
    host: str
    """Of its node."""
    jobs: int
    """make's -j: more compiles at once there are not."""


Links = Mapping[tuple[str, str], Link]
"""By the host whose nodes compile and the host whose distccd does."""


@dataclass(frozen=True, slots=True)
class Handed:
    """Slots, and who has none to give."""

    slots: Mapping[tuple[str, Cpv], Mapping[str, int]]
    """By host of the node and package: how many of its compiles there may be at once, by the host that does them."""
    out: Mapping[tuple[str, str], str]
    """Why the nodes of the first host are not to use the second one."""


def refusal(host: Host, link: Link | None, signature: str) -> str:
    """Why a host is not to compile for nodes at the other end of `link`, whose compiler is `signature`; "" if it is.

    `link` is None for the host's own nodes.
    """
    if not host.signature:
        return "it has no cross compiler"
    if host.signature != signature:
        return "its compiler is not the nodes' own"
    if link is not None and (takes := moving_s(link)) > NODE_COMPILE_S:
        return f"moving a compile there takes {takes:.1f} s, and doing it in the node {NODE_COMPILE_S:g} s"
    return ""


def moving_s(link: Link) -> float:
    """Seconds for a compile of the usual size to go over `link` and come back, compressed if that is sooner."""
    leaves = min(1.0, LZO_LEAVES + link.bytes_s / LZO_BYTES_S)
    return _ROUND_TRIPS * link.round_trip_s + COMPILE_BYTES * leaves / link.bytes_s


def neighbours(idle: Mapping[str, int], mine: str, most: int = MOST_WAYS) -> tuple[str, ...]:
    """The hosts that compile for the nodes of `mine`, of all in `idle`: those with the most idle processors.

    Among equals those that come after it by name, in a circle, so that all are used alike.
    """
    names = sorted(idle)
    place = names.index(mine)
    others = names[place + 1 :] + names[:place]
    return tuple(sorted(others, key=lambda name: -idle[name])[:most])


def hand_out(hosts: Sequence[Host], links: Links, wants: Sequence[Want], signature: str) -> Handed:
    """Slots for the packages `wants`, of which the first is the most urgent; `signature` is of the nodes' compiler.

    Hosts give what they have left and one for each of their own packages, never more. Where packages want more than
    there is, each gets one, and the rest goes to the most urgent. A way that is not in `links` is not there.
    """
    out = dict(_refusals(hosts, links, signature))
    left = {host.name: host.left for host in hosts if (host.name, host.name) not in out}
    near: dict[str, list[str]] = {host.name: [host.name] for host in hosts}
    for mine, other in links:
        near.setdefault(mine, []).append(other)
    parts = _parts(sum(left.values()), [want.jobs - 1 for want in wants])
    slots: dict[tuple[str, Cpv], Mapping[str, int]] = {}
    for want, part in zip(wants, parts, strict=True):
        usable = {name: left[name] for name in near[want.host] if name in left and (want.host, name) not in out}
        given = spread(part, usable, want.host)
        for name, count in given.items():
            left[name] -= count
        if want.host in usable:
            given[want.host] = given.get(want.host, 0) + 1
        slots[want.host, want.cpv] = {name: count for name, count in given.items() if count}
    return Handed(slots, out)


def _refusals(hosts: Sequence[Host], links: Links, signature: str) -> Iterable[tuple[tuple[str, str], str]]:
    known = {host.name: host for host in hosts}
    ways: list[tuple[str, str, Link | None]] = [(name, name, None) for name in known]
    ways += [(mine, other, link) for (mine, other), link in links.items() if mine in known and other in known]
    for mine, other, link in ways:
        if why := refusal(known[other], link, signature):
            yield (mine, other), why


def _parts(left: int, wanted: Sequence[int]) -> list[int]:
    """How much of `left` each gets: one, as far as they go round, and then all that it wants, in this order."""
    parts = [0] * len(wanted)
    for most in (1, left):
        for place, want in enumerate(wanted):
            more = min(max(0, min(want, most) - parts[place]), left)
            parts[place] += more
            left -= more
    return parts


def spread(count: int, left: Mapping[str, int], own: str) -> dict[str, int]:
    """`count` slots, or all that are left, over hosts in proportion to what they have `left`, by largest remainders.

    `own` is first among equal remainders. No host is given more than it has left.
    """
    total = sum(left.values())
    count = min(count, total)
    if not count:
        return {}
    given = {name: count * mine // total for name, mine in left.items()}
    order = sorted(left, key=lambda name: (-(count * left[name] % total), name != own, name))
    for name in order[: count - sum(given.values())]:
        given[name] += 1
    return given


def most_lent(mine: Iterable[str], hosts: Sequence[Host], links: Links, out: Container[tuple[str, str]]) -> int:
    """The most compiles at once that there are for a package on one of the hosts `mine`, if nobody else wants any.

    `out` are the ways that are not to be used, as in `Handed`.
    """
    left = {host.name: host.left for host in hosts}
    return max((1 + sum(left[other] for other in _reached(name, links, out)) for name in mine), default=0)


def _reached(mine: str, links: Links, out: Container[tuple[str, str]]) -> Iterable[str]:
    others = (other for name, other in links if name == mine)
    return (other for other in (mine, *others) if (mine, other) not in out)


def pool_of(host: str, hosts: Sequence[Host], links: Links, handed: Handed) -> Pool:
    """What `host` is told: whom its packages may use, how much of each, and whether its nodes are to compress."""
    packages = {str(cpv): given for (mine, cpv), given in handed.slots.items() if mine == host}
    members = tuple(
        _member(other, links.get((host, other.name)), sum(given.get(other.name, 0) for given in packages.values()))
        for other in hosts
        if (host == other.name or (host, other.name) in links) and (host, other.name) not in handed.out
    )
    ways = [(member.slots, links.get((host, member.name))) for member in members]
    return Pool(members, packages, lzo=pays([(slots, link.bytes_s if link else math.inf) for slots, link in ways]))


def _member(host: Host, link: Link | None, slots: int) -> Member:
    if link is None:
        return Member(host.name, host.address, host.port, slots)
    return Member(host.name, link.address, link.port, slots, link.tunnel)


def pays(ways: Sequence[tuple[int, float]]) -> bool:
    """Whether nodes save time by compressing what they send, over `ways` of so many slots and bytes a second.

    To compress a byte takes a node 1 / LZO_BYTES_S wherever it goes, and saves 1 - LZO_LEAVES of its way. The way to
    the host's own distccd is infinitely fast.
    """
    saved = sum(slots * (1 - LZO_LEAVES) / bytes_s for slots, bytes_s in ways)
    return saved > sum(slots for slots, _ in ways) / LZO_BYTES_S
