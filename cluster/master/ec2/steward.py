"""Rented hosts follow the graph while a build runs: what is needed no more is let go, and more is rented where it pays.

A thread of its own looks at the run about twice a minute, and soon after hosts come or go. `scale` decides; what is
said here is when it is asked, what it is told, and what is done then. No failure of AWS ends a build.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from cluster.errors import ClusterError
from cluster.master.ec2 import scale
from cluster.master.ec2.ledger import Ledger
from cluster.master.ec2.quote import Quote
from cluster.master.ec2.rental import Instance, Rental
from cluster.master.ec2.scale import Choice, Decision, Situation
from cluster.master.engines.engine import Change, Draining, Went
from cluster.master.hosts.registry import Machine
from cluster.master.hosts.registry import State as HostState
from cluster.master.progress import Reporter
from cluster.master.schedule.state import State

log = logging.getLogger(__name__)

LOOK_S = 30.0
_SOON_S = 5.0
"""After hosts came or went; those that come together are to be seen together."""
_TICK_S = 1.0
_SHARE = 0.05
"""Of a processor that deciding takes at most, as the run goes on beside it..."""
_LONGEST_S = 300.0
"""...unless it would be longer than this until the next time."""
_ABSENT_S = 300.0
"""A host that is ready, and has not come for so long, does not come: see `outposts`."""
_SHUTDOWN_S = 300.0
"""What an instance needs at most to be gone after it has begun to end itself."""
_PAUSES_S = (60.0, 120.0, 300.0, 600.0, 1800.0)
"""Between tries to rent after a failure."""
_STOP_S = 90.0
_NEEDLESS = "without it all ends as soon"
_LEFT = "the build was over before it had joined"


class Estate(Protocol):
    """What is rented, and can be done about it: `estate.Estate`. All of it raises ClusterError."""

    def up(self) -> tuple[Rental, ...]:
        """The rentals that are up, as they are recorded."""
        ...

    def machines(self) -> Mapping[str, Machine]:
        """The hosts that have nodes for the target, by name."""
        ...

    def seen(self, rental: Rental) -> Rental:
        """The rental as AWS sees it now."""
        ...

    def sweep(self, rental: Rental) -> tuple[str, ...]:
        """End the instances that no record has, and say which those were."""
        ...

    def startup_s(self, rental: Rental) -> float:
        """From the request for an instance until it takes packages."""
        ...

    def choices(self, rental: Rental, prices: Mapping[str, float]) -> dict[str, Choice]:
        """What each of its types brings, which costs so much an hour at most, or what its instances were to."""
        ...

    def quote(self, rental: Rental, instances: Mapping[str, int], now: float) -> Quote:
        """What so many of each type come to today, for as long as the rental is up yet."""
        ...

    def rent(self, rental: Rental, quoted: Quote) -> tuple[tuple[Instance, ...], str]:
        """Rent it: the instances, which are to join, and why they are no more."""
        ...

    def join(self, rental: Rental, instances: tuple[Instance, ...]) -> tuple[Instance, ...]:
        """Take them among the hosts, which takes minutes; one that did not join has an end."""
        ...

    def let_go(self, rental: Rental, names: frozenset[str], why: str) -> None:
        """End the hosts called so, and forget them."""
        ...


@dataclass(frozen=True, slots=True)
class Leave:
    """What a steward may do, beside ending what would exceed a budget."""

    let_go: bool
    rent: bool


@dataclass(slots=True)
class _Trying:
    """How renting more for a rental goes."""

    failed: int = 0
    again: float = 0.0
    """Not before then, in seconds since the epoch."""
    prices: dict[str, float] = field(default_factory=dict)
    """USD an hour at most by type, as they were last asked for."""


class Steward:
    """A watcher of a run on rented hosts."""

    def __init__(
        self,
        estate: Estate,
        ledger: Ledger,
        leave: Callable[[], Leave],
        reporter: Reporter,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._estate, self._ledger, self._ask, self._reporter, self._clock = estate, ledger, leave, reporter, clock
        self._leave = leave()
        self._hear: Callable[[Change], None] = lambda change: None
        self._thread: threading.Thread | None = None
        self._over = threading.Event()
        self._seen: tuple[State, float] | None = None
        """The run, and when it began, in seconds since the epoch."""
        self._looked: State | None = None
        """The run as it was decided about last."""
        self._next = 0.0
        """When to look, in seconds since the epoch."""
        self._grows = False
        """Whether one of the rentals may."""
        self._dismissing = 0.0
        """When hosts may be let go again, in seconds since the epoch."""
        self._swept: set[str] = set()
        self._rented: dict[str, Rental] = {}
        """By the names of hosts that are paid for, as they were last seen."""
        self._joining: frozenset[str] = frozenset()
        self._joined: queue.SimpleQueue[frozenset[str]] = queue.SimpleQueue()
        """Those that are not joining any more."""
        self._absent: dict[str, float] = {}
        """Since when hosts that should be there were not."""
        self._trying: dict[str, _Trying] = {}
        self._said: dict[str, str] = {}
        """The last failure of each kind."""

    # A watcher.

    def saw(self, state: State, now: float) -> None:
        """Where the run stands."""
        self._ledger.saw(state, now)
        before = self._seen
        self._seen = state, self._clock() - now
        if before is not None and before[0].hosts is not state.hosts:
            self._next = min(self._next, self._clock() + _SOON_S)

    def entered(self, node: str, phase: str) -> None:
        """Of no interest here."""

    # A part of an engine.

    def attend(self, hear: Callable[[Change], None]) -> None:
        """Begin; `hear` is told which hosts are to be given no more, and which have gone."""
        self._hear = hear
        self._thread = threading.Thread(target=self._watch, name="steward", daemon=True)
        self._thread.start()

    def expects(self) -> bool:
        """Whether rented hosts may come that are not there, or it has yet to be decided whether more are rented."""
        since = self._clock() - _ABSENT_S
        if self._joining or any(at > since for at in list(self._absent.values())):
            return True
        if self._over.is_set() or not self._leave.rent or not self._grows:
            return False
        if any(0 < one.failed < len(_PAUSES_S) for one in list(self._trying.values())):
            return True
        return self._seen is not None and (self._looked is None or self._looked.hosts is not self._seen[0].hosts)

    def stop(self) -> None:
        """End what has not joined, and note what is to be noted."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(_STOP_S)
        self._settle()
        for name in sorted(self._joining & self._rented.keys()):
            self._end(self._rented[name], frozenset({name}), _LEFT)
        self._ledger.close()
        self._note()

    # A thread.

    def _watch(self) -> None:
        while not self._over.wait(_TICK_S):
            try:
                self.tick()
            except Exception as error:  # a defect of ours: it is not to end the budget's guard with it
                log.exception("a steward's tick")
                self._complain("", f"rented hosts cannot be looked after, `cluster ec2 down` ends them: {error!r}")

    def tick(self) -> None:
        """Do what is to be done now. What fails is said, and tried again at the next look."""
        self._note()
        self._settle()
        if self._seen is None:
            return
        self._leave = self._ask()
        try:
            if self._leave.let_go and self._clock() >= self._dismissing:
                self._dismiss(self._seen[0])
            if self._clock() >= self._next:
                self._look_now(*self._seen)
        except ClusterError as error:
            self._complain("", f"rented hosts cannot be looked after: {error}")

    def _look_now(self, state: State, zero: float) -> None:
        began = time.thread_time()
        self._next = self._clock() + LOOK_S  # before: what comes meanwhile is to be seen soon
        try:
            self.look(state, zero)
        finally:
            self._looked = state
        took = time.thread_time() - began
        self._next = max(self._next, self._clock() + min(took / _SHARE, _LONGEST_S))

    def _settle(self) -> None:
        """Take in what has joined."""
        while not self._joined.empty():
            names = self._joined.get()
            self._joining -= names
            self._absent |= dict.fromkeys(names & self._rented.keys(), self._clock())
            self._next = self._clock()

    def _note(self) -> None:
        try:
            self._ledger.note()
        except (OSError, ClusterError) as error:
            self._complain("noting", f"what rented hosts did cannot be noted: {error}")

    def _complain(self, about: str, text: str) -> None:
        """Say what failed, unless it was said last."""
        if self._said.get(about) != text:
            self._said[about] = text
            self._reporter.warn(text)

    # Hosts on which nothing runs, and that are given nothing.

    def _dismiss(self, state: State) -> None:
        """End the drained hosts that are idle, but for those that their user drained."""
        busy = {running.host for running in state.running.values()}
        idle = (state.drained & self._rented.keys()) - busy
        if idle:
            machines = self._estate.machines()
            for name in sorted(idle):
                machine = machines.get(name)
                if machine is None or machine.state is not HostState.DRAINED:
                    self._end(self._rented[name], frozenset({name}), "it was given no more packages")

    def _end(self, rental: Rental, names: frozenset[str], why: str) -> None:
        """End hosts, and tell the run, which tells its user."""
        try:
            self._estate.let_go(rental, names, why)
        except ClusterError as error:
            self._complain(f"{rental.run} ends", f"{', '.join(sorted(names))} cannot be ended: {error}")
            self._dismissing = self._clock() + LOOK_S
            return
        there = self._seen[0].hosts if self._seen is not None else {}
        for name in sorted(names):
            self._rented.pop(name, None)
            self._absent.pop(name, None)
            self._hear(Went(name, f"ended, as {why}"))
            if name not in there:
                self._reporter.tell(f"{name} is ended: {why}")

    # A look.

    def look(self, state: State, zero: float) -> None:
        """See what is rented, decide, and do it; one rental is changed at a time, as each counts on the others."""
        if state.done:
            return
        acted, rentals = False, self._estate.up()
        self._grows = any(one.grows for one in rentals)
        for recorded in rentals:
            try:
                rental = self._looked_at(recorded)
                self._said.pop(rental.run, None)
                acted = self._act(rental, state, zero, acted) or acted
            except ClusterError as error:
                self._complain(recorded.run, f"the rental {recorded.run} cannot be looked after: {error}")

    def _looked_at(self, recorded: Rental) -> Rental:
        if recorded.run not in self._swept:
            for name in self._estate.sweep(recorded):
                self._reporter.tell(f"instance {name} is ended: its rental {recorded.run} does not know it")
            self._swept.add(recorded.run)
        rental = self._estate.seen(recorded)
        others = {name: one for name, one in self._rented.items() if one.run != rental.run}
        self._rented = others | {one.name: rental for one in rental.living}
        self._absent = {name: since for name, since in self._absent.items() if name in self._rented}
        return rental

    def _act(self, rental: Rental, state: State, zero: float, acted: bool) -> bool:
        """Decide and do it, only what the budget demands if another was `acted` on; whether anything was done."""
        now = self._clock()
        lost, idle = self._missing(rental, state, now)
        if lost and self._leave.let_go:
            self._end(rental, lost, "it does not come")
            return True
        prices = self._prices(rental, now) if not acted and self._may_rent(rental, now) else {}
        here = situation(rental, state, self._estate.choices(rental, prices), now, zero, idle)
        terms = scale.Terms(self._estate.startup_s(rental), 60.0 * rental.silence_min + _SHUTDOWN_S)
        limits = rental.limits if prices else replace(rental.limits, hosts=0)
        decision = scale.decide(here, limits, terms)
        if acted or not self._leave.let_go:
            decision = replace(decision, drain=())
        return self._carry_out(decision, rental, here)

    def _carry_out(self, decision: Decision, rental: Rental, here: Situation) -> bool:
        if decision.end:
            why = f"the budget of {rental.run} would not last otherwise"
            for name in decision.end:  # first: what is lost with a host that is taken back is not its package's fault
                self._hear(Draining(name, why))
            self._end(rental, frozenset(decision.end), why)
        for name in decision.drain:
            self._hear(Draining(name, _NEEDLESS))
        for type_, count in (decision.add or {}).items():
            self._rent(rental, type_, count, here.choices[type_].usd_h)
        return bool(decision.end or decision.drain or decision.add)

    def _missing(self, rental: Rental, state: State, now: float) -> tuple[frozenset[str], frozenset[str]]:
        """The hosts that should have come and do not, and those that are not to come to this run."""
        machines = self._estate.machines()
        lost, idle = set(), set()
        for one in rental.living:
            if one.name in state.hosts or one.name in self._joining:
                self._absent.pop(one.name, None)
            elif not is_expected(one, machines.get(one.name)):
                idle.add(one.name)
            elif now - self._absent.setdefault(one.name, now) > _ABSENT_S:
                lost.add(one.name)
        return frozenset(lost), frozenset(idle)

    # Renting more.

    def _may_rent(self, rental: Rental, now: float) -> bool:
        """Whether the rental may grow, and nothing else is on its way that it would have to count on."""
        trying = self._trying.setdefault(rental.run, _Trying())
        others = {name for name in self._joining if name in self._rented and self._rented[name].run != rental.run}
        lasts = rental.until - now > 2 * self._estate.startup_s(rental) + _SHUTDOWN_S
        return self._leave.rent and rental.grows and now >= trying.again and lasts and not others

    def _prices(self, rental: Rental, now: float) -> Mapping[str, float]:
        """USD an hour at most of what may be rented, asked for once; it is asked for again before something is."""
        trying = self._trying[rental.run]
        if not trying.prices:
            try:
                kinds = self._estate.quote(rental, dict.fromkeys(rental.wished, 1), now).kinds
                trying.prices = {name: kinds[name].usd_h for name in rental.wished}
            except ClusterError as error:
                self._failed(rental, f"nothing can be rented besides: {error}")
        return trying.prices

    def _rent(self, rental: Rental, type_: str, count: int, usd_h: float) -> None:
        trying = self._trying[rental.run]
        try:
            quoted = self._estate.quote(rental, {type_: count}, self._clock())
            trying.prices[type_] = quoted.kinds[type_].usd_h
            if quoted.kinds[type_].usd_h > usd_h:
                self._next = self._clock()  # it has become dearer: decide anew
                return
            self._reporter.tell(f"renting {count} {type_} besides, as {rental.run}: with more all ends sooner")
            made, why = self._estate.rent(rental, quoted)
        except ClusterError as error:
            self._failed(rental, f"nothing could be rented besides: {error}")
            return
        if why:
            self._failed(rental, f"not all could be rented besides: {why}")
        else:
            trying.failed = 0
        if made:
            self._joining |= {one.name for one in made}
            grown = rental.updated(made)
            self._rented |= {one.name: grown for one in made}
            self._let_join(rental, made)

    def _let_join(self, rental: Rental, made: tuple[Instance, ...]) -> None:
        threading.Thread(target=self._join, args=(rental, made), name="joining", daemon=True).start()

    def _join(self, rental: Rental, made: tuple[Instance, ...]) -> None:
        try:
            for one in self._estate.join(rental, made):
                if one.until is not None and not self._over.is_set():
                    self._reporter.warn(f"{one.name} is ended: {one.why}")
        except ClusterError as error:
            if not self._over.is_set():
                self._complain(f"{rental.run} joins", f"not all of {rental.run} joins: {error}")
        if not self._over.is_set():  # else whoever stops ends them
            self._joined.put(frozenset(one.name for one in made))

    def _failed(self, rental: Rental, text: str) -> None:
        """Say that renting failed, and wait before it is tried again."""
        trying = self._trying[rental.run]
        trying.again = self._clock() + _PAUSES_S[min(trying.failed, len(_PAUSES_S) - 1)]
        trying.failed += 1
        self._complain(f"{rental.run} grows", text)


def is_expected(instance: Instance, machine: Machine | None) -> bool:
    """Whether an instance is to come to the run: `machine` is what it is among the hosts for the target, if it is."""
    return machine.state is HostState.READY if machine is not None else not instance.joined


def situation(
    rental: Rental,
    state: State,
    choices: Mapping[str, Choice],
    now: float,
    zero: float,
    idle: frozenset[str] = frozenset(),
) -> Situation:
    """What is decided from. `now`, the rental's times and `zero`, the start of the run, are seconds since the epoch."""
    instances = tuple(
        replace(one, since=one.since - zero, until=None if one.until is None else one.until - zero)
        for one in rental.instances
    )
    return Situation(state, now - zero, instances, choices, rental.until - zero, idle)
