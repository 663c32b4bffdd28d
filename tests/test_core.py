"""What follows from an event follows from nothing else."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from scheduling import OURS, RULES, A, B, graphs, machines, run, task

from cluster.master.schedule import core, simulation, tasks
from cluster.master.schedule.events import Action, Allowed, Event, Finished, Joined, Left, Rethink, Tick
from cluster.master.schedule.hosts import Host
from cluster.master.schedule.state import Ranking, Rule, State, ranked
from cluster.master.schedule.tasks import Task
from cluster.model import Verdict


class Kept:
    """The core, and what it was asked and answered."""

    def __init__(self) -> None:
        self.log: list[tuple[State, str, Event, State, tuple[Action, ...]]] = []

    def __call__(self, state: State, event: Event) -> tuple[State, tuple[Action, ...]]:
        before = repr(state)
        decided = core.schedule(state, event)
        self.log.append((state, before, event, *decided))
        return decided


@settings(max_examples=30)
@given(graphs(), machines(), RULES, RULES, st.integers(0, 99))
def test_a_state_that_was_kept_is_as_it_was_and_leads_to_the_same_again(
    some: list[Task], on: tuple[Host, ...], rule: Rule, other: Rule, seed: int
) -> None:
    """Whatever happens: packages end sooner or later than expected or are lost, hosts come and go, rules change."""
    todo = tasks.of(some)
    real = tuple((number * seed % 7 + 1) * one.seconds / 4 for number, one in enumerate(some))
    changes = (Left(20.0, on[0].name), Joined(25.0, on[0]), Allowed(40.0, 1), Allowed(60.0, 9))
    world = simulation.World(real, fail_rate=0.2, seed=seed, hosts=changes)
    kept = Kept()

    def rethink(state: State, now: float) -> Ranking:
        return ranked(other, todo)

    simulation.run(core.start(todo, on, ranked(rule, todo), 3), world, rethink=rethink, decide=kept)
    for state, before, event, after, actions in kept.log:
        assert repr(state) == before
        assert core.schedule(state, event) == (after, actions)


def test_a_host_whose_memory_was_taken_in_odd_parts_has_all_of_it_again() -> None:
    """1 - 0.1 - 0.2 - 0.7 + 0.2 + 0.7 + 0.1 is less than 1 in floats, and what needs all of it would wait for ever."""
    parts = [task(f"cat/p{part}-1", memory_mib=part) for part in (0.1, 0.2, 0.7)]
    todo = tasks.of([*parts, task(A, *(part.cpv for part in parts), memory_mib=99.0)])
    host = Host("small", ("1", "2", "3"), memory_mib=1.0)
    assert run(core.start(todo, [host], ranked(OURS, todo), 1), seconds=(3.0, 1.0, 2.0, 1.0)).state.done


def test_no_other_rule_is_asked_for_when_there_is_nothing_left_to_start() -> None:
    todo = tasks.of([task(A, seconds=10.0), task(B, seconds=20.0)])
    state, _ = core.schedule(core.start(todo, [Host("here", ("1", "2"))], ranked(OURS, todo), 1), Tick(0.0))
    state, actions = core.schedule(state, Finished(19.0, A, Verdict.BUILT))
    assert actions == ()
    state, actions = core.schedule(state, Finished(99.0, B, Verdict.BUILT))
    assert actions == ()
    assert state.done


def test_another_rule_is_asked_for_after_what_this_one_starts() -> None:
    """So that what it asks to be woken for is not taken for what the other rule asks for."""
    todo = tasks.of([task(A, seconds=10.0), task(B, seconds=10.0), task("cat/c-1")])
    state, _ = core.schedule(core.start(todo, [Host("here", ("1",))], ranked(OURS, todo), 1), Tick(0.0))
    _, actions = core.schedule(state, Finished(99.0, A, Verdict.BUILT))
    assert actions[-1] == Rethink()
    assert len(actions) == 2
