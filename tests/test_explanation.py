"""Why a package is where it is: each reason by example, and over random runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from hypothesis import given
from hypothesis import strategies as st
from test_schedule import FAST_AND_SLOW, ONE, RULES, TWO, A, B, C, D, begin, built, graphs, machines, task

from cluster.master.schedule import core, simulation, tasks
from cluster.master.schedule.events import Action, Allowed, Event, Finished, Joined, Left
from cluster.master.schedule.explanation import explain
from cluster.master.schedule.hosts import Host
from cluster.master.schedule.outlook import outlook
from cluster.master.schedule.peers import PEERS
from cluster.master.schedule.reasons import Blocked, Building, Ended, Reason, Starting, Turn, Waiting
from cluster.master.schedule.rules import Earliest
from cluster.master.schedule.state import Draft, Rule, Start, State, ranked
from cluster.master.schedule.tasks import Task
from cluster.model import Cpv, Verdict

E = Cpv("cat/e-1")


def say(at: float) -> str:
    return f"{at:g}s"


def said(state: State, cpv: Cpv, now: float, phases: Mapping[str, str] | None = None) -> str:
    return explain(state, cpv, outlook(state, now), phases or {}).sentence(say)


# What goes on, and how it ended.


def test_what_is_built_says_where_since_when_and_how_much_of_its_usual_time_that_is() -> None:
    state, _ = begin(task(A), on=ONE)
    assert said(state, A, 4.0) == "building on node-1 since 0s, 40% of its usual time"
    assert said(state, A, 15.0, {"node-1": "compile"}) == (
        "building on node-1 since 0s, compile, 150% of its usual time"
    )


def test_a_second_attempt_says_so() -> None:
    state, _ = begin(task(A), on=ONE)
    state, _ = core.schedule(state, Finished(3.0, A, Verdict.LOST))
    assert said(state, A, 4.0) == "building on node-1 since 3s, attempt 2, 10% of its usual time"


def test_what_needs_several_names_the_one_that_will_end_last() -> None:
    some = (task(A, seconds=20.0), task(B, seconds=100.0), task(C, seconds=30.0), task(D, A, B, C))
    state, _ = begin(*some, on=[Host("here", ("node-1", "node-2", "node-3"))])
    assert said(state, D, 5.0) == (
        "waiting since 0s for cat/b-1 (building on node-1, 5% of its usual time), and 2 others that end before"
    )
    state, _ = built(state, A, 20.0)
    assert said(state, D, 20.0).endswith("usual time), and another that ends before")
    state, _ = built(state, B, 25.0)
    assert said(state, D, 25.0).startswith("waiting since 0s for cat/c-1 (building")


def test_what_is_waited_for_may_wait_itself() -> None:
    state, _ = begin(task(A), task(B, A), task(C, B), on=ONE)
    assert said(state, C, 0.0) == "waiting since 0s for cat/b-1 (which is to start about 10s)"


def test_ends_are_said_with_their_time() -> None:
    state, _ = begin(task(A), task(B), task(C, B), task(D, C), attempts=2)
    state, _ = built(state, A, 9.0)
    state, _ = core.schedule(state, Finished(12.0, B, Verdict.FAILED))
    assert said(state, A, 20.0) == "built at 9s"
    assert said(state, B, 20.0) == "failed at 12s"
    assert said(state, C, 20.0) == said(state, D, 20.0) == "blocked since 12s: needs cat/b-1, which failed"


def test_what_is_lost_too_often_and_what_is_kept_say_so() -> None:
    state, _ = begin(task(A), task(B), task(C, A), on=ONE, attempts=2)
    for at in (1.0, 2.0):
        state, _ = core.schedule(state, Finished(at, A, Verdict.LOST))
    assert said(state, A, 5.0) == "lost its node at 2s, for the last of 2 attempts"
    assert said(state, C, 5.0) == "blocked since 2s: needs cat/a-1, which was lost"
    state, _ = core.schedule(state, Finished(6.0, B, Verdict.SKIPPED))
    assert said(state, B, 6.0).startswith("kept as it was at 6s")


def test_of_two_causes_the_first_one_blocks() -> None:
    state, _ = begin(task(A), task(B), task(C, A, B))
    state, _ = core.schedule(state, Finished(3.0, B, Verdict.FAILED))
    state, _ = core.schedule(state, Finished(4.0, A, Verdict.FAILED))
    assert said(state, C, 5.0) == "blocked since 3s: needs cat/b-1, which failed"


# Why what is ready has no node.


def test_what_no_node_is_free_for_says_its_place_and_when_one_will_be() -> None:
    state, _ = begin(task(A, seconds=40.0), task(B, seconds=30.0), task(C, seconds=20.0), on=ONE)
    assert said(state, B, 5.0) == "ready since 0s, first of 2, no node is free for it before about 40s"
    assert said(state, C, 5.0) == "ready since 0s, second of 2, no node is free for it before about 70s"


def test_it_is_ready_since_what_it_needs_was_built_or_its_node_was_lost() -> None:
    state, _ = begin(task(A), task(B, A), task(C, A), on=ONE)
    state, _ = built(state, A, 9.0)
    assert said(state, C, 9.0).startswith("ready since 9s")
    state, _ = begin(task(A, seconds=90.0), task(B, seconds=80.0), on=TWO)
    state, _ = core.schedule(state, Allowed(1.0, 1))
    state, _ = core.schedule(state, Finished(7.0, B, Verdict.LOST))
    assert said(state, B, 8.0) == "ready since 7s, waits for its turn: this run may use 1 node at the moment"


def test_a_run_that_may_use_no_node_says_so() -> None:
    todo = tasks.of([task(A)])
    state, _ = core.schedule(core.start(todo, ONE, ranked(Earliest(), todo), 1), Allowed(0.0, 0))
    assert said(state, A, 3.0) == "ready since 0s, waits for its turn: this run may use no nodes at the moment"


def test_what_waits_for_memory_says_how_much_it_lacks_and_what_frees_it() -> None:
    small = Host("small", ("1", "2"), memory_mib=4000.0, disk_mib=4000.0)
    state, _ = begin(task(A, seconds=40.0, memory_mib=2800.0), task(B, memory_mib=3000.0), on=[small])
    assert said(state, B, 2.0) == (
        "ready since 0s, waiting for memory on small (needs 3000 MiB, 1200 free until cat/a-1 ends about 40s)"
    )
    state, _ = begin(task(A, seconds=40.0, disk_mib=2800.0), task(B, disk_mib=3000.0), on=[small])
    assert "waiting for disk on small" in said(state, B, 2.0)
    state, _ = begin(task(A, seconds=40.0, apart="browser"), task(B, apart="browser"), on=[small])
    assert said(state, B, 2.0) == (
        "ready since 0s, waiting for small, where a package is built that it shares no host with until cat/a-1 ends "
        "about 40s"
    )


def test_what_waits_for_a_faster_node_says_what_it_gains() -> None:
    state, _ = begin(task(A, seconds=40.0), task(B, seconds=39.0), on=FAST_AND_SLOW)
    assert said(state, B, 0.0) == (
        "ready since 0s, but a fast node of fast, expected at 10s, ends it at 19.75s, sooner than one of slow now (39s)"
    )


def test_a_small_package_that_would_put_off_a_large_one_says_so() -> None:
    host = Host("small", ("1", "2", "3"), memory_mib=1000.0)
    large = task(B, seconds=100.0, memory_mib=900.0)
    small = task(D, E, seconds=90.0, memory_mib=400.0)
    first = task(A, seconds=200.0, memory_mib=400.0)
    state, _ = begin(first, large, task(C, A, B, seconds=1.0), task(E, seconds=150.0), small, on=[host])
    state, _ = built(state, E, 150.0)
    assert said(state, D, 150.0) == (
        "ready since 150s, but on small it would put off cat/b-1, which is wanted more; it starts about 300s"
    )


def test_what_nothing_keeps_is_about_to_start() -> None:
    todo = tasks.of([task(A)])
    state = core.start(todo, ONE, ranked(Earliest(), todo), 1)
    assert said(state, A, 0.0) == "ready since 0s, about to start on here"


def test_without_hosts_nothing_is_promised() -> None:
    state, _ = begin(task(A), task(B, A), on=ONE)
    state, _ = core.schedule(state, Left(3.0, "here"))
    assert said(state, A, 5.0) == "ready since 3s, first of 1, and no node is expected for it"
    assert said(state, B, 5.0) == "waiting since 0s for cat/a-1 (which is to start at a time that cannot be told)"
    assert outlook(state, 5.0).end == math.inf


def test_another_builders_rule_is_explained_by_what_it_will_do() -> None:
    todo = tasks.of([task(A, seconds=40.0), task(B, seconds=30.0)])
    state, _ = core.schedule(core.start(todo, (), ranked(PEERS["dpb"], todo), 1), Joined(0.0, ONE[0]))
    assert said(state, B, 1.0) == "ready since 0s, first of 1, no node is free for it before about 40s"
    host = Host("here", ("1", "2"), memory_mib=1000.0)
    todo = tasks.of([task(A, seconds=40.0, memory_mib=800.0), task(B, memory_mib=500.0)])
    state, _ = core.schedule(core.start(todo, (), ranked(PEERS["dpb"], todo), 1), Joined(0.0, host))
    assert said(state, B, 1.0) == (
        "ready since 0s, waiting for memory on here (needs 500 MiB, 200 free until cat/a-1 ends about 40s)"
    )


# Over random runs.


@st.composite
def moments(draw: st.DrawFn, rules: st.SearchStrategy[Rule] = RULES) -> tuple[State, float]:
    """A state of a random run in which nodes are lost, packages fail and less is allowed, and a time after it."""
    some, on, rule = draw(graphs()), draw(machines()), draw(rules)
    todo = tasks.of(some)
    state = core.start(todo, on, ranked(rule, todo), draw(st.integers(1, 3)))
    found: list[tuple[State, float]] = []
    failing = draw(st.sets(st.sampled_from([one.cpv for one in some]), max_size=2))

    def decide(state: State, event: Event) -> tuple[State, tuple[Action, ...]]:
        if isinstance(event, Finished) and event.cpv in failing:
            event = Finished(event.at, event.cpv, Verdict.FAILED)
        after = core.schedule(state, event)
        found.append((after[0], event.at))
        return after

    events: tuple[Event, ...] = ()
    if draw(st.booleans()):
        events = (Allowed(draw(st.floats(0.0, 100.0)), draw(st.integers(0, 2))),)
    if draw(st.booleans()):
        events = (*events, Left(draw(st.floats(0.0, 100.0)), on[0].name))
    seconds = tuple(one.seconds * draw(st.sampled_from([0.5, 1.0, 3.0])) for one in some)
    simulation.run(state, simulation.World(seconds, 0.3, draw(st.integers(0, 9)), events), decide=decide)
    state, at = draw(st.sampled_from(found))
    return state, at + draw(st.sampled_from([0.0, 1.0, 50.0]))


def reasons(state: State, now: float) -> dict[Cpv, Reason]:
    ahead = outlook(state, now)
    return {cpv: explain(state, cpv, ahead) for cpv in state.tasks.places}


@given(moments())
def test_every_package_has_one_reason_that_fits_where_it_is(moment: tuple[State, float]) -> None:
    state, now = moment
    for cpv, reason in reasons(state, now).items():
        place = state.tasks.places[cpv]
        assert reason.sentence(say)
        match reason:
            case Ended(verdict, at):
                assert state.ended[place] is verdict is not Verdict.BLOCKED
                assert at <= now
            case Blocked(cause, verdict):
                assert state.ended[place] is Verdict.BLOCKED
                assert state.ended[state.tasks.places[cause]] is verdict
                assert verdict in (Verdict.FAILED, Verdict.LOST)
            case Building(node, since):
                assert (state.running[place].node, state.running[place].since) == (node, since)
            case Waiting(_, need, need_now, others):
                assert others == state.missing[place] - 1
                assert state.tasks.places[need] in state.tasks.needs[place]
                assert isinstance(need_now, Building) == (state.tasks.places[need] in state.running)
            case _:
                assert place in [ready for _, ready in state.ready]
                assert reason.since <= now


@given(moments())
def test_what_is_about_to_start_is_what_the_core_starts(moment: tuple[State, float]) -> None:
    state, now = moment
    after, _ = core.schedule(state, Allowed(now, 10**6) if state.allowed is None else Allowed(now, state.allowed))
    started = {state.tasks.all[place].cpv for place in after.running if place not in state.running}
    assert {cpv for cpv, reason in reasons(state, now).items() if isinstance(reason, Starting)} == started


@given(moments())
def test_only_a_run_that_is_held_back_waits_for_its_turn(moment: tuple[State, float]) -> None:
    state, now = moment
    if any(isinstance(reason, Turn) for reason in reasons(state, now).values()):
        assert state.allowed is not None


@given(graphs(), machines(), RULES)
def test_starts_that_are_followed_further_begin_as_those_that_were_decided(
    some: list[Task], on: tuple[Host, ...], rule: Earliest
) -> None:
    todo = tasks.of(some)
    state = core.start(todo, on, ranked(rule, todo), 1)
    after, _ = core.schedule(state, Allowed(0.0, 10**6))
    starts: Iterable[Start] = rule.starts(Draft(state), 0.0)
    assert {start.place for start in starts if start.at <= 0.0} == set(after.running)
