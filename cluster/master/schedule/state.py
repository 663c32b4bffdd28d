"""Where a run stands: what is ready, what runs where, and what each host has left."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Protocol

from immutables import Map

from cluster.master.schedule.hosts import Exclusion, Host
from cluster.master.schedule.tasks import Task, Tasks
from cluster.model import Verdict

_OVERDUE = 0.1  # of what was expected
_NOWHERE: frozenset[str] = frozenset()
_RANKINGS = 64  # remembered: those that a run chooses from again and again


class Rule(Hashable, Protocol):
    """How a run chooses."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    def priorities(self, tasks: Tasks) -> tuple[float, ...]:
        """For each package how soon it is wanted: the greatest first."""
        ...

    def place(self, draft: Draft, now: float) -> float:
        """Start what is to start now; the time to look again if nothing happens before, or infinity."""
        ...

    def starts(self, draft: Draft, now: float) -> Iterator[Start]:
        """What `place` goes by: when and where packages that wait are to start, in order, however far it is followed.

        One that is to start now is started in `draft` before it is given.
        """
        ...


@dataclass(frozen=True, slots=True)
class Start:
    """What is decided of a package that waits."""

    place: int
    at: float
    host: str


@dataclass(frozen=True, slots=True)
class Ranking:
    """A rule, and the order of packages that it comes to."""

    rule: Rule
    keys: tuple[float, ...]
    """For each package; the least first, all that is urgent before all that is not."""


@lru_cache(_RANKINGS)
def ranked(rule: Rule, tasks: Tasks) -> Ranking:
    """`tasks` in the order of `rule`."""
    priorities = rule.priorities(tasks)
    ahead = max(priorities, default=0.0) - min(priorities, default=0.0) + 1.0
    keys = (-(priority + ahead * task.urgent) for priority, task in zip(priorities, tasks.all, strict=True))
    return Ranking(rule, tuple(keys))


@dataclass(frozen=True, slots=True)
class Running:
    """A package that is being built."""

    host: str
    node: str
    since: float
    end: float
    """When it is expected to end."""

    def expected(self, now: float) -> float:
        """When it is expected to end, seen from `now`, at which it has not.

        One that is overdue is taken to need as long again as it is late, and a tenth of what was expected at least.
        """
        if now <= self.end:
            return max(self.end, math.nextafter(now, math.inf))
        return now + max(now - self.end, _OVERDUE * (self.end - self.since))


@dataclass(frozen=True, slots=True)
class Room:
    """What a host has left."""

    nodes: tuple[str, ...]
    memory_mib: float
    disk_mib: float
    apart: frozenset[str] = frozenset()
    """The words of the packages there that share no host with their like."""

    def fits(self, task: Task, host: Host) -> bool:
        """Whether `task` may start now. One that needs more than `host` has gets all of it."""
        return bool(
            self.nodes
            and min(task.memory_mib, host.memory_mib) <= self.memory_mib
            and min(task.disk_mib, host.disk_mib) <= self.disk_mib
            and task.apart not in self.apart
        )

    def taken(self, task: Task, host: Host) -> Room:
        """What is left when `task` has its first node."""
        return Room(
            self.nodes[1:],
            self.memory_mib - min(task.memory_mib, host.memory_mib),
            self.disk_mib - min(task.disk_mib, host.disk_mib),
            self.apart | {task.apart} if task.apart else self.apart,
        )

    def given(self, task: Task, host: Host, node: str) -> Room:
        """What is left when `task` has left `node`."""
        nodes = (*self.nodes, node)
        if len(nodes) == len(host.nodes):  # all of it, whatever sums of floats have come to
            return Room(nodes, host.memory_mib, host.disk_mib)
        return Room(
            nodes,
            self.memory_mib + min(task.memory_mib, host.memory_mib),
            self.disk_mib + min(task.disk_mib, host.disk_mib),
            self.apart - {task.apart} if task.apart else self.apart,
        )


@dataclass(frozen=True, slots=True)
class Pool:
    """The hosts of one speed that are given packages."""

    speed: float
    idle: tuple[str, ...] = ()
    """Those with a free node, the longest idle first."""
    busy: tuple[tuple[float, int], ...] = ()
    """When each package there is expected to end, and its place; sorted."""
    limited: bool = False
    """Whether a node may be free and yet no room for a package."""


