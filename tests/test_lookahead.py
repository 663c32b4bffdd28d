"""Which rule is taken, and when no other need be tried."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from immutables import Map

from cluster.bench import shapes
from cluster.master.schedule import bound, core, hosts, lookahead, simulation, tasks
from cluster.master.schedule.events import Tick
from cluster.master.schedule.peers import PEERS
from cluster.master.schedule.rules import Earliest
from cluster.master.schedule.state import Ranking, State, ranked
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
