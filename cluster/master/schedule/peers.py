"""How other builders choose, from their manuals and what their sources say they do: what ours is measured against.

Each is modelled at its best in a run like ours: it knows how long packages took and how fast hosts are, if that is
something it uses at all. None of them waits for a busy node. What is urgent goes first with all of them, and all mind
memory, disk and what shares no host with its like, as they would have been set up to.
"""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, takewhile
from types import MappingProxyType

from cluster.master.schedule.state import Draft, Rule, Start
from cluster.master.schedule.tasks import Tasks, longest

_BINS_S = (4, 16, 64, 256, 1024, 4096, 16384, 65536, 1048576)
_COLUMNS = 8192  # packages whose dependents are counted together; for each package of a graph that many bits
_STEPS = 2**20  # in which a time is told from the greatest
_GOLDEN = 2654435761  # 2**32 over the golden ratio: Knuth, The Art of Computer Programming 3, 6.4


class _Greedy(ABC):
    """Starts all that it may as soon as a node is free: nothing waits for a better one."""

    __slots__ = ()

    def place(self, draft: Draft, now: float) -> float:
        """Start all that can start; there is never a reason to look again."""
        starts = self.starts(draft, now)
        while draft.free and next(starts, None):
            pass
        return math.inf

    @abstractmethod
    def starts(self, draft: Draft, now: float) -> Iterator[Start]:
        """What starts now; there is no plan for the others."""


class _Picking(_Greedy):
    """Gives each package, in order, the host that it picks."""

    __slots__ = ()

    def pick(self, draft: Draft, place: int) -> str | None:
        """One of those with room for the package; None to leave it for now."""
        return _any(draft, place)

    def starts(self, draft: Draft, now: float) -> Iterator[Start]:
        """Those that have a host to their liking."""
        for place in draft.waiting():
            name = self.pick(draft, place)
            if name is not None:
                draft.start(place, name, now)
                yield Start(place, now, name)


@dataclass(frozen=True, slots=True)
class Dpb(_Greedy):
    """OpenBSD's ports: dpb(1), and the queues of DPB::Heuristics and DPB::Heuristics::SpeedFactor.

    The fastest free node first. It takes the package that weighs most, which is the time that it took before and that
    of every package that needs it, directly or not. A node that is slower than the fastest by one speed factor or
    more is kept from large ones while there are others: what is ready is sorted into bins by its own time, and it has
    as many of them, from the smallest, as it takes to hold its share, and that of all that are slower, of what is
    ready. Of these it takes from the largest.

    Speed factors are small numbers there, so the slowest host has 1. Not modelled: nodes that walk the queue in
    reverse ("squiggles", there for what waits on installation), several nodes for one package, unknown times.
    """

    name: str = "dpb"

    def priorities(self, tasks: Tasks) -> tuple[float, ...]:
        """By weight."""
        return _weights(tasks)

    def starts(self, draft: Draft, now: float) -> Iterator[Start]:
        """For the fastest nodes first; there is no plan for what they do not take."""
        for speed in draft.speeds:
            while (found := self._next(draft, speed)) is not None:
                draft.start(*found, now)
                yield Start(found[0], now, found[1])

    def _next(self, draft: Draft, speed: float) -> tuple[int, str] | None:
        """The next package for the hosts of `speed`, and on which."""
        if not draft.free or not draft.idle[speed]:
            return None
        fastest, slowest = next(draft.speeds), min(draft.speeds)
        queue = draft.waiting() if speed > fastest - slowest else self._small(draft, speed)
        return next(((place, name) for place in queue if (name := draft.room_for(place, speed)) is not None), None)

    def _small(self, draft: Draft, speed: float) -> Iterator[int]:
        """Of what could start, that which hosts of `speed` may have."""
        bins: list[list[int]] = [[] for _ in range(len(_BINS_S) + 1)]
        fastest = next(draft.speeds)
        for place in draft.waiting():
            bins[bisect_left(_BINS_S, draft.tasks[place].seconds / fastest)].append(place)
        loads = [sum(draft.tasks[place].seconds for place in places) for places in bins]
        return chain.from_iterable(reversed(bins[: self._share(draft, speed, loads)]))

    @staticmethod
    def _share(draft: Draft, speed: float, loads: list[float]) -> int:
        """Of how many bins nodes of `speed` may have something: each node that is slower, or as fast, adds one or more.

        A node that is faster by less than one speed factor counts as of that speed.
        """
        speeds = sorted(
            host.speed for name, host in draft.hosts.items() if name not in draft.drained for _ in host.nodes
        )
        per_speed = sum(loads) / sum(speeds)
        due = held = 0.0
        count = 0
        left = iter(loads)
        for one in takewhile(lambda one: one <= speed + speeds[0], speeds):
            due += one * per_speed
            for load in left:
                held, count = held + load, count + 1
                if held > due:
                    break
        return count


