"""What happens in a run, and what is done about it."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.master.schedule.hosts import ASKED, Exclusion, Host
from cluster.master.schedule.state import Ranking
from cluster.model import Cpv, Verdict


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Action: build this package on this node."""

    cpv: Cpv
    node: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Abandon:
    """Action: end this package on this node, so that it begins anew on a faster one."""

    cpv: Cpv
    node: str


@dataclass(frozen=True, slots=True)
class Block:
    """Action: this package can't be built, because that one failed."""

    cpv: Cpv
    cause: Cpv


@dataclass(frozen=True, slots=True)
class Fail:
    """Action: this package has failed, as these hosts went away while they built it."""

    cpv: Cpv
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wake:
    """Action: unless something else comes before, a Tick is wanted then."""

    at: float


@dataclass(frozen=True, slots=True)
class Rethink:
    """Action: hosts or times are not what the rule was chosen for; another one (Adopted) may be better."""


@dataclass(frozen=True, slots=True)
class Finished:
    """Event: the job of `cpv` ended, or was none because the package is kept as it is.

    Of a package that does not run it counts only if that is there after all, from a host that was believed to be gone.
    """

    at: float
    cpv: Cpv
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Joined:
    """Event: a host came; nothing if it is there."""

    at: float
    host: Host


@dataclass(frozen=True, slots=True)
class Left:
    """Event: a host is gone, and with it what it was building, which is tried elsewhere."""

    at: float
    host: str
    excused: bool = False
    """Whether it was to go, so that it is held against no package."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Drained:
    """Event: a host is given nothing new; what it is building goes on."""

    at: float
    host: str
    exclusion: Exclusion = ASKED


@dataclass(frozen=True, slots=True)
class Resumed:
    """Event: a host that was drained is given packages again."""

    at: float
    host: str


@dataclass(frozen=True, slots=True)
class Allowed:
    """Event: so many packages may be built at once from now on; those that are being built go on."""

    at: float
    nodes: int


@dataclass(frozen=True, slots=True)
class Adopted:
    """Event: go on by this rule."""

    at: float
    ranking: Ranking


@dataclass(frozen=True, slots=True)
class Tick:
    """Event: nothing but time."""

    at: float


Action = Dispatch | Abandon | Block | Fail | Wake | Rethink
Event = Finished | Joined | Left | Drained | Resumed | Allowed | Adopted | Tick
