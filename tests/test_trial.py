"""Policies in worlds that do not go as expected."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import InputError
from cluster.master import trial
from cluster.master.schedule import bound, hosts, tasks
from cluster.master.schedule.tasks import Task, Tasks
from cluster.master.trial import Upset
from cluster.model import Cpv, Verdict


def some(count: int = 12) -> Tasks:
    """A chain with packages beside it."""
    names = [Cpv(f"cat/p{number}-1") for number in range(count)]
    return tasks.of(
        Task(name, 10.0 + number, (names[number - 3],) if number >= 3 else ()) for number, name in enumerate(names)
    )


def test_the_bound_is_all_work_or_the_longest_chain() -> None:
    one = tasks.of([Task(Cpv("a/a-1"), 30.0)])
    assert bound.lower(one, hosts.parse("1x2,1x1")) == 15.0
    many = tasks.of(Task(Cpv(f"a/a{number}-1"), 30.0) for number in range(10))
    assert bound.lower(many, hosts.parse("1x2,1x1")) == 100.0
    assert bound.lower(tasks.of([]), hosts.parse("1x2")) == 0.0


def test_what_leaves_does_no_more_work() -> None:
    many = tasks.of(Task(Cpv(f"a/a{number}-1"), 30.0) for number in range(10))
    assert bound.lower(many, hosts.parse("1x2,1x1"), {"1@2": 40.0}) == 40 + (300 - 120)
    assert bound.lower(many, hosts.parse("1x2,1x1"), {"1@2": 1000.0}) == 100.0
    chain = tasks.of([Task(Cpv("a/a-1"), 30.0), Task(Cpv("a/b-1"), 30.0, (Cpv("a/a-1"),))])
    assert bound.lower(chain, hosts.parse("1x2,9x1"), {"1@2": 15.0}) == 15 + 30
    assert bound.lower(chain, hosts.parse("1x2"), {"1@2": 15.0}) == float("inf")


@given(
    st.sampled_from(trial.POLICIES),
    st.sampled_from(["1x1", "3x1", "1x4,2x1", "2x2,3x1,1x0.5"]),
    st.builds(Upset, st.floats(0, 0.6), st.floats(0, 1), st.floats(0, 2), st.integers(0, 99)),
)
def test_all_is_built_and_nothing_beats_the_bound_whatever_happens(
    policy: trial.Policy, mix: str, upset: Upset
) -> None:
    todo = some()
    found = trial.run(policy, todo, hosts.parse(mix), upset)
    built = [stay.cpv for stay in found.trace.stays if stay.verdict is Verdict.BUILT]
    assert sorted(built) == sorted(task.cpv for task in todo.all)
    assert found.ratio >= 1 - 1e-9
    assert found.lower_bound_s >= found.undisturbed_bound_s * (1 - 1e-9)


def test_the_same_seed_disturbs_in_the_same_way_and_another_does_not() -> None:
    def run(seed: int, policy: trial.Policy = "ours") -> trial.Trial:
        return trial.run(policy, some(40), hosts.parse("2x2,4x1"), Upset(0.3, 0.4, 0.5, seed))

    first = run(1)
    assert first.trace.stays == run(1).trace.stays
    assert first.trace.stays != run(2).trace.stays
    assert first.lower_bound_s == run(1, "random").lower_bound_s
    assert first.gone == run(1, "random").gone
    assert first.lost > 0


@pytest.mark.parametrize(("share", "left"), [(0.0, 0), (0.2, 1), (0.5, 3), (1.0, 4)])
def test_hosts_leave_by_their_share_and_one_stays(share: float, left: int) -> None:
    gone = Upset(spot_loss=share).gone(hosts.parse("5x1"), 100.0)
    assert len(gone) == left
    assert all(0 <= at <= 100 for at in gone.values())


def test_estimates_are_off_and_the_world_is_not() -> None:
    todo = some()
    believed = Upset(estimate_error=1.0).expected(todo)
    assert all(one.seconds != other.seconds for one, other in zip(todo.all, believed.all, strict=True))
    found = trial.run("ours", todo, hosts.parse("1x1"), Upset(estimate_error=1.0))
    assert found.makespan_s == pytest.approx(sum(task.seconds for task in todo.all))


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ((-0.1, 0, 0), "--fail-rate -0.1 is no share"),
        ((1.0, 0, 0), "--fail-rate 1 loses every node"),
        ((float("nan"), 0, 0), "--fail-rate nan"),
        ((0, 1.1, 0), "--spot-loss 1.1 is no share"),
        ((0, 0, -1), "--estimate-error -1 is no standard deviation"),
        ((0, 0, float("inf")), "--estimate-error inf"),
    ],
)
def test_what_is_out_of_range_is_refused(values: tuple[float, float, float], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        Upset(*values)
