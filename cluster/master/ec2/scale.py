"""While a build runs: which rented hosts to let go, and which to rent besides. Pure, within limits that always hold.

Every answer comes from playing what is left to its end with the core that schedules builds. All times here, those of
instances too, are on the run's clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cluster.master.ec2 import bill
from cluster.master.ec2.catalogue import Offer
from cluster.master.ec2.mixes import HOUR_S, Fleet
from cluster.master.ec2.rental import Instance, Limits
from cluster.master.schedule import core, events, simulation
from cluster.master.schedule.hosts import Host
from cluster.master.schedule.state import State

_ALIKE = 1e-6  # of what is left: what ends that much later ends as soon
_WORTH = 0.02  # of what is left: what does not save so much is not rented


@dataclass(frozen=True, slots=True)
class Choice:
    """A type that may be rented."""

    offer: Offer
    usd_h: float
    """The most that an hour of one costs, its disk and address included."""

    def host(self, name: str) -> Host:
        """What one of them brings."""
        (one,) = Fleet(((self.offer, 1),)).hosts()
        return replace(one, name=name, nodes=tuple(f"{name}:{node}" for node in range(1, self.offer.nodes + 1)))


@dataclass(frozen=True, slots=True)
class Terms:
    """What time things take. Seconds."""

    startup_s: float
    """From the request for an instance until it takes packages."""
    look_s: float
    """From one decision to the next at most, with what it takes to end an instance. Where no decision may follow, as
    the master may die: until instances end themselves for want of it."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done now."""

    drain: tuple[str, ...] = ()
    """Hosts that are given nothing more, and are ended when what they build is done: it makes nothing end later."""
    end: tuple[str, ...] = ()
    """Hosts that are ended at once, whatever they do, as else the budget would be exceeded."""
    add: Mapping[str, int] | None = None
    """How many of each type to rent."""


@dataclass(frozen=True, slots=True)
class Situation:
    """Where a run on rented hosts stands."""

    state: State
    now: float
    instances: tuple[Instance, ...]
    """All that were ever rented for it."""
    choices: Mapping[str, Choice]
    """By type; one that is not among them has no nodes for the run."""
    until: float = math.inf
    """When the last of them will have ended itself, whatever their master does."""
    idle: frozenset[str] = frozenset()
    """Those that cost something and are not counted on, as they are kept from this run."""

    @property
    def paid(self) -> tuple[Instance, ...]:
        """Those that cost something."""
        return tuple(one for one in self.instances if one.until is None)

    @property
    def working(self) -> tuple[Instance, ...]:
        """Those that are given packages."""
        return tuple(one for one in self.paid if one.name in self.state.hosts and one.name not in self.state.drained)

    @property
    def coming(self) -> tuple[Instance, ...]:
        """Those with nodes that have not joined yet."""
        away = self.idle.union(self.state.hosts.keys())
        there = (one for one in self.paid if one.name not in away and not one.compiles_only)
        return tuple(one for one in there if one.type in self.choices)

    def committed(self, at: float) -> float:
        """USD of all that was ever rented, if what is rented now is ended at that time."""
        return bill.total(self.instances, min(at, self.until))

    def usd_for_work(self, type_: str) -> float:
        """USD an hour for what one of its nodes does at speed 1."""
        choice = self.choices.get(type_)
        return math.inf if choice is None else choice.usd_h / choice.offer.nodes / choice.offer.speed


def decide(here: Situation, limits: Limits, terms: Terms) -> Decision:
    """What to let go and what to rent, so that `limits` hold until the next decision and it ends as soon as it can.

    As long as anything is left to do the last host is drained by nothing; the budget ends it all the same.
    """
    if here.state.done:
        return Decision(end=tuple(one.name for one in here.paid))
    ended = tuple(_unaffordable(here, limits, terms))
    if ended:
        return Decision(end=ended)
    drained = tuple(_needless(here, terms))
    return Decision(drain=drained) if drained else Decision(add=_wanted(here, limits, terms))


