"""Runs without building, in worlds that are not what is expected."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduling import FAST_AND_SLOW, ONE, OURS, RULES, TWO, A, B, C, graphs, machines, run, task

from cluster.master.schedule import core, lookahead, simulation, tasks
from cluster.master.schedule.events import Action, Adopted, Allowed, Event, Finished, Joined, Left, Tick
from cluster.master.schedule.hosts import Host
from cluster.master.schedule.peers import PEERS
from cluster.master.schedule.simulation import Stay, World
from cluster.master.schedule.state import Ranking, Rule, State, ranked
from cluster.master.schedule.tasks import Task
from cluster.model import Verdict

NEW = Host("new", ("new",), 2.0)


def state_of(*some: Task, on: Iterable[Host] = TWO, attempts: int = 9) -> State:
    todo = tasks.of(some)
    return core.start(todo, on, ranked(OURS, todo), attempts)


def test_a_run_is_its_stays_by_their_end() -> None:
    trace = run(state_of(task(A, seconds=5.0), task(B, A, seconds=2.0), task(C, seconds=4.0)))
    assert trace.stays == (
        Stay("node-2", C, 0.0, 4.0, Verdict.BUILT),
        Stay("node-1", A, 0.0, 5.0, Verdict.BUILT),
        Stay(trace.stays[2].node, B, 5.0, 7.0, Verdict.BUILT),
    )
    assert trace.end == 7.0
    assert trace.state.done


def test_nothing_to_do_takes_no_time() -> None:
    trace = run(state_of())
    assert (trace.end, trace.stays, trace.state.done) == (0.0, (), True)


def test_packages_take_what_they_take_whatever_was_expected() -> None:
    trace = run(state_of(task(A, seconds=10.0), task(B, A, seconds=10.0), on=[NEW]), seconds=(2.0, 100.0))
    assert [(stay.since, stay.until) for stay in trace.stays] == [(0.0, 1.0), (1.0, 51.0)]


def test_a_lost_package_is_tried_again_and_at_last_blocks_what_needs_it() -> None:
    state = state_of(task(A), task(B, A), task(C, B), on=ONE, attempts=3)
    trace = run(state, fail_rate=1.0, seed=1)
    assert [(stay.cpv, stay.verdict) for stay in trace.stays] == [(A, Verdict.LOST)] * 3
    assert all(stay.until - stay.since < 10.0 for stay in trace.stays)
    assert [trace.state.ended[place] for place in range(3)] == [Verdict.LOST, Verdict.BLOCKED, Verdict.BLOCKED]
    assert trace.state.done


@given(st.integers(0, 50), st.integers(1, 50), st.integers(0, 99))
def test_how_an_attempt_ends_depends_on_nothing_else(place: int, attempt: int, seed: int) -> None:
    world = World((), 0.5, seed)
    part, verdict = world.end(place, attempt)
    assert world.end(place, attempt) == (part, verdict)
    assert 0.0 <= part <= 1.0
    assert (verdict is Verdict.BUILT) <= (part == 1.0)
    assert World((), 0.0, seed).end(place, attempt) == (1.0, Verdict.BUILT)


@settings(max_examples=30)
@given(graphs(), machines(), RULES, st.integers(0, 9))
def test_the_same_world_is_the_same_run(some: list[Task], on: tuple[Host, ...], rule: Rule, seed: int) -> None:
    todo = tasks.of(some)
    world = World(
        tuple(one.seconds * (1 + number % 3) for number, one in enumerate(some)),
        fail_rate=0.3,
        seed=seed,
        hosts=(Left(15.0, on[0].name), Joined(30.0, on[0])),
    )
    state = core.start(todo, on, ranked(rule, todo), 99)

    def rethink(state: State, now: float) -> Ranking:
        return lookahead.choose(state, now, (OURS, PEERS["dpb"]))

    first = simulation.run(state, world, rethink=rethink)
    assert simulation.run(state, world, rethink=rethink) == first
    assert first.state.done


def test_what_was_on_a_host_that_leaves_is_built_elsewhere_from_its_beginning() -> None:
    two = (Host("one", ("1",), 2.0), Host("other", ("2",)))
    trace = run(state_of(task(A, seconds=20.0), task(B, seconds=9.0), on=two), hosts=(Left(4.0, "one"),))
    assert trace.stays == (
        Stay("1", A, 0.0, 4.0, Verdict.LOST),
        Stay("2", B, 0.0, 9.0, Verdict.BUILT),
        Stay("2", A, 9.0, 29.0, Verdict.BUILT),
    )


def test_a_run_ends_unfinished_where_no_host_is_left() -> None:
    trace = run(state_of(task(A), task(B)), hosts=(Left(4.0, "here"),))
    assert trace.end == 4.0
    assert not trace.state.done
    assert {stay.verdict for stay in trace.stays} == {Verdict.LOST}


def test_and_goes_on_when_one_comes() -> None:
    trace = run(state_of(task(A), task(B), on=ONE), hosts=(Left(4.0, "here"), Joined(100.0, NEW)))
    assert [(stay.node, stay.since) for stay in trace.stays[1:]] == [("new", 100.0), ("new", 105.0)]
    assert trace.state.done


def test_a_host_that_comes_back_is_as_good_as_a_new_one() -> None:
    changes = (Left(4.0, "here"), Joined(5.0, *ONE), Left(12.0, "here"), Joined(13.0, *ONE))
    trace = run(state_of(task(A), on=ONE, attempts=1), hosts=changes)
    assert [stay.verdict for stay in trace.stays] == [Verdict.LOST, Verdict.LOST, Verdict.BUILT]
    assert trace.end == 23.0


def test_no_more_are_built_at_once_than_are_allowed_from_then_on() -> None:
    trace = run(state_of(*(task(f"cat/p{number}-1") for number in range(6))), hosts=(Allowed(1.0, 1), Allowed(25.0, 2)))
    assert [stay.since for stay in trace.stays] == [0.0, 0.0, 10.0, 20.0, 25.0, 30.0]


class Asked:
    """The core, and what it was asked."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, state: State, event: Event) -> tuple[State, tuple[Action, ...]]:
        self.events.append(event)
        return core.schedule(state, event)


