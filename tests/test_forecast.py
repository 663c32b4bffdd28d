"""What is promised to packages that wait: room that will be there, and not put off by what is wanted less."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduling import OURS, A, B, C, graphs, task

from cluster.master.schedule import core, forecast, tasks
from cluster.master.schedule.hosts import Host
from cluster.master.schedule.state import Draft, State, ranked
from cluster.master.schedule.tasks import Task

NOW = 5.0


def state_of(some: Sequence[Task], on: Sequence[Host]) -> State:
    todo = tasks.of(Task(one.cpv, one.seconds, (), one.memory_mib, one.disk_mib, apart=one.apart) for one in some)
    return core.start(todo, on, ranked(OURS, todo), 1)


def busy(some: Sequence[Task], on: Sequence[Host], running: int) -> Draft:
    """With the first of them that fit begun at 0, and now later."""
    draft = Draft(state_of(some, on))
    for place in range(running):
        name = draft.room_for(place, 1.0)
        if name is not None:
            draft.start(place, name, 0.0)
    return draft


@st.composite
def crowds(draw: st.DrawFn) -> tuple[Draft, list[int]]:
    """A draft with some running on hosts of one speed, and what waits."""
    some = draw(graphs(10))
    on = [
        Host(
            f"host{number}",
            tuple(f"host{number}/{node}" for node in range(draw(st.integers(1, 3)))),
            memory_mib=draw(st.sampled_from([600.0, 1000.0, math.pi * 300])),
            disk_mib=draw(st.sampled_from([math.inf, 400.0])),
        )
        for number in range(draw(st.integers(1, 3)))
    ]
    draft = busy(some, on, draw(st.integers(0, len(some))))
    return draft, [place for place in range(len(some)) if place not in draft.running]


Span = tuple[float, float, str, int]


def promised(draft: Draft, waiting: Sequence[int], view: forecast.Forecast) -> list[Span]:
    """What each of `waiting` is promised, in turn: since, until, where, which."""
    spans = []
    for place in waiting:
        task = draft.tasks[place]
        at, name = view.soonest(task)
        view.reserve(task, at, name)
        spans.append((at, at + task.seconds, name, place))
    return spans


def ends(draft: Draft) -> list[tuple[int, float]]:
    """What runs, and until when as far as is known."""
    return [(place, draft.running[place].expected(NOW)) for _, place in draft.busy[1.0]]


def overfull(draft: Draft, spans: Sequence[Span], moment: float) -> list[str]:
    """The hosts that would have to give more than they have then, if all that runs ends when it is expected to."""
    found = []
    for name, host in draft.hosts.items():
        there = [place for since, until, where, place in spans if where == name and since <= moment < until]
        there += [place for place, end in ends(draft) if draft.running[place].host == name and moment < end]
        memory = sum(min(draft.tasks[place].memory_mib, host.memory_mib) for place in there)
        disk = sum(min(draft.tasks[place].disk_mib, host.disk_mib) for place in there)
        words = [word for place in there if (word := draft.tasks[place].apart)]
        full = len(there) > len(host.nodes) or memory > host.memory_mib + 1e-6 or disk > host.disk_mib + 1e-6
        if full or len(words) > len(set(words)):
            found.append(name)
    return found


@settings(max_examples=30)
@given(crowds())
def test_no_room_is_promised_that_is_not_there(crowd: tuple[Draft, list[int]]) -> None:
    draft, waiting = crowd
    spans = promised(draft, waiting, forecast.of(draft, 1.0, NOW))
    for since, until, _, _ in spans:
        assert NOW <= since <= until
        assert overfull(draft, spans, since) == []


@settings(max_examples=30)
@given(crowds())
def test_each_is_promised_the_first_moment_at_which_it_fits(crowd: tuple[Draft, list[int]]) -> None:
    """Of the moments at which something ends, on whatever host."""
    draft, waiting = crowd
    spans = promised(draft, waiting, forecast.of(draft, 1.0, NOW))
    for number, (since, _, _, place) in enumerate(spans):
        before = spans[:number]
        moments = {NOW, *(span[1] for span in before), *(end for _, end in ends(draft))}
        for moment in sorted(moment for moment in moments if moment < since):
            for name in draft.hosts:
                span = (moment, moment + draft.tasks[place].seconds, name, place)
                changes = [moment, *(other[0] for other in before if moment <= other[0] < span[1])]
                assert any(overfull(draft, [*before, span], at) for at in changes)


@settings(max_examples=30)
@given(crowds())
def test_what_is_wanted_less_puts_off_nothing(crowd: tuple[Draft, list[int]]) -> None:
    """Each promise is the same whatever comes after it: conservative backfilling."""
    draft, waiting = crowd
    spans = promised(draft, waiting, forecast.of(draft, 1.0, NOW))
    for number in range(len(waiting)):
        assert promised(draft, waiting[:number], forecast.of(draft, 1.0, NOW)) == spans[:number]


def test_what_is_short_goes_between_what_runs_and_what_waits() -> None:
    """A runs to 20 and leaves 400 MiB; B waits for all memory; C is done when B begins, D is not."""
    some = [
        task(A, seconds=20.0, memory_mib=600.0),
        task(B, seconds=9.0, memory_mib=1000.0),
        task(C, seconds=15.0, memory_mib=400.0),
        task("cat/d-1", seconds=16.0, memory_mib=400.0),
    ]
    draft = busy(some, [Host("small", ("1", "2", "3"), memory_mib=1000.0)], 1)
    spans = promised(draft, [1, 2, 3], forecast.of(draft, 1.0, NOW))
    assert [(since, place) for since, _, _, place in spans] == [(20.0, 1), (5.0, 2), (29.0, 3)]


def test_where_a_node_is_all_that_is_waited_for_each_gets_the_next_that_is_free() -> None:
    some = [
        task(A, seconds=20.0),
        task(B, seconds=8.0),
        *(task(f"cat/p{number}-1", seconds=9.0) for number in range(3)),
    ]
    draft = busy(some, [Host("one", ("1",)), Host("other", ("2",))], 2)
    spans = promised(draft, [2, 3, 4], forecast.of(draft, 1.0, NOW))
    assert [(since, name) for since, _, name, _ in spans] == [(8.0, "other"), (17.0, "other"), (20.0, "one")]


@settings(max_examples=30)
@given(st.lists(st.floats(1.0, 50.0), min_size=3, max_size=9), st.integers(1, 3), st.integers(1, 3))
def test_both_forecasts_say_the_same_where_only_nodes_count(seconds: list[float], hosts: int, nodes: int) -> None:
    some = [task(f"cat/p{number}-1", seconds=one) for number, one in enumerate(seconds)]
    some = [task(f"cat/r{number}-1", seconds=one) for number, one in enumerate(range(6, 6 + hosts * nodes))] + some
    free = [Host(f"h{host}", tuple(f"h{host}/{node}" for node in range(nodes))) for host in range(hosts)]
    draft = busy(some, free, hosts * nodes)
    waiting = range(hosts * nodes, len(some))
    fast = promised(draft, waiting, forecast.of(draft, 1.0, NOW))
    draft.limited[1.0] = True
    slow = promised(draft, waiting, forecast.of(draft, 1.0, NOW))
    assert [span[0] for span in fast] == pytest.approx([span[0] for span in slow])
