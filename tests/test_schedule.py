"""Which package next, on which node."""

from __future__ import annotations

import itertools
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from cluster.master.schedule import Block, Dispatch, Finished, State, start, step
from cluster.model import Cpv, Verdict
from factories import VERDICTS

A, B, C, D, E = (Cpv(f"c/{name}-1") for name in "abcde")


def begin(
    requires: dict[Cpv, tuple[Cpv, ...]], nodes: str, *, rank: dict[Cpv, float] | None = None, attempts: int = 3
) -> tuple[State, tuple[Dispatch | Block, ...]]:
    return start(requires, rank or dict.fromkeys(requires, 0.0), nodes, attempts)


def test_the_longest_remaining_path_goes_first() -> None:
    _, actions = begin({A: (), B: (), C: ()}, "12", rank={A: 5.0, B: 60.0, C: 10.0})
    assert actions == (Dispatch(B, "1", 1), Dispatch(C, "2", 1))


def test_equal_paths_go_by_name_so_that_a_run_can_be_repeated() -> None:
    _, actions = begin({C: (), A: (), B: ()}, "123")
    assert [action.cpv for action in actions] == [A, B, C]


def test_a_package_waits_for_all_that_it_requires() -> None:
    state, actions = begin({A: (), B: (), C: (A, B)}, "123")
    assert [action.cpv for action in actions] == [A, B]
    state, actions = step(state, Finished(A, Verdict.BUILT))
    assert actions == ()
    state, actions = step(state, Finished(B, Verdict.BUILT))
    assert [action.cpv for action in actions] == [C]


def test_what_is_not_built_in_this_run_is_there_already() -> None:
    _, actions = begin({C: (A, B)}, "1")
    assert actions == (Dispatch(C, "1", 1),)


def test_a_failure_blocks_what_needs_it_and_nothing_else() -> None:
    state, _ = begin({A: (), B: (A,), C: (A, B), D: (), E: (D,)}, "12")
    state, actions = step(state, Finished(A, Verdict.FAILED))
    assert actions == (Block(B, A), Block(C, A))
    state, actions = step(state, Finished(D, Verdict.BUILT))
    assert [action.cpv for action in actions] == [E]


def test_a_failure_blocks_also_what_needs_it_by_way_of_another_only() -> None:
    # C's node needs B alone; but B was built with A.
    state, _ = begin({A: (), B: (A,), C: (B,)}, "1")
    state, actions = step(state, Finished(A, Verdict.FAILED))
    assert actions == (Block(B, A), Block(C, A))
    assert state.done


def test_a_lost_package_is_tried_again_on_another_node_that_is_idle() -> None:
    state, _ = begin({A: ()}, "12")
    state, actions = step(state, Finished(A, Verdict.LOST))
    assert actions == (Dispatch(A, "2", 2),)


def test_a_package_that_is_lost_too_often_blocks_what_needs_it() -> None:
    state, actions = begin({A: (), B: (A,)}, "1", attempts=2)
    state, actions = step(state, Finished(A, Verdict.LOST))
    assert actions == (Dispatch(A, "1", 2),)
    state, actions = step(state, Finished(A, Verdict.LOST))
    assert actions == (Block(B, A),)
    assert state.done


@st.composite
def graphs(draw: st.DrawFn) -> dict[Cpv, tuple[Cpv, ...]]:
    """A random DAG: each package requires some of those before it."""
    names = [Cpv(f"c/p-{number}") for number in range(draw(st.integers(0, 12)))]
    return {
        name: tuple(draw(st.sets(st.sampled_from(names[:at])))) if at else () for at, name in enumerate(names)
    }


@given(graphs(), st.integers(1, 4), st.integers(1, 3), st.data())
def test_every_package_ends_once_in_order_and_no_node_has_two(
    requires: dict[Cpv, tuple[Cpv, ...]], nodes: int, attempts: int, data: st.DataObject
) -> None:
    rank = {cpv: data.draw(st.floats(0, 100)) for cpv in requires}
    state, actions = start(requires, rank, [f"n{number}" for number in range(nodes)], attempts)
    running: dict[Cpv, str] = {}
    ends: dict[Cpv, Verdict] = {}
    tries: Counter[Cpv] = Counter()
    # Each turn ends a job and a package has at most `attempts` of them.
    for turn in itertools.count():
        assert turn <= len(requires) * attempts
        for action in actions:
            assert action.cpv not in ends
            assert action.cpv not in running
            if isinstance(action, Block):
                assert ends[action.cause] in (Verdict.FAILED, Verdict.LOST)
                ends[action.cpv] = Verdict.BLOCKED
            else:
                assert all(ends.get(need) is Verdict.BUILT for need in requires[action.cpv])
                assert action.node not in running.values()
                running[action.cpv] = action.node
                tries[action.cpv] += 1
                assert action.attempt == tries[action.cpv] <= attempts
        assert running or state.done
        if state.done:
            break
        cpv, verdict = data.draw(st.sampled_from(sorted(running))), data.draw(st.sampled_from(VERDICTS))
        del running[cpv]
        if verdict is not Verdict.LOST or tries[cpv] == attempts:
            ends[cpv] = verdict
        state, actions = step(state, Finished(cpv, verdict))
    assert ends.keys() == requires.keys()
    for cpv, verdict in ends.items():
        assert (verdict is Verdict.BLOCKED) == any(ends[need] is not Verdict.BUILT for need in requires[cpv])
