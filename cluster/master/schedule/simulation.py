"""A run without building: the very core that builds, with ends that are computed instead of awaited."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from cluster.master.schedule import core, events
from cluster.master.schedule.events import Action, Event
from cluster.master.schedule.state import Ranking, State
from cluster.model import Cpv, Verdict


@dataclass(frozen=True, slots=True)
class World:
    """What really happens in a run, whatever the schedule expects."""

    seconds: tuple[float, ...]
    """What each package takes on a node of speed 1."""
    fail_rate: float = 0.0
    """How many of all nodes are lost under their package, 0 to 1."""
    seed: int = 0
    hosts: tuple[Event, ...] = ()
    """The hosts that come and go."""

    def end(self, place: int, attempt: int) -> tuple[float, Verdict]:
        """How much of its time a package has its node, 0 to 1, and how that ends; the same whenever it is asked."""
        if not self.fail_rate:
            return 1.0, Verdict.BUILT
        drawn = random.Random(f"{self.seed} {place} {attempt}")
        return (drawn.random(), Verdict.LOST) if drawn.random() < self.fail_rate else (1.0, Verdict.BUILT)

    def whole(self, place: int) -> float:
        """How much of its time a package has nodes before it is built, those included that are lost under it.

        It is the same whatever a schedule does, if that tries without limit.
        """
        spent = 0.0
        for attempt in count(1):
            part, verdict = self.end(place, attempt)
            spent += part
            if verdict is Verdict.BUILT:
                break
        return spent


@dataclass(frozen=True, slots=True)
class Stay:
    """A package on a node."""

    node: str
    cpv: Cpv
    since: float
    until: float
    """Seconds since the start of the run."""
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Trace:
    """How a run went."""

    state: State
    end: float
    """When its last package ended."""
    stays: tuple[Stay, ...]
    """By their end."""


Decide = Callable[[State, Event], tuple[State, tuple[Action, ...]]]
Rethink = Callable[[State, float], Ranking]


def expected(state: State) -> World:
    """The world in which all takes what is expected."""
    return World(tuple(task.seconds for task in state.tasks.all))


def run(
    state: State,
    world: World,
    *,
    now: float = 0.0,
    until: float = math.inf,
    rethink: Rethink | None = None,
    decide: Decide = core.schedule,
) -> Trace:
    """Go on from `state` to the end, to `until`, or to where nothing more can happen because no host is left.

    What runs in `state` ends when it is expected to. `rethink` gives another rule when the core asks for one.
    """
    return _Run(state, world, now, until, rethink, decide).trace()


@dataclass(slots=True)
class _Run:
    state: State
    world: World
    now: float
    until: float
    rethink: Rethink | None
    decide: Decide
    wake: float = math.inf
    coming: list[tuple[float, int, Event]] = field(default_factory=list)
    ends: dict[Cpv, int] = field(default_factory=dict)
    """Which of all that was ever expected is the end of a running package."""
    stays: list[Stay] = field(default_factory=list)
    count: int = 0

    def trace(self) -> Trace:
        for event in self.world.hosts:
            self._expect(event)
        for place, running in self.state.running.items():
            self._expect_end(self.state.tasks.all[place].cpv, running.expected(self.now), Verdict.BUILT)
        self._step(events.Tick(self.now))
        while not self.state.done and self.now < self.until and (self.coming or self.wake < math.inf):
            if not self.coming or self.wake < self.coming[0][0]:
                self._step(events.Tick(self.wake))
            else:
                _, number, event = heapq.heappop(self.coming)
                if not isinstance(event, events.Finished) or self.ends.get(event.cpv) == number:
                    self._step(event)
        return Trace(self.state, self.now, tuple(self.stays))

    def _expect(self, event: Event) -> None:
        self.count += 1  # of events of one time the one that was expected first comes first
        heapq.heappush(self.coming, (event.at, self.count, event))

    def _expect_end(self, cpv: Cpv, at: float, verdict: Verdict) -> None:
        self._expect(events.Finished(at, cpv, verdict))
        self.ends[cpv] = self.count

    def _step(self, event: Event) -> None:
        self.now, self.wake = event.at, math.inf
        match event:
            case events.Finished(_, cpv, verdict):
                self._left(self.state.tasks.places[cpv], verdict)
            case events.Left(_, host):
                for place in [place for place, running in self.state.running.items() if running.host == host]:
                    self._left(place, Verdict.LOST)
        self.state, actions = self.decide(self.state, event)
        for action in actions:
            self._act(action)

    def _left(self, place: int, verdict: Verdict) -> None:
        cpv, running = self.state.tasks.all[place].cpv, self.state.running[place]
        del self.ends[cpv]
        self.stays.append(Stay(running.node, cpv, running.since, self.now, verdict))

    def _act(self, action: Action) -> None:
        match action:
            case events.Dispatch(cpv, _, attempt):
                place = self.state.tasks.places[cpv]
                part, verdict = self.world.end(place, attempt)
                speed = self.state.hosts[self.state.running[place].host].speed
                self._expect_end(cpv, self.now + part * self.world.seconds[place] / speed, verdict)
            case events.Abandon(cpv, _):
                self._expect_end(cpv, self.now, Verdict.LOST)
            case events.Wake(at):
                self.wake = at
            case events.Rethink():
                if self.rethink is not None:
                    self._step(events.Adopted(self.now, self.rethink(self.state, self.now)))
