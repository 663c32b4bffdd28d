"""What follows from an event follows from nothing else."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from scheduling import FAST_AND_SLOW, OURS, RULES, A, B, C, graphs, machines, run, task

from cluster.master.schedule import core, simulation, tasks
from cluster.master.schedule.events import (
    Abandon,
    Action,
    Allowed,
    Block,
    Dispatch,
    Drained,
    Event,
    Fail,
    Finished,
    Joined,
    Left,
    Resumed,
    Rethink,
    Tick,
    Wake,
)
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
    last = on[-1].name
    changes = (
        Drained(10.0, last),
        *(Left(20.0, on[0].name), Joined(25.0, on[0]), Allowed(40.0, 1), Allowed(60.0, 9)),
        Resumed(70.0, last),
    )
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


# Hosts that come, go and are drained.

EQUAL = (Host("one", ("1",)), Host("two", ("2",)))


def begin(
    *some: Task, on: tuple[Host, ...] = EQUAL, attempts: int = 3, losses: int | None = None
) -> tuple[State, tuple[Action, ...]]:
    todo = tasks.of(some)
    return core.schedule(core.start(todo, on, ranked(OURS, todo), attempts, losses=losses), Tick(0.0))


def after(state: State, *happened: Event) -> tuple[State, list[Action]]:
    """Where that leads to, and what is to be done of it but thinking."""
    actions: list[Action] = []
    for event in happened:
        state, more = core.schedule(state, event)
        actions += [action for action in more if isinstance(action, Dispatch | Block | Fail)]
    return state, actions


def test_a_host_that_is_drained_ends_what_it_has_and_is_given_nothing_more() -> None:
    state, _ = begin(task(A, seconds=30.0), task(B, seconds=20.0), task(C))
    state, actions = after(state, Drained(1.0, "one"), Finished(30.0, A, Verdict.BUILT))
    assert actions == []
    assert [host.name for host in state.usable] == ["two"]
    state, actions = after(state, Finished(31.0, B, Verdict.BUILT))
    assert actions == [Dispatch(C, "2", 1)]


def test_a_host_that_is_resumed_is_given_packages_beside_what_it_still_has() -> None:
    both = (Host("here", ("1", "2")),)
    state, _ = begin(task(A, seconds=30.0), task(B, seconds=20.0), task(C), on=both)
    state, actions = after(state, Drained(1.0, "here"), Finished(20.0, B, Verdict.BUILT), Resumed(25.0, "here"))
    assert actions == [Dispatch(C, "2", 1)]
    state, _ = after(state, Finished(30.0, A, Verdict.BUILT), Finished(40.0, C, Verdict.BUILT))
    assert state.done


def test_a_drained_host_is_not_waited_for_however_fast_it_is() -> None:
    state, _ = begin(task(A, seconds=40.0), task(B, seconds=39.0), on=FAST_AND_SLOW)
    _, actions = after(state, Drained(1.0, "fast"))
    assert actions == [Dispatch(B, "slow", 1)]


def test_what_a_drained_host_has_is_begun_elsewhere_when_it_leaves() -> None:
    state, _ = begin(task(A, seconds=30.0), task(B, seconds=20.0))
    _, actions = after(state, Drained(1.0, "one"), Finished(20.0, B, Verdict.BUILT), Left(21.0, "one"))
    assert actions == [Dispatch(A, "2", 1)]


def test_a_host_that_is_there_does_not_come_nor_one_that_is_not_go() -> None:
    state, _ = begin(task(A), task(B), task(C))
    strange = (Joined(1.0, EQUAL[0]), Left(1.0, "three"), Drained(1.0, "three"), Resumed(1.0, "one"))
    assert after(state, *strange) == (state, [])


def test_what_comes_late_from_a_host_that_is_gone_counts_if_it_was_built_and_nothing_else_does() -> None:
    state, _ = begin(task(A, seconds=30.0), task(B, seconds=20.0), task(C, A))
    state, actions = after(state, Left(1.0, "one"), Finished(2.0, A, Verdict.LOST), Finished(2.0, A, Verdict.FAILED))
    assert actions == []
    state, actions = after(state, Finished(3.0, A, Verdict.BUILT), Finished(4.0, A, Verdict.BUILT))
    assert actions == []
    state, actions = after(state, Finished(20.0, B, Verdict.BUILT))
    assert actions == [Dispatch(C, "2", 1)]


def test_the_last_attempt_at_a_lost_package_is_on_another_host_if_there_is_one() -> None:
    state, _ = begin(task(A, seconds=30.0), task(B, seconds=20.0))
    state, actions = after(state, Finished(1.0, A, Verdict.LOST), Finished(2.0, A, Verdict.LOST))
    assert actions == [Dispatch(A, "1", 2)]
    state, actions = after(state, Finished(20.0, B, Verdict.BUILT))
    assert actions == [Dispatch(A, "2", 3)]
    _, actions = after(state, Left(21.0, "two"))
    assert actions == [Dispatch(A, "1", 3)]


def test_a_package_that_fails_is_tried_once_more_on_another_host_before_it_has_failed() -> None:
    state, _ = begin(task(A, seconds=30.0), task(B, seconds=20.0), task(C, A))
    assert core.doubted(state, A, Verdict.FAILED)
    state, actions = after(state, Finished(1.0, A, Verdict.FAILED), Finished(20.0, B, Verdict.BUILT))
    assert actions == [Dispatch(A, "2", 2)]
    assert not core.doubted(state, A, Verdict.FAILED)
    state, actions = after(state, Finished(21.0, A, Verdict.FAILED))
    assert actions == [Block(C, A)]
    assert state.done


def test_what_fails_on_a_trusted_host_or_on_the_only_one_has_failed() -> None:
    trusted = Host("one", ("1",), trusted=True)
    for on in ((trusted, EQUAL[1]), EQUAL[:1]):
        state, _ = begin(task(A, seconds=30.0), task(B, A), on=on)
        assert not core.doubted(state, A, Verdict.FAILED)
        _, actions = after(state, Finished(1.0, A, Verdict.FAILED))
        assert actions == [Block(B, A)]


def restless(*some: Task) -> State:
    todo = tasks.of(some)
    on = (Host("fast", ("fast",), 8.0), Host("slow", ("slow",)))
    return core.schedule(core.start(todo, on, ranked(OURS, todo), 1, moves=True), Tick(0.0))[0]


def gone(state: State, *names: str, excused: bool = False) -> tuple[State, list[Action]]:
    """Hosts that go away and come back, one after the other."""
    actions: list[Action] = []
    for name in names:
        host = state.hosts[name]
        state, some = after(state, Left(1.0, name, excused), Joined(1.0, host))
        actions += some
    return state, actions


def test_a_package_whose_host_goes_away_again_and_again_fails_and_blocks_what_needs_it() -> None:
    state, _ = begin(task(A), task(B, A), losses=3)
    state, actions = gone(state, "one", "two")
    assert [action.node for action in actions if isinstance(action, Dispatch)] == ["2", "1"]
    state, actions = gone(state, "one")
    assert actions == [Fail(A, ("one", "two", "one")), Block(B, A)]
    assert dict(state.ended) == {0: Verdict.FAILED, 1: Verdict.BLOCKED}


def test_a_host_that_was_to_go_is_held_against_no_package() -> None:
    state, _ = begin(task(A), losses=1)
    state, _ = gone(state, "one", "two", "one", "two", excused=True)
    assert (dict(state.bereft), dict(state.ended), state.tried[0]) == ({}, {}, 1)


def test_a_host_that_goes_with_several_packages_counts_once_for_each() -> None:
    state, _ = begin(task(A), task(B), on=(Host("both", ("1", "2")),), losses=2)
    state, _ = gone(state, "both")
    assert dict(state.bereft) == {0: ("both",), 1: ("both",)}


@settings(max_examples=60)
@given(graphs(), machines(), RULES, st.integers(1, 3), st.data())
def test_a_run_ends_whatever_takes_its_hosts_down_and_however_often_they_come_back(
    some: list[Task], on: tuple[Host, ...], rule: Rule, losses: int, data: st.DataObject
) -> None:
    todo = tasks.of(some)
    state, _ = core.schedule(core.start(todo, on, ranked(rule, todo), 2, losses=losses), Tick(0.0))
    fatal = data.draw(st.sets(st.integers(0, len(todo) - 1)))
    left = len(todo) * (losses + 1)
    while not state.done:
        assert left, "it does not end"
        left -= 1
        killers = sorted(fatal & set(state.running))
        if killers:
            state, _ = gone(state, state.running[killers[0]].host)
        else:
            place = min(state.running)
            state, _ = after(state, Finished(1.0, todo.all[place].cpv, Verdict.BUILT))
        whole(state)
    assert not any(state.ended[place].is_there for place in fatal)


def test_what_is_late_on_a_slow_node_begins_anew_on_a_fast_one_that_is_idle_at_no_attempt() -> None:
    """Of 30 s it is 15 s late at 45, and so taken to need 60 in all: at 8x half of the 15 that are left."""
    state = restless(task(A, seconds=480.0), task(B, seconds=30.0))
    state, actions = core.schedule(state, Finished(40.0, A, Verdict.BUILT))
    (wake,) = (action for action in actions if not isinstance(action, Rethink))
    assert isinstance(wake, Wake)
    assert wake.at == 45.0
    state, actions = core.schedule(state, Tick(wake.at))
    assert actions == (Abandon(B, "slow"),)
    assert core.is_moving(state, B)
    assert core.schedule(state, Tick(wake.at + 1))[1] == ()
    state, actions = after(state, Finished(wake.at + 2, B, Verdict.LOST))
    assert actions == [Dispatch(B, "fast", 1)]
    state, _ = after(state, Finished(wake.at + 3, B, Verdict.LOST))
    assert state.ended[1] is Verdict.LOST


def test_what_is_built_before_it_is_abandoned_is_built() -> None:
    state = restless(task(A, seconds=480.0), task(B, seconds=30.0))
    state, _ = after(state, Finished(70.0, A, Verdict.BUILT), Tick(100.0))
    assert core.is_moving(state, B)
    state, actions = after(state, Finished(100.5, B, Verdict.BUILT))
    assert actions == []
    assert state.done


def whole(state: State) -> None:
    """Every package is in one place, every node has one package, and what is drained is in no pool."""
    waiting = [place for _, place in state.ready]
    everything = [*waiting, *state.missing, *state.running, *state.ended]
    blocked = [place for place in state.missing if place in state.ended]
    assert sorted(everything) == sorted([*range(len(state.tasks)), *blocked])
    for name, host in state.hosts.items():
        nodes = [running.node for running in state.running.values() if running.host == name]
        assert sorted([*nodes, *state.rooms[name].nodes]) == sorted(host.nodes)
    assert all(running.host in state.hosts for running in state.running.values())
    idle = [name for pool in state.pools for name in pool.idle]
    assert sorted(idle) == sorted(host.name for host in state.usable if state.rooms[host.name].nodes)
    busy = [place for pool in state.pools for _, place in pool.busy]
    assert sorted(busy) == sorted(p for p, one in state.running.items() if one.host not in state.drained)
    assert all(state.losses is None or len(hosts) < state.losses for hosts in state.bereft.values())
    usable = {host.name for host in state.usable}
    assert not any(usable and usable <= names for names in state.shunned.values())


def happening(state: State, on: tuple[Host, ...], at: float, choice: int) -> Event:
    """One of all that might happen to a run, sensible or not."""
    host = on[choice // 7 % len(on)]
    cpv = state.tasks.all[choice // 7 % len(state.tasks)].cpv
    if state.running and choice % 7 > 3:
        cpv = state.tasks.all[sorted(state.running)[choice // 7 % len(state.running)]].cpv
        return Finished(at, cpv, (Verdict.BUILT, Verdict.LOST, Verdict.FAILED)[choice % 7 - 4])
    late = Finished(at, cpv, Verdict.BUILT) if state.tasks.places[cpv] not in state.running else Tick(at)
    left = Left(at, host.name, excused=choice % 3 == 0)
    return (Joined(at, host), left, (Drained, Resumed)[choice % 2](at, host.name), late)[choice % 4]


@settings(max_examples=60)
@given(
    graphs(),
    machines(),
    RULES,
    st.lists(st.integers(0, 10**6), max_size=40),
    st.booleans(),
    st.sampled_from([None, 1, 2, 3]),
)
def test_whatever_happens_to_hosts_no_package_is_lost_nor_at_two_places_and_all_end(
    some: list[Task], on: tuple[Host, ...], rule: Rule, choices: list[int], moves: bool, losses: int | None
) -> None:
    todo = tasks.of(some)
    state, actions = core.schedule(core.start(todo, on, ranked(rule, todo), 2, losses=losses, moves=moves), Tick(0.0))
    for at, choice in enumerate(choices, 1):
        before = state
        state, actions = core.schedule(state, happening(state, on, float(at), choice))
        whole(state)
        for action in actions:
            if isinstance(action, Dispatch):
                assert before.ended.get(todo.places[action.cpv]) is None
                assert state.running[todo.places[action.cpv]].host in {host.name for host in state.usable}
    at = float(len(choices))
    for event in [event for host in on for event in (Joined(at, host), Resumed(at, host.name))]:
        state, _ = core.schedule(state, event)
        whole(state)
    trace = simulation.run(state, simulation.expected(state), now=at)
    assert trace.state.done
    built = [stay.cpv for stay in trace.stays if stay.verdict is Verdict.BUILT]
    assert len(built) == len(set(built)) == len(todo) - len(state.ended)
