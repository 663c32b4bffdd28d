"""A run on rented hosts with a steward: what it lets go, what it rents, what it says, and what it never spends."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import eventually
from scheduling import graphs, task

from cluster import paths
from cluster.errors import MachineError
from cluster.master.ec2 import bill, catalogue, steward
from cluster.master.ec2.ledger import Ledger
from cluster.master.ec2.quote import Kind, Quote
from cluster.master.ec2.rental import Instance, Limits, Market, Rental, Rentals, Wish
from cluster.master.ec2.rental import State as RentalState
from cluster.master.ec2.scale import Choice
from cluster.master.ec2.steward import Leave, Steward
from cluster.master.engines.engine import Change, Draining, Went
from cluster.master.hosts.registry import Machine
from cluster.master.hosts.registry import State as HostState
from cluster.master.schedule import core, events, tasks
from cluster.master.schedule.rules import Earliest
from cluster.master.schedule.state import State, ranked
from cluster.master.schedule.tasks import Task
from cluster.model import Verdict

SHIPPED = catalogue.read(paths.data(*catalogue.SHIPPED))
TYPES = ("c7g.large", "c7g.4xlarge")
OFFERS = {one.type: one for one in catalogue.offers(SHIPPED.only(TYPES), "arm64")}
HOUR, ZERO, STARTUP_S = 3600.0, 1_000_000.0, 120.0
AMPLE = Limits(hosts=8, usd_h=20.0, budget_usd=100.0)
ALL = Leave(let_go=True, rent=True)


def price(type_: str) -> float:
    return OFFERS[type_].usd_h


@dataclass
class Yard:
    """Amazon, the registry and the run, all in memory; an instance comes as soon as it joins."""

    state: State
    rental: Rental
    now: float = ZERO
    slower: float = 1.0
    """How many times longer packages take than expected."""
    dearer: float = 1.0
    refusing: list[str] = field(default_factory=list)
    """What AWS says to the next requests for instances."""
    strays: tuple[str, ...] = ()
    drained: dict[str, HostState] = field(default_factory=dict)
    """What the registry says of hosts that are not ready."""
    asked: list[tuple[str, int]] = field(default_factory=list)
    heard: list[Change] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    dark: bool = False
    """Whether AWS does not answer at all."""
    deaf: set[str] = field(default_factory=set)
    """Hosts that never come."""

    # The estate.

    def up(self) -> tuple[Rental, ...]:
        return (self.rental,) if self.rental.state is RentalState.UP else ()

    def machines(self) -> Mapping[str, Machine]:
        return {
            one.name: Machine(
                one.name, "u", "", 22, "", {"arm64": 2}, state=self.drained.get(one.name, HostState.READY)
            )
            for one in self.rental.living
            if one.joined and not one.compiles_only
        }

    def seen(self, rental: Rental) -> Rental:
        if self.dark:
            raise MachineError("AWS cannot be asked for describe_instances")
        return self.rental

    def sweep(self, rental: Rental) -> tuple[str, ...]:
        return self.strays

    def startup_s(self, rental: Rental) -> float:
        return STARTUP_S

    def choices(self, rental: Rental, prices: Mapping[str, float]) -> dict[str, Choice]:
        paid = {one.type: one.usd_h for one in rental.instances} | dict(prices)
        return {name: Choice(OFFERS[name], usd_h) for name, usd_h in paid.items()}

    def quote(self, rental: Rental, instances: Mapping[str, int], now: float) -> Quote:
        kinds = {name: Kind(name, "arm64", 2, (), 0.0, price(name) * self.dearer) for name in instances}
        wish = Wish(instances, rental.market, rental.region, rental.limits)
        return Quote(wish, kinds, {}, "", (rental.until - now) / HOUR, 100)

    def rent(self, rental: Rental, quoted: Quote) -> tuple[tuple[Instance, ...], str]:
        [(type_, count)] = quoted.wish.instances.items()
        self.asked.append((type_, count))
        if self.refusing:
            code = self.refusing.pop(0)
            if code == "InsufficientInstanceCapacity":
                return (), code
            raise MachineError(f"AWS refuses create_fleet ({code})")
        known = len(self.rental.instances)
        made = tuple(instance(known + number, type_, self.now, joined=False) for number in range(count))
        made = tuple(replace(one, usd_h=quoted.kinds[type_].usd_h) for one in made)
        self.rental = self.rental.updated(made)
        return made, ""

    def join(self, rental: Rental, instances: tuple[Instance, ...]) -> tuple[Instance, ...]:
        joined = tuple(replace(one, joined=True) for one in instances)
        self.rental = self.rental.updated(joined)
        return joined

    def let_go(self, rental: Rental, names: frozenset[str], why: str) -> None:
        if self.dark:
            raise MachineError("AWS cannot be asked for terminate_instances")
        self.rental = self.rental.gone(frozenset(one.id for one in rental.living if one.name in names), self.now, why)

    # The run.

    def hear(self, change: Change) -> None:
        self.heard.append(change)
        match change:
            case Draining(name, _):
                self.tell(events.Drained(self.now - ZERO, name))
            case Went(name, _):
                self.tell(events.Left(self.now - ZERO, name))

    def tell(self, event: events.Event) -> None:
        self.state, _ = core.schedule(self.state, event)

    def pass_(self, seconds: float) -> None:
        """Time passes, in which hosts come and packages end."""
        self.now += seconds
        for one in self.rental.living:
            due = one.joined and one.since + STARTUP_S <= self.now and one.name not in self.deaf
            due = due and not one.compiles_only
            if due and one.name not in self.state.hosts:
                self.tell(events.Joined(self.now - ZERO, Choice(OFFERS[one.type], 0.0).host(one.name)))
        for place, running in sorted(self.state.running.items()):
            if running.since + (running.end - running.since) * self.slower <= self.now - ZERO:
                cpv = self.state.tasks.all[place].cpv
                if self.state.running.get(place) == running:
                    self.tell(events.Finished(self.now - ZERO, cpv, Verdict.BUILT))

    def spent(self, at: float) -> float:
        return bill.total(self.rental.instances, min(at, self.rental.until))


class Told:
    """A reporter."""

    def __init__(self, yard: Yard) -> None:
        self.tell = self.warn = yard.said.append


class Prompt(Steward):
    """One whose hosts join at once, without a thread."""

    def _let_join(self, rental: Rental, made: tuple[Instance, ...]) -> None:
        self._join(rental, made)


def instance(number: int, type_: str = "c7g.large", since: float = ZERO, *, joined: bool = True) -> Instance:
    return Instance(f"i-{number:08}", type_, price(type_), since, joined=joined)


def begun(
    some: Iterable[Task], *instances: Instance, limits: Limits = AMPLE, hours: float = 24.0, grows: bool = True
) -> Yard:
    """A run whose `instances` are there, and have what they can begin."""
    rental = Rental(
        "run", "here", Market.ON_DEMAND, dict.fromkeys(TYPES, 1), limits, hours, 1, "::/0", ZERO, RentalState.UP,
        instances, grows=grows,
    )  # fmt: skip
    graph = tasks.of(some)
    hosts = [Choice(OFFERS[one.type], 0.0).host(one.name) for one in instances]
    yard = Yard(core.start(graph, hosts, ranked(Earliest(), graph), attempts=99), rental)
    yard.tell(events.Tick(0.0))
    return yard


def employed(yard: Yard, leave: Leave = ALL, ledger: Any = None) -> Steward:
    made = Prompt(yard, ledger or Ledger(Rentals(Path("/nonexistent"))), lambda: leave, Told(yard), lambda: yard.now)  # type: ignore[arg-type]
    made._hear = yard.hear
    return made


def after(yard: Yard, hand: Steward, seconds: float, by: float = 10.0) -> None:
    """The steward at work for so long, and the run goes on."""
    for _ in range(max(1, round(seconds / by))):
        hand.saw(yard.state, yard.now - ZERO)
        hand.tick()
        hand.saw(yard.state, yard.now - ZERO)
        yard.pass_(by)


def named(numbers: Iterable[int]) -> set[str]:
    return {instance(number).name for number in numbers}


# Letting go.


def test_what_is_not_needed_is_drained_and_ended_when_it_is_idle_and_the_last_host_stays() -> None:
    yard = begun([task("cat/a-1", seconds=HOUR), task("cat/b-1", "cat/a-1", seconds=HOUR)], *map(instance, range(3)))
    hand = employed(yard)
    (busy,) = {running.host for running in yard.state.running.values()}
    after(yard, hand, 60.0)
    assert {one.name for one in yard.rental.living} == {busy}
    assert {change.host for change in yard.heard if isinstance(change, Draining)} == named(range(3)) - {busy}
    assert {one.why for one in yard.rental.instances if one.until} == {"it was given no more packages"}
    after(yard, hand, 3 * HOUR, by=60.0)
    assert yard.state.done
    assert {one.name for one in yard.rental.living} == {busy}


def test_a_host_that_only_compiles_stays_though_it_builds_nothing() -> None:
    yard = begun([task("cat/a-1", seconds=HOUR), task("cat/b-1", "cat/a-1", seconds=HOUR)], *map(instance, range(2)))
    smithy = replace(instance(9, "c7g.4xlarge"), compiles_only=True)
    yard.rental = yard.rental.updated((smithy,))
    after(yard, employed(yard), HOUR, by=30.0)
    assert smithy in yard.rental.living
    assert len(yard.rental.living) == 2
    assert smithy.name not in {change.host for change in yard.heard if isinstance(change, Draining | Went)}


def test_a_host_that_is_drained_is_ended_only_when_nothing_runs_there() -> None:
    some = [task("cat/long-1", seconds=4 * HOUR), task("cat/short-1", seconds=HOUR / 2)]
    yard = begun(some, *map(instance, range(2)), grows=False)
    hand = employed(yard)
    after(yard, hand, 120.0)
    assert len(yard.state.drained) == 1
    assert len(yard.rental.living) == 2
    after(yard, hand, HOUR, by=30.0)
    assert len(yard.rental.living) == 1
    assert len(yard.state.running) == 1


def test_hosts_that_a_later_build_needs_and_those_that_their_user_drained_stay() -> None:
    some = [task("cat/a-1", seconds=HOUR)]
    kept = begun(some, *map(instance, range(3)))
    after(kept, employed(kept, Leave(let_go=False, rent=True)), 300.0)
    assert len(kept.rental.living) == 3
    assert not kept.heard
    yard = begun(some, *map(instance, range(2)))
    (busy,) = {running.host for running in yard.state.running.values()}
    (idle,) = named(range(2)) - {busy}
    yard.drained[idle] = HostState.DRAINED
    yard.tell(events.Drained(0.0, idle))
    after(yard, employed(yard), 300.0)
    assert len(yard.rental.living) == 2


def test_a_host_that_does_not_come_and_one_that_no_record_has_are_ended_and_said() -> None:
    yard = begun([task(f"cat/{name}-1", seconds=9 * HOUR) for name in "abcd"], instance(0), grows=False)
    yard.rental = yard.rental.updated([instance(1)])
    yard.deaf |= named([1])
    yard.strays = ("i-0123",)
    hand = employed(yard)
    after(yard, hand, 200.0)
    assert hand.expects()
    assert len(yard.rental.living) == 2
    after(yard, hand, 200.0)
    assert {one.name for one in yard.rental.living} == named([0])
    assert any("i-0123 is ended" in text for text in yard.said)
    assert any("it does not come" in text for text in yard.said)
    assert not hand.expects()


# Renting.


def wide(count: int = 64) -> list[Task]:
    return [task(f"cat/p{number}-1", seconds=HOUR) for number in range(count)]


def test_more_is_rented_within_the_limits_where_there_is_much_to_do_and_then_let_go() -> None:
    yard = begun(wide(), instance(0), limits=replace(AMPLE, hosts=5))
    hand = employed(yard)
    after(yard, hand, 300.0)
    assert len(yard.rental.living) == 5
    assert all(one.name in yard.state.hosts for one in yard.rental.living)
    assert sum("besides" in text for text in yard.said) == len(yard.asked)
    after(yard, hand, 90 * HOUR, by=300.0)
    assert yard.state.done
    assert len(yard.rental.living) == 1


@pytest.mark.parametrize(
    ("grows", "leave", "hours"),
    [(False, ALL, 24.0), (True, Leave(let_go=True, rent=False), 24.0), (True, ALL, 0.1)],
)
def test_nothing_is_rented_that_was_not_allowed_or_ends_too_soon(grows: bool, leave: Leave, hours: float) -> None:
    yard = begun(wide(), instance(0), grows=grows, hours=hours)
    after(yard, employed(yard, leave), 300.0)
    assert not yard.asked


def test_a_failure_is_said_once_and_tried_again_after_longer_and_longer() -> None:
    yard = begun(wide(), instance(0))
    yard.refusing = ["RequestLimitExceeded"] * 3 + ["InsufficientInstanceCapacity"]
    hand = employed(yard)
    times: list[float] = []
    while yard.refusing or not yard.rental.living[1:]:
        before = len(yard.asked)
        after(yard, hand, 10.0)
        times += [yard.now] * (len(yard.asked) - before)
    assert sum("RequestLimitExceeded" in text for text in yard.said) == 1
    assert sum("InsufficientInstanceCapacity" in text for text in yard.said) == 1
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses == sorted(pauses)
    assert pauses[-1] > 300


def test_what_has_become_dearer_is_thought_of_anew() -> None:
    yard = begun(wide(), instance(0), limits=replace(AMPLE, usd_h=20 * price("c7g.large")))
    hand = employed(yard)
    after(yard, hand, 10.0)
    yard.rental, yard.asked = yard.rental.gone(frozenset(one.id for one in yard.rental.living[1:]), yard.now), []
    yard.dearer = 1000.0
    after(yard, hand, 300.0)
    assert not yard.asked


def test_nothing_that_aws_does_ends_a_build() -> None:
    yard = begun(wide(2), *map(instance, range(3)))
    yard.dark = True
    hand = employed(yard)
    after(yard, hand, 300.0)
    assert len(yard.said) == 1
    assert "cannot be looked after" in yard.said[0]
    yard.dark = False
    after(yard, hand, 300.0)
    assert len(yard.rental.living) == 2


def test_while_more_may_be_rented_a_run_without_a_host_waits() -> None:
    yard = begun(wide(), instance(0))
    hand = employed(yard)
    after(yard, hand, 10.0)
    yard.refusing = []
    for one in yard.rental.living:
        yard.tell(events.Left(yard.now - ZERO, one.name))
    yard.rental = yard.rental.gone(frozenset(one.id for one in yard.rental.living), yard.now, "taken back")
    hand.saw(yard.state, yard.now - ZERO)
    assert hand.expects()
    after(yard, hand, 20.0)
    assert yard.rental.living
    assert hand.expects()


def test_a_run_without_a_host_waits_for_some_tries_to_rent_and_not_for_ever() -> None:
    yard = begun(wide(), instance(0))
    yard.refusing = ["InsufficientInstanceCapacity"] * 99
    hand = employed(yard)
    after(yard, hand, 20.0)
    yard.tell(events.Left(yard.now - ZERO, instance(0).name))
    yard.rental = yard.rental.gone(frozenset({instance(0).id}), yard.now)
    after(yard, hand, 60.0)
    assert hand.expects()
    after(yard, hand, HOUR, by=30.0)
    assert not hand.expects()


def test_a_defect_is_said_and_the_next_look_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    yard = begun([task("cat/a-1", seconds=HOUR)], *map(instance, range(3)))
    monkeypatch.setattr(steward, "_TICK_S", 0.01)
    monkeypatch.setattr(yard, "sweep", lambda rental: 1 / 0)
    hand = employed(yard)
    hand.attend(yard.hear)
    hand.saw(yard.state, 0.0)
    assert eventually(lambda: any("ZeroDivisionError" in text for text in yard.said))
    monkeypatch.undo()
    yard.now += 2 * steward.LOOK_S
    assert eventually(lambda: bool(yard.heard))
    hand.stop()


def test_what_has_not_joined_at_the_end_is_ended() -> None:
    class Slow(Prompt):
        def _let_join(self, rental: Rental, made: tuple[Instance, ...]) -> None:
            pass

    yard = begun(wide(), instance(0))
    hand = Slow(yard, Ledger(Rentals(Path("/nonexistent"))), lambda: ALL, Told(yard), lambda: yard.now)  # type: ignore[arg-type]
    after(yard, hand, 20.0)
    assert len(yard.rental.living) > 1
    hand.stop()
    assert {one.name for one in yard.rental.living} == named([0])


# What is never spent.


def test_a_run_that_takes_ten_times_longer_stays_within_its_budget() -> None:
    yard = begun(wide(12), instance(0), limits=replace(AMPLE, budget_usd=1.0), hours=1.0 / price("c7g.large"))
    yard.slower = 10.0
    hand = employed(yard)
    while yard.rental.living and not yard.state.done:
        after(yard, hand, 60.0, by=30.0)
        assert yard.spent(yard.now) <= 1.0
    assert len(yard.rental.instances) > 1
    assert yard.spent(yard.now) > 0.5


@given(
    graphs(),
    st.integers(1, 5),
    st.floats(1.0, 20.0),
    st.floats(0.02, 1.0),
    st.lists(st.tuples(st.floats(1.0, steward.LOOK_S), st.booleans()), min_size=5, max_size=25),
    st.floats(0.3, 10.0),
    st.floats(1.0, 300.0),
)
@settings(max_examples=40)
def test_limits_hold_whatever_happens_and_if_the_master_dies_as_well(
    some: list[Task],
    most: int,
    rate: float,
    budget: float,
    steps: list[tuple[float, bool]],
    slower: float,
    longer: float,
) -> None:
    limits = Limits(most, rate * price("c7g.large"), budget)
    long = [replace(one, seconds=one.seconds * longer) for one in some]
    yard = begun(long, instance(0), limits=limits, hours=budget / price("c7g.large"))
    yard.slower = slower
    hand = employed(yard)
    for seconds, interrupted in steps:
        after(yard, hand, seconds, by=seconds)
        assert len(yard.rental.living) <= limits.hosts
        assert sum(one.usd_h for one in yard.rental.living) <= limits.usd_h * (1 + 1e-9)
        silent_s = 60.0 * yard.rental.silence_min
        assert yard.spent(yard.now + silent_s) <= budget * (1 + 1e-9)
        if interrupted and yard.rental.living:
            gone = yard.rental.living[0]
            yard.rental = yard.rental.gone(frozenset({gone.id}), yard.now)
            yard.tell(events.Left(yard.now - ZERO, gone.name))


def test_a_thread_looks_until_it_is_stopped() -> None:
    yard = begun([task("cat/a-1", seconds=HOUR)], *map(instance, range(3)))
    hand = employed(yard)
    hand.attend(yard.hear)
    hand.saw(yard.state, 0.0)
    assert eventually(lambda: bool(yard.heard))
    hand.stop()
    assert {type(change) for change in yard.heard} >= {Draining}
