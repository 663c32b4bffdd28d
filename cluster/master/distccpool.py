"""Who compiles for whom: each host's idle processors, as distcc slots of the packages that are being built. No I/O.

A node that waits for a compile leaves a processor to it: so each package has one slot on its own host, however busy that
is. The idle processors of all hosts are given to packages on top of that, each package's part spread over the
hosts in proportion to what they have left.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from cluster.host.pool import LOOPBACK, Member, Pool
from cluster.model import Cpv

# Measured, see docs/distcc.md#a-pool.
COMPILE_BYTES: Final = 130_000
"""A preprocessed source and its object, without compression: the mean of sed 4.9's."""
NODE_COMPILE_S: Final = 1.0
"""What an emulated node takes to compile such a source itself (docs/distcc.md)."""
"""Of the source that lzo leaves."""
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