def _unaffordable(here: Situation, limits: Limits, terms: Terms) -> Iterator[str]:
    """The hosts, the dearest for what they do first, without which the budget lasts until the next decision."""
    over = here.committed(here.now + terms.look_s) - limits.budget_usd
    for one in sorted(here.paid, key=lambda one: -here.usd_for_work(one.type)):
        if over <= 0:
            break
        over -= bill.cost(one, here.now + terms.look_s) - bill.cost(one, here.now)
        yield one.name


def _needless(here: Situation, terms: Terms) -> Iterator[str]:
    """Hosts without which all ends as soon: of each type as many as can be, those that are done soonest first."""
    state, end = here.state, _end(here, here.state, terms)
    alike = end + _ALIKE * (end - here.now)
    left = len(here.working)
    for type_ in sorted({one.type for one in here.working}, key=lambda name: -here.usd_for_work(name)):
        names = sorted((one.name for one in here.working if one.type == type_), key=lambda name: _busy(state, name))
        most = min(len(names), left - 1)

        def as_soon(count: int, state: State = state, names: Sequence[str] = names) -> bool:
            return _end(here, _drained(state, names[:count], here.now), terms) <= alike

        count = _most(as_soon, most)
        state = _drained(state, names[:count], here.now)
        left -= count
        yield from names[:count]


def _busy(state: State, name: str) -> float:
    """When the last package there is expected to end; -infinity where there is none."""
    return max((running.end for running in state.running.values() if running.host == name), default=-math.inf)


def _drained(state: State, names: Iterable[str], now: float) -> State:
    for name in names:
        state, _ = core.schedule(state, events.Drained(now, name))
    return state


def _end(here: Situation, state: State, terms: Terms, more: Iterable[Host] = ()) -> float:
    """When all is done that `state` leaves, with the hosts that are coming and `more`; infinite if it never is."""
    coming = [
        events.Joined(max(here.now, one.since + terms.startup_s), here.choices[one.type].host(one.name))
        for one in here.coming
    ]
    coming += [events.Joined(here.now + terms.startup_s, host) for host in more]
    world = replace(simulation.expected(state), hosts=tuple(coming))
    trace = simulation.run(state, world, now=here.now)
    return trace.end if trace.state.done else math.inf


def _wanted(here: Situation, limits: Limits, terms: Terms) -> dict[str, int]:
    """The type, and how many of it, that all ends soonest with of what may be paid for to the end; {} for none."""
    now = _end(here, here.state, terms)
    best: dict[str, int] = {}
    soonest = now - max(terms.startup_s, _WORTH * (now - here.now)) if now < math.inf else now
    for type_, choice in here.choices.items():
        for count in _doubled(_room(here, limits, choice)):
            end = _end(here, here.state, terms, [choice.host(f"+{number}") for number in range(count)])
            if end >= soonest or not _affordable(here, limits, terms, choice, count, end):
                break
            best, soonest = {type_: count}, end
    return best


def _room(here: Situation, limits: Limits, choice: Choice) -> int:
    """How many of a type may be added to what is paid for."""
    spare = limits.usd_h - sum(one.usd_h for one in here.paid)
    return max(0, min(limits.hosts - len(here.paid), math.floor(spare / choice.usd_h)))


def _affordable(here: Situation, limits: Limits, terms: Terms, choice: Choice, count: int, end: float) -> bool:
    """Whether the budget lasts, if all that is rented then is kept to the end and for the decision after it."""
    paid_s = max(bill.LEAST_S, min(end + terms.look_s, here.until) - here.now)
    return here.committed(end + terms.look_s) + count * choice.usd_h * paid_s / HOUR_S <= limits.budget_usd


def _doubled(most: int) -> Iterator[int]:
    """1, 2, 4... and then `most`."""
    count = 1
    while count < most:
        yield count
        count *= 2
    if most > 0:
        yield most


def _most(holds: Callable[[int], bool], most: int) -> int:
    """The greatest number up to `most` for which `holds`, if it does for all smaller ones; 0 is taken to."""
    low, high = 0, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
