"""The scheduler's decisions, by example and over random runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scheduling import FAST_AND_SLOW, ONE, OURS, RULES, TWO, A, B, C, D, graphs, machines, run, task

from cluster.errors import InputError
from cluster.master.schedule import bound, core, hosts, simulation, tasks
from cluster.master.schedule.events import (
    Action,
    Adopted,
    Allowed,
    Block,
    Dispatch,
    Finished,
    Joined,
    Left,
    Rethink,
    Tick,
    Wake,
)
from cluster.master.schedule.hosts import Host
from cluster.master.schedule.peers import PEERS
from cluster.master.schedule.rules import Earliest
from cluster.master.schedule.state import State, ranked
from cluster.master.schedule.tasks import Task
from cluster.model import Cpv, Verdict


def begin(*some: Task, on: Iterable[Host] = TWO, attempts: int = 3) -> tuple[State, tuple[Action, ...]]:
    todo = tasks.of(some)
    return core.schedule(core.start(todo, on, ranked(OURS, todo), attempts), Tick(0.0))


def built(state: State, cpv: Cpv, at: float = 10.0) -> tuple[State, tuple[Action, ...]]:
    return core.schedule(state, Finished(at, cpv, Verdict.BUILT))


def test_the_longest_chain_to_the_end_goes_first() -> None:
    state, actions = begin(task(A, seconds=1.0), task(B, seconds=30.0), task(C, seconds=5.0), task(D, C, seconds=20.0))
    assert actions == (Dispatch(B, "node-1", 1), Dispatch(C, "node-2", 1))
    _, actions = built(state, C, 5.0)
    assert actions == (Dispatch(D, "node-2", 1),)


def test_equal_chains_go_in_the_order_given_so_that_runs_are_repeatable() -> None:
    _, actions = begin(task(C), task(A), task(B))
    assert actions == (Dispatch(C, "node-1", 1), Dispatch(A, "node-2", 1))


def test_ready_only_when_everything_it_needs_is_built() -> None:
    state, _ = begin(task(A), task(B), task(C, A, B))
    state, actions = built(state, A)
    assert actions == ()
    state, actions = built(state, B)
    assert [action.cpv for action in actions if isinstance(action, Dispatch)] == [C]
    state, _ = built(state, C, 20.0)
    assert state.done


def test_needs_outside_the_run_are_there_already() -> None:
    _, actions = begin(task(B, A))
    assert actions == (Dispatch(B, "node-1", 1),)


def test_a_failure_blocks_exactly_what_is_downstream() -> None:
    state, _ = begin(task(A), task(B, A), task(C, B), task(D, seconds=1.0), on=ONE)
    state, actions = core.schedule(state, Finished(10.0, A, Verdict.FAILED))
    assert actions == (Block(B, A), Block(C, A), Dispatch(D, "node-1", 1))
    state, _ = built(state, D, 11.0)
    assert state.done


def test_a_lost_package_is_tried_up_to_attempts_and_then_blocks() -> None:
    state, _ = begin(task(A), task(B, A), on=ONE)
    for attempt in (2, 3):
        state, actions = core.schedule(state, Finished(5.0, A, Verdict.LOST))
        assert actions == (Dispatch(A, "node-1", attempt),)
    state, actions = core.schedule(state, Finished(5.0, A, Verdict.LOST))
    assert actions == (Block(B, A),)
    assert state.done


def test_nothing_to_do_is_done() -> None:
    state, actions = begin()
    assert state.done
    assert actions == ()


def test_packages_in_a_circle_are_refused_by_name() -> None:
    with pytest.raises(InputError, match=f"{A} -> {B} -> {A}"):
        tasks.of([task(A, B), task(B, A), task(C, B)])


def test_a_package_waits_for_a_fast_node_where_that_ends_sooner() -> None:
    state, actions = begin(task(A, seconds=40.0), task(B, seconds=39.0), on=FAST_AND_SLOW)
    assert actions == (Dispatch(A, "fast", 1), Wake(11.0))
    state, actions = built(state, A, 10.0)
    assert actions == (Dispatch(B, "fast", 1),)


def test_and_takes_the_slow_one_when_what_it_waits_for_does_not_come() -> None:
    state, _ = begin(task(A, seconds=40.0), task(B, seconds=39.0), on=FAST_AND_SLOW)
    state, actions = core.schedule(state, Tick(11.0))
    assert actions == (Wake(13.0),)  # late by a second, so expected a second later
    _, actions = core.schedule(state, Tick(60.0))
    assert actions == (Dispatch(B, "slow", 1),)


def test_what_would_not_end_sooner_does_not_wait() -> None:
    _, actions = begin(task(A, seconds=400.0), task(B, seconds=39.0), on=FAST_AND_SLOW)
    assert actions == (Dispatch(A, "fast", 1), Dispatch(B, "slow", 1))


def test_an_urgent_package_goes_first_with_all_that_it_needs() -> None:
    _, actions = begin(task(A, seconds=99.0), task(B), task(C, B, urgent=True), task(D), on=ONE)
    assert actions == (Dispatch(B, "node-1", 1),)


SMALL = (Host("small", ("small/1", "small/2"), memory_mib=1000.0, disk_mib=1000.0),)


def test_memory_and_disk_of_a_host_are_not_given_away_twice() -> None:
    _, actions = begin(task(A, memory_mib=600.0), task(B, memory_mib=600.0), on=SMALL)
    assert [action.cpv for action in actions if isinstance(action, Dispatch)] == [A]
    _, actions = begin(task(A, disk_mib=600.0), task(B, disk_mib=300.0), on=SMALL)
    assert [action.cpv for action in actions if isinstance(action, Dispatch)] == [A, B]


def test_what_needs_more_than_any_host_has_gets_all_of_one() -> None:
    state, actions = begin(task(A, memory_mib=5000.0), task(B, memory_mib=1.0, seconds=1.0), on=SMALL)
    assert [action.cpv for action in actions if isinstance(action, Dispatch)] == [A]
    _, actions = built(state, A)
    assert [action.cpv for action in actions if isinstance(action, Dispatch)] == [B]


def test_small_packages_do_not_put_off_a_large_one() -> None:
    """Of those that are wanted less only what ends before there is room for it may start."""
    many = [task(f"cat/small{number}-1", seconds=20.0, memory_mib=400.0) for number in range(9)]
    short = task("cat/short-1", seconds=5.0, memory_mib=400.0)
    large = task("cat/large-1", seconds=100.0, memory_mib=900.0)
    first = task(A, seconds=200.0, memory_mib=400.0)
    later = task(B, A, large.cpv, seconds=1.0)
    host = Host("small", ("1", "2", "3"), memory_mib=1000.0)
    _, actions = begin(first, large, later, short, on=[host])
    assert [action.cpv for action in actions if isinstance(action, Dispatch)] == [A, short.cpv]
    trace = run(begin(task("cat/x-1", seconds=10.0, memory_mib=400.0), large, later, *many, on=[host])[0])
    started = {stay.cpv: stay.since for stay in trace.stays}
    assert started[large.cpv] <= 20.0


def test_packages_that_are_to_be_apart_share_no_host() -> None:
    two = (Host("one", ("1/1", "1/2")), Host("other", ("2/1",)))
    _, actions = begin(task(A, apart="browser"), task(B, apart="browser"), task(C, apart="browser"), on=two)
    nodes = [action.node for action in actions if isinstance(action, Dispatch)]
    assert nodes == ["1/1", "2/1"]


def test_a_host_that_leaves_costs_its_package_no_attempt() -> None:
    two = (Host("one", ("1",)), Host("other", ("2",)))
    state, _ = begin(task(A), task(B, seconds=5.0), on=two, attempts=1)
    state, actions = core.schedule(state, Left(3.0, "one"))
    assert actions == (Rethink(),)
    assert "one" not in state.rooms
    state, actions = built(state, B, 5.0)
    assert Dispatch(A, "2", 1) in actions


def test_a_host_that_joins_gets_work() -> None:
    state, _ = begin(task(A), task(B), on=ONE)
    _, actions = core.schedule(state, Joined(1.0, Host("new", ("new",), 2.0)))
    assert Dispatch(B, "new", 1) in actions


def test_no_more_than_is_allowed_is_built_at_once() -> None:
    state, _ = begin(task(A), task(B), task(C))
    state, _ = core.schedule(state, Allowed(1.0, 1))
    state, actions = built(state, A)
    assert [action for action in actions if isinstance(action, Dispatch)] == []
    state, actions = core.schedule(state, Allowed(11.0, 2))
    assert Dispatch(C, "node-1", 1) in actions


def test_builds_that_take_something_else_than_expected_ask_for_another_rule() -> None:
    state, _ = begin(task(A), task(B), task(C), task(D))
    state, actions = built(state, A, 20.0)
    assert Rethink() in actions
    state, actions = core.schedule(state, Adopted(20.0, ranked(PEERS["hydra"], state.tasks)))
    assert state.ranking.rule == PEERS["hydra"]
    assert Rethink() not in actions


def test_hosts_are_read_from_counts_and_speeds() -> None:
    found = hosts.parse("2x4.0, 1x.5")
    assert [(host.name, host.nodes, host.speed) for host in found] == [
        ("1@4", ("1@4",), 4.0),
        ("2@4", ("2@4",), 4.0),
        ("3@0.5", ("3@0.5",), 0.5),
    ]


@pytest.mark.parametrize("text", ["", "2", "x1", "0x1", "2x0", "2x-1", "1x1,,2x1", "1xfast", "1x1e3"])
def test_other_hosts_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="COUNTxSPEED"):
        hosts.parse(text)


def overlaps(stays: Iterable[simulation.Stay], at: simulation.Stay) -> list[simulation.Stay]:
    """What runs when `at` begins, itself included."""
    return [stay for stay in stays if stay.since <= at.since < stay.until]


def check(trace: simulation.Trace, some: Mapping[Cpv, Task], on: Iterable[Host]) -> None:
    """Nothing before its needs; no node, memory, disk or host that is to be had once given away twice."""
    ended = {stay.cpv: stay.until for stay in trace.stays if stay.verdict is Verdict.BUILT}
    where = {node: host for host in on for node in host.nodes}
    for stay in trace.stays:
        assert all(ended[need] <= stay.since for need in some[stay.cpv].needs)
        beside = [other for other in overlaps(trace.stays, stay) if where[other.node] is where[stay.node]]
        host = where[stay.node]
        assert len({other.node for other in beside}) == len(beside)
        assert sum(min(some[other.cpv].memory_mib, host.memory_mib) for other in beside) <= host.memory_mib
        assert sum(min(some[other.cpv].disk_mib, host.disk_mib) for other in beside) <= host.disk_mib
        words = [word for other in beside if (word := some[other.cpv].apart)]
        assert len(words) == len(set(words))


@given(graphs(), machines(), RULES, st.floats(0.0, 0.6), st.integers(0, 99), st.data())
def test_every_package_is_built_once_and_nothing_is_overcommitted(
    some: list[Task], on: tuple[Host, ...], rule: Earliest, fail_rate: float, seed: int, data: st.DataObject
) -> None:
    todo = tasks.of(some)
    real = tuple(data.draw(st.floats(0.5, 100.0)) for _ in some)
    state = core.start(todo, on, ranked(rule, todo), 10**6)
    trace = run(state, seconds=real, fail_rate=fail_rate, seed=seed)
    assert sorted(stay.cpv for stay in trace.stays if stay.verdict is Verdict.BUILT) == sorted(one.cpv for one in some)
    check(trace, {one.cpv: one for one in some}, on)
    for host in on:
        assert set(trace.state.rooms[host.name].nodes) == set(host.nodes)
        assert trace.state.rooms[host.name].memory_mib == host.memory_mib


@given(graphs(), machines(), RULES)
def test_no_schedule_is_shorter_than_the_bound(some: list[Task], on: tuple[Host, ...], rule: Earliest) -> None:
    todo = tasks.of(some)
    trace = run(core.start(todo, on, ranked(rule, todo), 1))
    assert trace.end >= bound.lower(todo, on) * (1 - 1e-9)


@given(graphs(), machines(), st.sampled_from([OURS, Earliest(0.5)]))
def test_no_node_is_idle_on_which_a_package_that_waits_would_end_sooner(
    some: list[Task], on: tuple[Host, ...], rule: Earliest
) -> None:
    """Of packages that need nothing, as nothing comes between what a decision expects and what happens."""
    todo = tasks.of(Task(one.cpv, one.seconds) for one in some)
    free = tuple(Host(host.name, host.nodes, host.speed) for host in on)
    trace = run(core.start(todo, free, ranked(rule, todo), 1))
    for stay in trace.stays:
        for host in free:
            for node in host.nodes:
                if not any(other.since == 0.0 for other in trace.stays if other.node == node):
                    assert todo.all[todo.places[stay.cpv]].seconds / host.speed >= stay.until - 1e-6