@dataclass(frozen=True, slots=True)
class State:
    """Where a run stands."""

    tasks: Tasks
    ranking: Ranking
    attempts: int
    """How often a package is begun at most, if its nodes are lost."""
    losses: int | None = None
    """A package fails once so many hosts went away while they built it; None for never."""
    allowed: int | None = None
    """How many packages may be built at once; None for as many as there are nodes."""
    hosts: Map[str, Host] = field(default_factory=Map)
    rooms: Map[str, Room] = field(default_factory=Map)
    pools: tuple[Pool, ...] = ()
    """The fastest first."""
    drained: frozenset[str] = frozenset()
    """The hosts that are given nothing new. They are in no pool."""
    excluded: Map[str, Exclusion] = field(default_factory=Map)
    """Why those are, and hosts that have gone; for who asks, as nothing is decided by it."""
    missing: Map[int, int] = field(default_factory=Map)
    """How many of its needs are not built, for each package that has any."""
    ready: tuple[tuple[float, int], ...] = ()
    """Keys and places of what could start, sorted."""
    running: Map[int, Running] = field(default_factory=Map)
    there: Map[str, frozenset[int]] = field(default_factory=Map)
    """`by_host(running)`, kept so as not to look through all that runs at every event."""
    changed: frozenset[str] = field(default=frozenset(), compare=False)
    """The hosts on which packages began or ended with the last event."""
    tried: Map[int, int] = field(default_factory=Map)
    shunned: Map[int, frozenset[str]] = field(default_factory=Map)
    """The hosts that a package is not tried on again, where it failed or was lost, unless that is all there are."""
    bereft: Map[int, tuple[str, ...]] = field(default_factory=Map)
    """The hosts that went away while they built a package; one that comes back and goes again is another one."""
    moves: bool = False
    """Whether what is late on a slow node begins anew on a faster one that is idle."""
    moved: Map[int, str] = field(default_factory=Map)
    """What did so, and the host that it is still on; "" if it has left that."""
    failed: Map[int, str] = field(default_factory=Map)
    """The host on which a package failed that is tried once more."""
    ended: Map[int, Verdict] = field(default_factory=Map)
    since: Map[int, float] = field(default_factory=Map)
    """When each package that is ready, runs or has ended became ready or ended; those not here were from the start."""
    left_s: float = 0.0
    """What has not ended was expected to take together, on a node of speed 1."""
    drift_s: float = 0.0
    """By how much builds were shorter or longer than expected since the rule was chosen, on a node of speed 1."""
    off_s: float = 0.0
    """The same since the start of the run."""

    @property
    def done(self) -> bool:
        """Whether every package has ended."""
        return len(self.ended) == len(self.tasks)

    @property
    def usable(self) -> tuple[Host, ...]:
        """The hosts that are given packages."""
        return tuple(host for name, host in self.hosts.items() if name not in self.drained)


def by_host(running: Mapping[int, Running]) -> Map[str, frozenset[int]]:
    """What runs on each host that has anything."""
    there: dict[str, frozenset[int]] = {}
    for place, one in running.items():
        there[one.host] = there.get(one.host, frozenset()) | {place}
    return Map(there)


