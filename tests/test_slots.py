"""make's -j and compile slots of packages."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.master.schedule import core, slots, tasks
from cluster.master.schedule.events import Finished, Tick
from cluster.master.schedule.hosts import Host
from cluster.master.schedule.rules import Earliest
from cluster.master.schedule.state import State, ranked
from cluster.master.schedule.tasks import Task
from cluster.model import Cpv, Verdict


@pytest.mark.parametrize(
    ("parallelism", "jobs"), [(None, 2), (0.0, 1), (0.3, 1), (0.9, 2), (1.0, 2), (1.7, 3), (2.2, 3), (3.9, 4), (9.0, 4)]
)
def test_jobs_are_what_a_package_kept_busy_and_one_more(parallelism: float | None, jobs: int) -> None:
    assert slots.jobs(parallelism, usual=2, most=4) == jobs


def test_a_package_that_keeps_all_it_is_given_busy_is_given_more_until_it_has_enough() -> None:
    jobs = 1
    for _ in range(9):
        jobs = slots.jobs(min(4.6, jobs * 0.97), usual=1, most=8)
    assert jobs == 6


def running(*seconds: float, nodes: int) -> State:
    todo = tasks.of(Task(Cpv(f"cat/p{number}-1"), took) for number, took in enumerate(seconds))
    host = Host("here", tuple(f"node-{number}" for number in range(nodes)))
    return core.schedule(core.start(todo, [host], ranked(Earliest(), todo), 1), Tick(0.0))[0]


def test_slots_go_to_what_the_end_waits_for() -> None:
    state = running(100.0, 10.0, 50.0, nodes=3)
    wanted = {"cat/p0-1": 3, "cat/p1-1": 4, "cat/p2-1": 3}
    assert slots.shares(state, 6, lambda task: wanted[task.cpv], state.hosts) == {"node-0": 3, "node-1": 2, "node-2": 1}
    assert slots.shares(state, 2, lambda task: wanted[task.cpv], state.hosts) == {"node-0": 1, "node-1": 1, "node-2": 1}


@given(st.lists(st.floats(1, 100), min_size=1, max_size=6), st.integers(1, 8), st.integers(1, 16), st.data())
def test_every_node_has_a_slot_and_together_no_more_than_there_are(
    seconds: list[float], nodes: int, count: int, data: st.DataObject
) -> None:
    state = running(*seconds, nodes=nodes)
    wanted = {task.cpv: data.draw(st.integers(1, 8)) for task in state.tasks.all}
    given_ = slots.shares(state, count, lambda task: wanted[task.cpv], state.hosts)
    assert set(given_) == {one.node for one in state.running.values()}
    assert all(share >= 1 for share in given_.values())
    assert sum(given_.values()) <= max(count, len(given_))
    for place, one in state.running.items():
        assert given_[one.node] <= wanted[state.tasks.all[place].cpv]


def test_shares_are_worked_out_anew_only_where_something_changed() -> None:
    todo = tasks.of(Task(Cpv(f"cat/p{number}-1"), 10.0 + number) for number in range(3))
    hosts = [Host("one", ("one:1",)), Host("two", ("two:1", "two:2"))]
    before = core.schedule(core.start(todo, hosts, ranked(Earliest(), todo), 1), Tick(0.0))[0]
    place, ended = next(iter(before.running.items()))
    after = core.schedule(before, Finished(9.0, todo.all[place].cpv, Verdict.BUILT))[0]
    assert slots.touched(before, after) == {ended.host}
    assert slots.touched(after, core.schedule(after, Tick(9.0))[0]) == frozenset()
    assert slots.touched(after, core.reranked(after, replace(after.ranking))) == {"one", "two"}
    assert set(slots.shares(after, 4, lambda task: 1, ["two"])) == {
        one.node for one in after.running.values() if one.host == "two"
    }