def test_one_that_waits_is_woken_when_what_it_waits_for_is_late() -> None:
    """A takes five times as long, so B, which waited for its node, takes the other one in the end."""
    asked = Asked()
    state = state_of(task(A, seconds=40.0), task(B, seconds=39.0), on=FAST_AND_SLOW)
    trace = simulation.run(state, World((200.0, 39.0)), decide=asked)
    assert isinstance(asked.events[1], Tick)
    assert asked.events[1].at == 11.0
    first = {stay.cpv: (stay.node, stay.since) for stay in trace.stays}
    assert first[A] == ("fast", 0.0)
    assert first[B][0] == "slow"
    assert first[B][1] > 11.0


def test_one_that_waits_is_not_woken_if_it_need_not_be() -> None:
    asked = Asked()
    simulation.run(
        state_of(task(A, seconds=40.0), task(B, seconds=39.0), on=FAST_AND_SLOW), World((40.0, 39.0)), decide=asked
    )
    assert [type(event) for event in asked.events] == [Tick, Finished, Finished]


def test_another_rule_is_adopted_when_the_core_asks_for_it() -> None:
    asked, told = Asked(), []

    def rethink(state: State, now: float) -> Ranking:
        told.append(now)
        return ranked(PEERS["portage"], state.tasks)

    some = [task(f"cat/p{number}-1") for number in range(6)]
    trace = simulation.run(state_of(*some, on=ONE), World((30.0,) * 6), rethink=rethink, decide=asked)
    assert told == [30.0, 60.0, 90.0, 120.0]
    assert [event.at for event in asked.events if isinstance(event, Adopted)] == told
    assert trace.state.ranking.rule == PEERS["portage"]


def test_what_a_rule_waited_for_is_of_no_concern_to_the_next_one() -> None:
    """C is late: ours has B wait for the fast node, and is replaced in that moment by one that has it wait for none."""
    asked = Asked()
    some = (task(C, seconds=4.0), task(A, C, seconds=40.0), task(B, C, seconds=39.0), task("cat/d-1", B))
    world = World((12.0, 40.0, 39.0, 10.0))
    state = state_of(*some, on=FAST_AND_SLOW)
    simulation.run(state, world, rethink=lambda state, now: ranked(PEERS["hydra"], state.tasks), decide=asked)
    assert [type(event) for event in asked.events] == [Tick, Finished, Adopted, Finished, Finished, Finished]


def test_a_run_goes_on_from_where_it_stands() -> None:
    state, _ = core.schedule(state_of(task(A), task(B, A), on=ONE), Tick(0.0))
    trace = simulation.run(state, World((10.0, 10.0)), now=7.0)
    assert [(stay.since, stay.until) for stay in trace.stays] == [(0.0, 10.0), (10.0, 20.0)]


def test_what_is_overdue_is_expected_to_take_as_long_again_as_it_is_late() -> None:
    state, _ = core.schedule(state_of(task(A), on=ONE), Tick(0.0))
    assert simulation.run(state, World((10.0,)), now=14.0).end == 18.0


@settings(max_examples=30)
@given(graphs(), machines(), RULES, st.data())
def test_hosts_may_come_and_go_and_all_is_built_as_long_as_one_is_left(
    some: list[Task], on: tuple[Host, ...], rule: Rule, data: st.DataObject
) -> None:
    todo = tasks.of(some)
    changes: list[Event] = []
    for number, host in enumerate(on):
        at = data.draw(st.floats(0.0, 100.0))
        back = at + data.draw(st.floats(0.0, 50.0))
        changes += [Left(at, host.name), Joined(back, host), Joined(at, Host(f"new{number}", (f"new{number}",)))]
    trace = run(core.start(todo, on, ranked(rule, todo), 1), hosts=tuple(changes))
    assert trace.state.done
    built = [stay.cpv for stay in trace.stays if stay.verdict is Verdict.BUILT]
    assert sorted(built) == sorted(one.cpv for one in some)
    for name, room in trace.state.rooms.items():
        assert set(room.nodes) == set(trace.state.hosts[name].nodes)
        assert room.memory_mib == trace.state.hosts[name].memory_mib
    assert trace.state.left_s == pytest.approx(0.0, abs=1e-6)
