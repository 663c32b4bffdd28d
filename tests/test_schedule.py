"""The scheduler's decisions, by example and over random runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from cluster.master.schedule import Action, Block, Dispatch, Finished, State, start, step
from cluster.model import Cpv, Verdict

A, B, C, D = (Cpv(f"cat/{name}-1") for name in "abcd")
ONE = ("node-1",)
TWO = ("node-1", "node-2")


def begin(
    requires: Mapping[Cpv, tuple[Cpv, ...]],
    nodes: tuple[str, ...] = TWO,
    *,
    rank: Mapping[Cpv, float] | None = None,
    attempts: int = 3,
) -> tuple[State, tuple[Action, ...]]:
    return start(requires, rank or dict.fromkeys(requires, 1.0), nodes, attempts)


def test_longest_remaining_path_goes_first() -> None:
    state, actions = begin({A: (), B: (), C: ()}, rank={A: 1.0, B: 30.0, C: 20.0})
    assert actions == (Dispatch(B, "node-1", 1), Dispatch(C, "node-2", 1))
    _, actions = step(state, Finished(C, Verdict.BUILT))
    assert actions == (Dispatch(A, "node-2", 1),)


def test_equal_paths_go_by_name_so_that_runs_are_repeatable() -> None:
    _, actions = begin({C: (), A: (), B: ()})
    assert actions == (Dispatch(A, "node-1", 1), Dispatch(B, "node-2", 1))


def test_ready_only_when_everything_it_requires_is_built() -> None:
    state, actions = begin({A: (), B: (), C: (A, B)})
    assert {action.cpv for action in actions} == {A, B}
    state, actions = step(state, Finished(A, Verdict.BUILT))
    assert actions == ()
    state, actions = step(state, Finished(B, Verdict.BUILT))
    assert [action.cpv for action in actions] == [C]
    state, _ = step(state, Finished(C, Verdict.BUILT))
    assert state.done


def test_requirements_outside_the_run_are_there_already() -> None:
    _, actions = begin({B: (A,)})
    assert actions == (Dispatch(B, "node-1", 1),)


def test_a_failure_blocks_exactly_what_is_downstream() -> None:
    state, _ = begin({A: (), B: (A,), C: (A, B), D: ()}, ONE, rank={A: 9.0, B: 8.0, C: 7.0, D: 1.0})
    state, actions = step(state, Finished(A, Verdict.FAILED))
    assert actions == (Block(B, A), Block(C, A), Dispatch(D, "node-1", 1))
    state, _ = step(state, Finished(D, Verdict.BUILT))
    assert state.done


def test_a_lost_package_is_tried_up_to_attempts_and_then_blocks() -> None:
    state, _ = begin({A: (), B: (A,)}, ONE, attempts=3)
    for attempt in (2, 3):
        state, actions = step(state, Finished(A, Verdict.LOST))
        assert actions == (Dispatch(A, "node-1", attempt),)
    state, actions = step(state, Finished(A, Verdict.LOST))
    assert actions == (Block(B, A),)
    assert state.done


def test_a_failure_is_not_tried_again() -> None:
    state, _ = begin({A: ()}, ONE, attempts=3)
    state, actions = step(state, Finished(A, Verdict.FAILED))
    assert actions == ()
    assert state.done


def test_nothing_to_do_is_done() -> None:
    state, actions = begin({})
    assert state.done
    assert actions == ()


@st.composite
def closures(draw: st.DrawFn) -> dict[Cpv, tuple[Cpv, ...]]:
    """A random DAG, each package with all that it needs, directly or not."""
    names = [Cpv(f"cat/p{number}-1") for number in range(draw(st.integers(1, 9)))]
    requires: dict[Cpv, tuple[Cpv, ...]] = {}
    for number, cpv in enumerate(names):
        direct = draw(st.sets(st.sampled_from(names[:number]))) if number else set()
        requires[cpv] = tuple(sorted(direct.union(*(requires[need] for need in direct))))
    return requires


ENDS = st.sampled_from([Verdict.BUILT, Verdict.BUILT, Verdict.FAILED, Verdict.LOST])


@given(closures(), st.integers(1, 4), st.integers(1, 3), st.data())
def test_every_package_ends_once_whatever_happens(
    requires: dict[Cpv, tuple[Cpv, ...]], count: int, attempts: int, data: st.DataObject
) -> None:
    nodes = tuple(f"node-{number}" for number in range(count))
    rank = {cpv: data.draw(st.floats(0, 100)) for cpv in requires}
    running: dict[Cpv, str] = {}
    tries: Counter[Cpv] = Counter()
    ended: dict[Cpv, Verdict] = {}

    def end(cpv: Cpv, verdict: Verdict) -> None:
        assert cpv not in ended
        ended[cpv] = verdict

    def perform(actions: tuple[Action, ...]) -> None:
        for action in actions:
            match action:
                case Block(cpv, cause):
                    assert cause in requires[cpv]
                    assert ended[cause] in (Verdict.FAILED, Verdict.LOST)
                    assert cpv not in running
                    end(cpv, Verdict.BLOCKED)
                case Dispatch(cpv, node, attempt):
                    tries[cpv] += 1
                    assert attempt == tries[cpv] <= attempts
                    assert cpv not in ended
                    assert node in nodes
                    assert node not in running.values()
                    assert all(ended.get(need) is Verdict.BUILT for need in requires[cpv])
                    running[cpv] = node

    state, actions = start(requires, rank, nodes, attempts)
    perform(actions)
    for _ in range(len(requires) * attempts):
        if state.done:
            break
        assert running, "it waits for nothing"
        cpv = data.draw(st.sampled_from(sorted(running)))
        verdict = data.draw(ENDS)
        del running[cpv]
        if verdict is not Verdict.LOST or tries[cpv] == attempts:
            end(cpv, verdict)
        state, actions = step(state, Finished(cpv, verdict))
        perform(actions)
        ready = [cpv for cpv in state.waiting if all(ended.get(need) is Verdict.BUILT for need in requires[cpv])]
        assert not ready or len(running) == count, "a node idles beside a ready package"
    assert state.done
    assert ended.keys() == requires.keys()
    broken = {cpv for cpv, verdict in ended.items() if verdict in (Verdict.FAILED, Verdict.LOST)}
    blocked = {cpv for cpv, verdict in ended.items() if verdict is Verdict.BLOCKED}
    assert blocked == {cpv for cpv, needs in requires.items() if broken & set(needs)}
