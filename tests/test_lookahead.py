"""Which rule is taken, and when no other need be tried."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from immutables import Map

from cluster.bench import shapes
from cluster.master.schedule import bound, core, hosts, lookahead, simulation, tasks
from cluster.master.schedule.events import Adopted, Dispatch, Left, Rethink, Tick
from cluster.master.schedule.peers import PEERS
from cluster.master.schedule.rules import Earliest
from cluster.master.schedule.state import Draft, Ranking, State, ranked
from cluster.master.schedule.tasks import Task, Tasks
from cluster.model import Cpv, Verdict

A, B, C = (Cpv(f"cat/{name}-1") for name in "abc")
MIXES = st.sampled_from(["2x1", "1x4,2x1", "1x8,2x2,3x0.5"])


def begin(todo: Tasks, mix: str) -> State:
    return core.start(todo, hosts.parse(mix), ranked(Earliest(), todo), 3)


def end(state: State, ranking: Ranking, now: float = 0.0) -> float:
    return simulation.run(core.reranked(state, ranking), simulation.expected(state), now=now).end


@settings(max_examples=25)
@given(st.integers(0, 50), st.integers(1, 30), MIXES)
def test_no_rule_that_is_tried_would_end_sooner_by_more_than_is_worth_it(seed: int, packages: int, mix: str) -> None:
    state = begin(shapes.layered(packages, seed, needs_each=2), mix)
    chosen = end(state, lookahead.choose(state, 0.0))
    soonest = min(end(state, ranked(rule, state.tasks)) for rule in lookahead.candidates())
    assert chosen <= soonest * 1.0006


@given(st.integers(0, 50), st.integers(1, 30), MIXES, st.floats(0.0, 1.0), st.sampled_from([*PEERS.values()]))
def test_what_is_left_ends_no_sooner_than_its_bound(
    seed: int, packages: int, mix: str, part: float, rule: Earliest
) -> None:
    state = begin(shapes.deep(packages, seed), mix)
    now = part * bound.lower(state.tasks, state.hosts.values())
    middle = simulation.run(state, simulation.expected(state), until=now)
    ranking = ranked(rule, state.tasks)
    assert end(middle.state, ranking, middle.end) >= bound.left(middle.state, middle.end) * (1 - 1e-9)


def test_the_bound_of_what_is_left_counts_what_runs_where_it_is() -> None:
    state, _ = core.schedule(begin(tasks.of([Task(A, 40.0), Task(B, 10.0, (A,))]), "1x2,1x1"), Tick(0.0))
    assert bound.left(state, 5.0) == 25.0
    assert bound.left(begin(tasks.of([Task(A, 40.0)]), "1x1"), 3.0) == 43.0


def test_a_rule_that_is_better_by_little_is_not_trusted_where_estimates_are_off() -> None:
    """B waits for the fast node, and ends at 6.75 in the place of 7."""
    state = begin(tasks.of([Task(A, 20.0), Task(B, 7.0), Task(C, 10.0)]), "1x4,1x1")
    place = state.tasks.places[C]
    ready = tuple(entry for entry in state.ready if entry[1] != place)
    state = replace(state, ready=ready, ended=Map({place: Verdict.BUILT}), left_s=27.0)
    rules = (PEERS["dpb"], Earliest())
    assert lookahead.choose(state, 0.0, rules).rule == Earliest()
    assert lookahead.choose(replace(state, off_s=10.0), 0.0, rules).rule == PEERS["dpb"]


def test_candidates_are_all_different() -> None:
    every = list(lookahead.candidates())
    assert len(set(every)) == len(every)


@given(st.integers(0, 50), st.integers(1, 30), MIXES)
@settings(max_examples=25)
def test_the_same_state_leads_to_the_same_choice(seed: int, packages: int, mix: str) -> None:
    state = begin(shapes.layered(packages, seed, needs_each=2), mix)
    assert lookahead.choose(state, 0.0) == lookahead.choose(state, 0.0)


@dataclass(frozen=True, slots=True)
class Noted:
    """Ours, but it notes that it was tried, and may start nothing."""

    name: str
    tried: list[str] = field(default_factory=list, compare=False)
    idle: bool = False

    def priorities(self, tasks: Tasks) -> tuple[float, ...]:
        self.tried.append(self.name)
        return Earliest().priorities(tasks)

    def place(self, draft: Draft, now: float) -> float:
        return float("inf") if self.idle else Earliest().place(draft, now)


THREE = tasks.of([Task(A, 10.0), Task(B, 10.0), Task(C, 10.0)])
"""20 s on two nodes, where the bound is 15: no rule is as good as can be."""


@pytest.mark.parametrize(("budget", "expected"), [(0, 3), (9, 3), (12, 4), (10_000, 30)])
def test_no_more_packages_are_played_through_than_may_be(
    budget: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three packages for each rule, and three rules at least."""
    monkeypatch.setattr(lookahead, "PACKAGES", budget)
    tried: list[str] = []
    lookahead.choose(begin(tasks.of(THREE.all), "2x1"), 0.0, [Noted(f"{number}", tried) for number in range(30)])
    assert tried == [f"{number}" for number in range(expected)]


def test_a_rule_that_does_not_come_to_an_end_is_not_the_soonest() -> None:
    state = begin(THREE, "2x1")
    assert lookahead.choose(state, 0.0, [Noted("idle", idle=True), Earliest()]).rule == Earliest()


def test_of_equal_rules_the_first_is_chosen() -> None:
    rules = [Noted("first"), Noted("second")]
    assert lookahead.choose(begin(THREE, "2x1"), 0.0, rules).rule == rules[0]


def test_after_a_host_was_lost_what_runs_goes_on() -> None:
    todo = tasks.of(Task(Cpv(f"cat/p{number}-1"), 20.0 + number) for number in range(9))
    state, _ = core.schedule(begin(todo, "3x1"), Tick(0.0))
    state, actions = core.schedule(state, Left(5.0, "2@1"))
    assert actions == (Rethink(),)
    before = dict(state.running)
    assert {running.host for running in before.values()} == {"1@1", "3@1"}
    state, actions = core.schedule(state, Adopted(5.0, lookahead.choose(state, 5.0)))
    assert dict(state.running) == before
    assert not any(isinstance(action, Dispatch) for action in actions)
    rest = simulation.run(state, simulation.expected(state), now=5.0)
    assert sorted(stay.cpv for stay in rest.stays) == sorted(one.cpv for one in todo.all)
    assert all(stay.since == 0.0 for stay in rest.stays if todo.places[stay.cpv] in before)
