"""Rented hosts that are let go and added while a build runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduling import graphs, task

from cluster import paths
from cluster.master.ec2 import catalogue, scale
from cluster.master.ec2.rental import Instance, Limits
from cluster.master.ec2.scale import Choice, Decision, Situation, Terms
from cluster.master.schedule import core, events, tasks
from cluster.master.schedule.rules import Earliest
from cluster.master.schedule.state import State, ranked
from cluster.master.schedule.tasks import Task
from cluster.model import Verdict

SHIPPED = catalogue.read(paths.data(*catalogue.SHIPPED))
CHOICES = {
    offer.type: Choice(offer, offer.usd_h + SHIPPED.billing.disk_usd_h)
    for offer in catalogue.offers(SHIPPED.only(["c7g.large", "c7g.4xlarge", "c7i.xlarge"]), "arm64")
}
TERMS = Terms(startup_s=240.0, look_s=60.0)
SELDOM = replace(TERMS, look_s=600.0)
AMPLE = Limits(hosts=8, usd_h=20.0, budget_usd=100.0)
HOUR = 3600.0


def instance(name: str, type_: str = "c7g.large", since: float = 0.0) -> Instance:
    return Instance(f"i-{name}", type_, CHOICES[type_].usd_h, since)


def begun(some: Iterable[Task], *instances: Instance, now: float = 0.0) -> Situation:
    """A run whose `instances` have joined, and have what they can begin."""
    graph = tasks.of(some)
    hosts = [CHOICES[one.type].host(one.name) for one in instances]
    state = core.start(graph, hosts, ranked(Earliest(), graph), attempts=9)
    state, _ = core.schedule(state, events.Tick(now))
    return Situation(state, now, instances, CHOICES)


def test_hosts_for_which_nothing_is_left_are_let_go_and_one_stays() -> None:
    some = [task("cat/a-1", seconds=HOUR), task("cat/b-1", "cat/a-1", seconds=HOUR)]
    here = begun(some, instance("a"), instance("b"), instance("c"))
    (busy,) = {running.host for running in here.state.running.values()}
    found = scale.decide(here, AMPLE, TERMS)
    assert set(found.drain) == {one.name for one in here.instances} - {busy}
    assert not found.end


def test_a_host_that_ends_it_sooner_stays() -> None:
    some = [task(f"cat/{name}-1", seconds=HOUR) for name in "abcdef"]
    assert not scale.decide(begun(some, instance("a"), instance("b")), AMPLE, TERMS).drain


def test_of_hosts_that_are_alike_the_dearest_go_first() -> None:
    some = [task("cat/a-1", seconds=HOUR)]
    here = begun(some, instance("a"), instance("x", "c7i.xlarge"))
    assert scale.decide(here, AMPLE, TERMS).drain == (instance("x").name,)


def test_more_are_rented_as_far_as_limits_go_where_there_is_much_to_do_at_once() -> None:
    some = [task(f"cat/p{number}-1", seconds=HOUR) for number in range(64)]
    here = begun(some, instance("a"))
    assert sum((scale.decide(here, AMPLE, TERMS).add or {}).values()) > 1
    assert scale.decide(here, replace(AMPLE, hosts=1), TERMS).add == {}
    assert scale.decide(here, replace(AMPLE, usd_h=0.1), TERMS).add == {}
    assert scale.decide(here, replace(AMPLE, budget_usd=3.0), TERMS).add in ({}, {"c7g.large": 1})
    alone = begun(some[:1], instance("a"))
    assert scale.decide(alone, AMPLE, TERMS).add == {}


def test_what_is_coming_is_counted_on() -> None:
    some = [task(f"cat/p{number}-1", seconds=600.0) for number in range(8)]
    here = begun(some, instance("a"))
    wanted = scale.decide(here, AMPLE, TERMS).add or {}
    assert wanted
    coming = [instance(f"n{number}", type_) for type_, count in wanted.items() for number in range(count)]
    again = replace(here, instances=(*here.instances, *coming))
    assert scale.decide(again, AMPLE, TERMS).add == {}


def test_a_budget_that_is_spent_ends_what_runs() -> None:
    here = begun([task("cat/a-1", seconds=HOUR)], instance("a"), now=HOUR - 30)
    limits = replace(AMPLE, budget_usd=CHOICES["c7g.large"].usd_h)
    assert scale.decide(here, limits, TERMS).end == (here.instances[0].name,)
    assert not scale.decide(replace(here, now=HOUR - 90), limits, TERMS).end


def test_a_run_that_is_done_ends_all() -> None:
    here = begun([], instance("a"), instance("b"))
    assert scale.decide(here, AMPLE, TERMS) == Decision(end=tuple(one.name for one in here.instances))


@dataclass
class Rented:
    """A run on rented hosts, in which anything may happen."""

    state: State
    limits: Limits
    instances: list[Instance]
    now: float = 0.0
    slower: float = 1.0
    """How many times longer packages take than expected."""
    drained: set[str] = field(default_factory=set)

    def step(self, seconds: float) -> None:
        """Time passes, in which packages end and hosts join."""
        self.now += seconds
        for one in list(self.living):
            if one.name not in self.state.hosts and one.since + TERMS.startup_s <= self.now:
                self.tell(events.Joined(self.now, CHOICES[one.type].host(one.name)))
        for place, running in sorted(self.state.running.items()):
            if running.since + (running.end - running.since) * self.slower <= self.now:
                self.tell(events.Finished(self.now, self.state.tasks.all[place].cpv, Verdict.BUILT))
        for name in list(self.drained):
            if not any(running.host == name for running in self.state.running.values()):
                self.gone(name)

    @property
    def living(self) -> list[Instance]:
        return [one for one in self.instances if one.until is None]

    def tell(self, event: events.Event) -> None:
        self.state, _ = core.schedule(self.state, event)

    def gone(self, name: str) -> None:
        self.instances = [
            replace(one, until=self.now) if one.name == name and one.until is None else one for one in self.instances
        ]
        self.drained.discard(name)
        if name in self.state.hosts:
            self.tell(events.Left(self.now, name))

    def decide(self) -> Decision:
        here = Situation(self.state, self.now, tuple(self.instances), CHOICES)
        found = scale.decide(here, self.limits, SELDOM)
        for name in found.drain:
            self.tell(events.Drained(self.now, name))
            self.drained.add(name)
        for name in found.end:
            self.gone(name)
        for type_, count in (found.add or {}).items():
            for _ in range(count):
                self.instances.append(instance(f"{len(self.instances):08}", type_, self.now))
        return found

    def check(self) -> None:
        paid = self.living
        assert len(paid) <= self.limits.hosts
        assert sum(one.usd_h for one in paid) <= self.limits.usd_h
        spent = sum(one.usd_h * max(60.0, (one.until or self.now) - one.since) / HOUR for one in self.instances)
        assert spent <= self.limits.budget_usd * (1 + 1e-9)


def test_a_run_that_takes_ten_times_what_was_expected_stays_within_its_budget() -> None:
    graph = tasks.of(task(f"cat/p{number}-1", seconds=HOUR) for number in range(6))
    run = Rented(
        core.start(graph, (), ranked(Earliest(), graph), attempts=99), replace(AMPLE, budget_usd=0.5), [], slower=10.0
    )
    while not run.instances or run.living:
        run.decide()
        run.check()
        run.step(SELDOM.look_s)
    assert not run.state.done
    assert run.now > HOUR


@given(
    graphs(),
    st.builds(Limits, st.integers(1, 5), st.floats(0.1, 3.0), st.floats(0.005, 0.5)),
    st.lists(st.tuples(st.floats(0.0, SELDOM.look_s), st.booleans()), min_size=5, max_size=25),
    st.floats(0.3, 10.0),
    st.floats(1.0, 300.0),
)
@settings(max_examples=60)
def test_limits_hold_whatever_happens_and_the_last_host_is_not_let_go(
    some: list[Task], limits: Limits, steps: list[tuple[float, bool]], slower: float, longer: float
) -> None:
    graph = tasks.retimed(tasks.of(some), (one.seconds * longer for one in some))
    run = Rented(core.start(graph, (), ranked(Earliest(), graph), attempts=99), limits, [], slower=slower)
    for seconds, interrupted in steps:
        run.step(seconds)
        run.check()
        working = [one.name for one in run.living if one.name in run.state.hosts and one.name not in run.drained]
        found = run.decide()
        run.check()
        if run.state.done:
            assert not run.living
        elif working:
            assert set(working) - set(found.drain)
        if interrupted and run.living:
            run.gone(run.living[0].name)


@pytest.mark.parametrize("most", range(5))
def test_as_many_as_hold(most: int) -> None:
    for true in range(most + 1):
        assert scale._most(lambda count, true=true: count <= true, most) == true
    assert [list(scale._doubled(count)) for count in (0, 1, 4, 7)] == [[], [1], [1, 2, 4], [1, 2, 4, 7]]


def test_a_host_that_only_compiles_is_neither_waited_for_nor_let_go_as_idle() -> None:
    some = [task(f"cat/{name}-1", seconds=HOUR) for name in "ab"]
    here = begun(some, instance("a"))
    smithy = replace(instance("smithy"), compiles_only=True)
    beside = replace(here, instances=(*here.instances, smithy))
    assert (beside.coming, [one.name for one in beside.working]) == ((), ["ec2-a"])
    assert smithy in beside.paid
    assert scale.decide(beside, replace(AMPLE, hosts=2), TERMS) == scale.Decision(add={})
