"""When a run ends, by its own core and by what has finished."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from test_explanation import moments
from test_schedule import ONE, TWO, A, B, C, begin, built, task

from cluster.master.schedule.outlook import Accuracy, Eta, Outlook, accuracy, carried, eta, outlook
from cluster.master.schedule.simulation import Stay
from cluster.master.schedule.state import State
from cluster.model import Verdict


def test_the_rest_of_a_run_is_played_from_where_it_is() -> None:
    state, _ = begin(task(A, seconds=30.0), task(B, seconds=20.0), task(C, A, seconds=5.0), on=TWO)
    ahead = outlook(state, 4.0)
    assert ahead.end == 35.0
    assert {cpv: (stay.since, stay.until) for cpv, stay in ahead.stays.items()} == {
        A: (0.0, 30.0),
        B: (0.0, 20.0),
        C: (30.0, 35.0),
    }
    state, _ = built(state, A, 50.0)
    assert set(outlook(state, 50.0).stays) == {B, C}


def test_what_is_late_puts_off_the_end() -> None:
    state, _ = begin(task(A, seconds=30.0), on=ONE)
    assert outlook(state, 40.0).end > 40.0


@given(moments(), st.floats(0.0, 100.0))
def test_what_was_foreseen_is_carried_on_to_what_has_come_since(moment: tuple[State, float], later: float) -> None:
    state, now = moment
    found = carried(outlook(state, now), state, now + later)
    assert set(found.stays) <= {task.cpv for place, task in enumerate(state.tasks.all) if place not in state.ended}
    for cpv, stay in found.stays.items():
        assert now + later <= stay.until <= found.end
        assert (stay.since < now + later) <= (state.tasks.places[cpv] in state.running)


def test_what_ended_in_the_meantime_is_no_longer_to_come() -> None:
    state, _ = begin(task(A, seconds=30.0), task(B, A, seconds=5.0), on=ONE)
    ahead = outlook(state, 0.0)
    state, _ = built(state, A, 20.0)
    assert carried(ahead, state, 22.0) == Outlook(22.0, 35.0, {B: Stay("node-1", B, 20.0, 25.0, Verdict.BUILT)})


def test_two_packages_say_nothing_of_the_rest() -> None:
    assert accuracy([1.0, 3.0]) is None
    assert accuracy([0.9, 1.1, 1.0]) == Accuracy(3, pytest.approx(0.92), 1.0, pytest.approx(1.08))


def test_what_is_left_is_stretched_by_what_finished_packages_took() -> None:
    assert eta(100.0, 40.0, Accuracy(9, 0.5, 1.5, 2.0)) == Eta(130.0, 70.0, 160.0)
    assert eta(100.0, 40.0, None) == Eta(100.0, 100.0, 100.0)


@example(1.0, 0.0, [1.0, 13.090354819290617, 13.090354819290617])
@given(st.floats(0.0, 1e6), st.floats(0.0, 1e6), st.lists(st.floats(0.01, 100.0), max_size=20))
def test_an_end_is_never_before_now_and_lies_in_its_range(at: float, now: float, ratios: list[float]) -> None:
    found = eta(max(at, now), now, accuracy(ratios))
    assert now <= found.earliest <= found.at <= found.latest < math.inf