class Draft:
    """A state in the making: changed while one event is dealt with, then frozen."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.rule = state.ranking.rule
        self.tasks = state.tasks.all
        self.hosts = state.hosts
        self.drained = state.drained
        self.moves = state.moves
        self.moved = dict(state.moved)
        self.rooms = state.rooms.mutate()
        self.limited = {pool.speed: pool.limited for pool in state.pools}
        self.idle = {pool.speed: list(pool.idle) for pool in state.pools}
        self.busy = {pool.speed: list(pool.busy) for pool in state.pools}
        self.missing = state.missing.mutate()
        self.ready = list(state.ready)
        self.running = state.running.mutate()
        self.there = state.there.mutate()
        self.changed: set[str] = set()
        self.tried = state.tried.mutate()
        self.shunned = dict(state.shunned)
        self.failed = dict(state.failed)
        self.bereft = state.bereft.mutate()
        self.ended = state.ended.mutate()
        self.since = state.since.mutate()
        self.started: list[int] = []
        self.left_s = state.left_s
        self.drift_s = state.drift_s
        self.off_s = state.off_s

    @property
    def speeds(self) -> Iterator[float]:
        """Of the hosts, the greatest first."""
        return iter(self.idle)

    @property
    def free(self) -> bool:
        """Whether there is a node that may start a package."""
        return self.may and any(self.idle.values())

    @property
    def begun(self) -> list[int]:
        """What is being built, but for what this draft began, which is not late."""
        return [place for place in self._state.running if place in self.running]

    def key(self, place: int) -> float:
        """The least is wanted most."""
        return self._state.ranking.keys[place]

    @property
    def may(self) -> bool:
        """Whether as few packages are being built as to allow one more."""
        allowed = self._state.allowed
        return allowed is None or len(self.running) < allowed

    @property
    def unbegun(self) -> bool:
        """Whether there is anything that has neither ended nor is running."""
        return len(self.ended) + len(self.running) < len(self.tasks)

    def fits(self, place: int, name: str) -> bool:
        """Whether that host may have a package, and has room for it now."""
        return name not in self.shuns(place) and self.rooms[name].fits(self.tasks[place], self.hosts[name])

    def shuns(self, place: int) -> frozenset[str]:
        """The hosts that a package is not to start on."""
        return self.shunned.get(place, _NOWHERE)

    def room_for(self, place: int, speed: float) -> str | None:
        """The first host of `speed` that has room for a package."""
        if not self.limited[speed] and place not in self.shunned:
            return self.idle[speed][0] if self.idle[speed] else None
        return next((name for name in self.idle[speed] if self.fits(place, name)), None)

    def waiting(self) -> Iterator[int]:
        """What could start, in order."""
        return (place for _, place in self.ready if place not in self.running)

    def start(self, place: int, name: str, now: float) -> None:
        """Start a package on a host that has room for it."""
        task, host, room = self.tasks[place], self.hosts[name], self.rooms[name]
        left = self.rooms[name] = room.taken(task, host)
        self.idle[host.speed].remove(name)
        if left.nodes:
            self.idle[host.speed].append(name)
        running = self.running[place] = Running(name, room.nodes[0], now, now + task.seconds / host.speed)
        insort(self.busy[host.speed], (running.end, place))
        self.there[name] = self.there.get(name, frozenset()) | {place}
        self.changed.add(name)
        self.tried[place] = self.tried.get(place, 0) + 1
        self.started.append(place)

    def stop(self, place: int) -> Running:
        """Free what a package has taken."""
        running = self.running.pop(place)
        self._forget(running.host, place)
        host, room = self.hosts[running.host], self.rooms[running.host]
        self.rooms[running.host] = room.given(self.tasks[place], host, running.node)
        if running.host in self.drained:
            return running
        self.busy[host.speed].remove((running.end, place))
        if not room.nodes:
            self.idle[host.speed].append(running.host)
        return running

    def _forget(self, name: str, place: int) -> None:
        """A package is not on its host any more."""
        self.changed.add(name)
        left = self.there[name] - {place}
        if left:
            self.there[name] = left
        else:
            del self.there[name]

    def end(self, place: int, now: float, verdict: Verdict) -> None:
        """A package has ended for good."""
        self.shunned.pop(place, None)
        self.failed.pop(place, None)
        self.bereft.pop(place, None)
        self.ended[place] = verdict
        self.since[place] = now
        self.left_s -= self.tasks[place].seconds

    def open(self, place: int, now: float) -> None:
        """A package could start from now on."""
        self.since[place] = now
        insort(self.ready, (self._state.ranking.keys[place], place))

    def close(self, place: int) -> None:
        """A package that could start need not any more."""
        del self.ready[bisect_left(self.ready, (self._state.ranking.keys[place], place))]

    def frozen(self) -> State:
        """The state that it has become."""
        for place in self.started:  # few; to look through all that is ready would cost most of a decision
            self.close(place)
        return replace(
            self._state,
            rooms=self.rooms.finish(),
            pools=tuple(
                Pool(speed, tuple(idle), tuple(self.busy[speed]), self.limited[speed])
                for speed, idle in self.idle.items()
            ),
            missing=self.missing.finish(),
            ready=tuple(self.ready),
            running=self.running.finish(),
            there=self.there.finish(),
            changed=frozenset(self.changed),
            tried=self.tried.finish(),
            shunned=Map(self.shunned),
            failed=Map(self.failed),
            bereft=self.bereft.finish(),
            moved=Map(self.moved),
            ended=self.ended.finish(),
            since=self.since.finish(),
            left_s=self.left_s,
            drift_s=self.drift_s,
            off_s=self.off_s,
        )