@dataclass(frozen=True, slots=True)
class Hydra(_Picking):
    """NixOS: the order of hydra-queue-runner, set to WithRdeps as hydra.nixos.org has it, and its choice of a machine.

    The package that most others need directly goes first, the one that was asked for earlier among equals. It takes
    the machine with the least load, which is its jobs over its speed factor, rounded; the fastest of equal ones.

    Not modelled: shares of jobsets, which are for several projects at once, features of machines, the wait before a
    retry. The later runner in Rust counts jobs over all that a machine may have instead, and can go by the longest
    chain of packages, which is poudriere's order here.
    """

    name: str = "hydra"

    def priorities(self, tasks: Tasks) -> tuple[float, ...]:
        """By the number of packages that need each directly."""
        return tuple(float(len(dependents)) for dependents in tasks.dependents)

    def pick(self, draft: Draft, place: int) -> str | None:
        """The machine with the least load."""
        return _least_loaded(draft, place)


@dataclass(frozen=True, slots=True)
class Poudriere(_Picking):
    """FreeBSD: the queue of poudriere-bulk(8), with nothing in PRIORITY_BOOST.

    The package with the longest chain of packages after it goes first, by their number, as times are not known to it.
    It takes any free builder: they are jails of one machine, and so one is as good as another.

    Not modelled: MUTUALLY_EXCLUSIVE_BUILD_PACKAGES, of which only one is built at a time on all builders.
    """

    name: str = "poudriere"

    def priorities(self, tasks: Tasks) -> tuple[float, ...]:
        """By the longest chain from each package to the end, in packages."""
        return longest(tasks, lambda task: 1.0)


@dataclass(frozen=True, slots=True)
class Portage(_Picking):
    """Gentoo: emerge --jobs, of its Scheduler, with as many jobs as there are nodes and no limit of load.

    The first package of the merge list that needs nothing that is still to be merged goes first, on any node: emerge
    knows of one machine. The merge list is the order in which the packages are given.

    FEATURES has no merge-wait, with which (as is the default) nothing is merged while anything is being built, and so
    what needs a package waits for all that is built beside it. Not modelled: the same for what @system needs to run,
    which emerge has always. Tasks do not tell what that is, and in nodes that are clean nothing could be found half
    merged. So emerge is better here than it is.
    """

    name: str = "portage"

    def priorities(self, tasks: Tasks) -> tuple[float, ...]:
        """By the merge list."""
        return tuple(-float(place) for place in range(len(tasks)))


@dataclass(frozen=True, slots=True)
class Random(_Picking):
    """Packages in an order that is drawn, on any node; the same for graphs with as many packages."""

    name: str = "random"

    def priorities(self, tasks: Tasks) -> tuple[float, ...]:
        """By lot."""
        drawn = random.Random(len(tasks))
        return tuple(drawn.random() for _ in tasks.all)


PEERS: Mapping[str, Rule] = MappingProxyType(
    {rule.name: rule for rule in (Dpb(), Hydra(), Poudriere(), Portage(), Random())}
)
"""By the names of the builders."""


def _any(draft: Draft, place: int) -> str | None:
    """One of the hosts with a free node, whatever its speed: drawn by package and attempt, so runs can be repeated."""
    idle = [*chain.from_iterable(draft.idle.values())]
    drawn = (place + 1) * (draft.tried.get(place, 0) + 1) * _GOLDEN % 2**32
    first = drawn * len(idle) >> 32
    around = (idle[number % len(idle)] for number in range(first, first + len(idle)))
    return next((name for name in around if draft.fits(place, name)), None)


def _least_loaded(draft: Draft, place: int) -> str | None:
    """The host with the fewest packages for its speed, to the nearest integer; of equal ones the fastest."""
    best, least = None, math.inf
    for speed in draft.speeds:
        for name in draft.idle[speed]:
            busy = len(draft.hosts[name].nodes) - len(draft.rooms[name].nodes)
            load = math.floor(busy / speed + 0.5)
            if load < least and draft.fits(place, name):
                best, least = name, load
            if not least:
                return best
    return best


def _weights(tasks: Tasks) -> tuple[float, ...]:
    """For each package its seconds and those of all that need it, directly or not, to a millionth of the greatest.

    Each is counted once however many ways lead to it, so sets are needed: of places, as bits, a block of the graph's
    order at a time. Memory grows with packages, time with their square over the width of a machine word.
    """
    turns = {place: turn for turn, place in enumerate(tasks.order)}
    unit = max((task.seconds for task in tasks.all), default=0.0) / _STEPS or 1.0
    weights = [0] * len(tasks)
    for first in range(0, len(tasks), _COLUMNS):
        end = min(first + _COLUMNS, len(tasks))
        planes = _planes([round(tasks.all[place].seconds / unit) for place in tasks.order[first:end]])
        after = [0] * end
        for turn in reversed(range(end)):
            place = tasks.order[turn]
            found = 1 << turn - first if turn >= first else 0
            for dependent in tasks.dependents[place]:
                if turns[dependent] < end:
                    found |= after[turns[dependent]]
            after[turn] = found
            weights[place] += sum((found & plane).bit_count() << power for power, plane in enumerate(planes))
    return tuple(weight * unit for weight in weights)


def _planes(values: list[int]) -> list[int]:
    """For each binary digit the set, as bits, of those of `values` that have it."""
    return [
        sum(1 << column for column, value in enumerate(values) if value >> power & 1)
        for power in range(max(values).bit_length())
    ]
