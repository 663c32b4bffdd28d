"""What other builders do, each by what is its own."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduling import FAST_AND_SLOW, A, B, C, D, graphs, machines, run, task

from cluster.master.schedule import core, peers, tasks
from cluster.master.schedule.events import Dispatch, Finished, Tick
from cluster.master.schedule.hosts import Host
from cluster.master.schedule.peers import PEERS
from cluster.master.schedule.state import Rule, State, ranked
from cluster.master.schedule.tasks import Task, Tasks
from cluster.model import Cpv, Verdict

NAMES = ["dpb", "hydra", "poudriere", "portage", "random"]


def begin(name: str, *some: Task, on: Iterable[Host]) -> tuple[State, list[tuple[Cpv, str]]]:
    """The state after the first decision, and what was started where."""
    todo = tasks.of(some)
    state, actions = core.schedule(core.start(todo, on, ranked(PEERS[name], todo), 3), Tick(0.0))
    return state, [(action.cpv, action.node) for action in actions if isinstance(action, Dispatch)]


def started(name: str, *some: Task, on: Iterable[Host]) -> list[tuple[Cpv, str]]:
    return begin(name, *some, on=on)[1]


def order(name: str, *some: Task) -> list[Cpv]:
    """In which one node gets them."""
    todo = tasks.of(some)
    trace = run(core.start(todo, [Host("here", ("here",))], ranked(PEERS[name], todo), 1))
    return [stay.cpv for stay in trace.stays]


def test_names_are_the_builders() -> None:
    assert list(PEERS) == NAMES
    assert [rule.name for rule in PEERS.values()] == NAMES


def test_dpb_goes_by_the_time_of_all_that_needs_a_package_not_of_one_chain() -> None:
    many = [task(f"cat/leaf{number}-1", A, seconds=10.0) for number in range(4)]
    chain = [task(B, seconds=5.0), task(C, B, seconds=30.0)]
    assert order("dpb", *chain, task(A, seconds=5.0), *many)[0] == A


def after(todo: Tasks, place: int) -> set[int]:
    """`place` and all that needs it, walked."""
    return {place}.union(*(after(todo, dependent) for dependent in todo.dependents[place]))


@settings(max_examples=30)
@given(graphs(), st.integers(1, 5))
def test_dpb_counts_every_dependent_once(some: list[Task], columns: int) -> None:
    todo = tasks.of(some)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peers, "_COLUMNS", columns)
        weights = PEERS["dpb"].priorities(todo)
    for place, weight in enumerate(weights):
        seconds = sum(todo.all[other].seconds for other in after(todo, place))
        assert weight == pytest.approx(seconds, abs=100.0 * len(todo) / 2**20)


def test_dpb_keeps_large_builds_from_slow_nodes() -> None:
    """Without A 32 s are ready, of which the slow node, with a fifth of the speed, has the bin that holds 6.4."""
    some = [task(A, seconds=4000.0), task(B, seconds=24.0), task(C, seconds=8.0)]
    assert started("dpb", *some, on=FAST_AND_SLOW) == [(A, "fast"), (C, "slow")]


def test_dpb_gives_a_slow_node_the_largest_that_it_may_have() -> None:
    """Of 116 s it may have 23.2, which the first bin does not hold but the second does: there B weighs more than C."""
    small = [task(B, seconds=20.0), task(C, seconds=17.0), task(D, seconds=1.0)]
    some = [task(A, seconds=4000.0), task("cat/e-1", seconds=78.0), *small]
    assert started("dpb", *some, on=FAST_AND_SLOW) == [(A, "fast"), (B, "slow")]


def test_dpb_gives_a_slow_node_what_is_large_if_there_is_nothing_else() -> None:
    large = [task(A, seconds=4000.0), task(B, seconds=3000.0)]
    assert started("dpb", *large, on=FAST_AND_SLOW) == [(A, "fast"), (B, "slow")]


def test_dpb_gives_a_node_that_is_not_a_speed_factor_slower_all_it_wants() -> None:
    near = (Host("fast", ("fast",), 1.5), Host("slow", ("slow",), 1.0))
    some = [task(A, seconds=4000.0), task(B, seconds=3000.0), task(C, seconds=8.0)]
    assert started("dpb", *some, on=near) == [(A, "fast"), (B, "slow")]


def test_hydra_goes_by_the_number_of_packages_that_need_one_directly() -> None:
    chain = [task(A), task(B, A), task("cat/x-1", B), task("cat/y-1", "cat/x-1")]
    assert order("hydra", *chain, task(C), task("cat/v-1", C), task("cat/w-1", C), task(D))[0] == C
    assert order("hydra", task(D), task(C))[0] == D


def test_hydra_takes_the_machine_with_the_least_load_for_its_speed() -> None:
    on = (Host("fast", ("f1", "f2", "f3"), 2.0), Host("slow", ("s1", "s2", "s3"), 1.0))
    found = started("hydra", *(task(f"cat/p{number}-1") for number in range(5)), on=on)
    # loads before each: 0 0, then 1/2 and so 1 beside 0, then 1 1 of which the faster, 1 1 again as 2/2, then 3/2
    assert [node for _, node in found] == ["f1", "s1", "f2", "f3", "s2"]


def test_hydra_takes_a_slow_machine_rather_than_wait() -> None:
    found = started("hydra", task(A, seconds=40.0), task(B, seconds=39.0), on=FAST_AND_SLOW)
    assert found == [(A, "fast"), (B, "slow")]


def test_poudriere_goes_by_the_number_of_packages_that_must_follow_not_by_their_time() -> None:
    long = [task(A, seconds=900.0), task(B, A, seconds=900.0)]
    assert order("poudriere", *long, task(C, seconds=1.0), task(D, C, seconds=1.0), task("cat/e-1", D))[0] == C


def test_portage_goes_by_the_merge_list() -> None:
    listed = [task(C), task(D, C, seconds=900.0), task(A), task(B)]
    assert order("portage", *listed) == [C, D, A, B]
    two = (Host("here", ("1", "2", "3")),)
    assert [cpv for cpv, _ in started("portage", *listed, on=two)] == [C, A, B]


@pytest.mark.parametrize("name", ["poudriere", "portage", "random"])
def test_who_knows_of_one_machine_takes_any_node(name: str) -> None:
    """Sixty hosts in turn, of which a third are fast: about as many of the first packages are on fast ones."""
    on = [Host(f"h{number}", (f"h{number}",), 4.0 if number % 3 else 1.0) for number in range(60)]
    found = started(name, *(task(f"cat/p{number}-1") for number in range(30)), on=on)
    fast = sum(int(node[1:]) % 3 > 0 for _, node in found)
    assert 10 <= fast <= 28
    assert found == started(name, *(task(f"cat/p{number}-1") for number in range(30)), on=on)


def test_a_lost_package_may_find_itself_on_another_node() -> None:
    on = [Host(f"h{number}", (f"h{number}",)) for number in range(9)]
    state, [(_, first)] = begin("portage", task(A), on=on)
    _, actions = core.schedule(state, Finished(1.0, A, Verdict.LOST))
    assert [action.node for action in actions if isinstance(action, Dispatch)] != [first]


def test_random_is_the_same_for_the_same_graph_and_no_list() -> None:
    some = [task(f"cat/p{number}-1") for number in range(20)]
    assert order("random", *some) == order("random", *some)
    assert order("random", *some) != [one.cpv for one in some]


@settings(max_examples=30)
@given(graphs(), machines(), st.sampled_from(list(PEERS.values())))
def test_all_of_them_end_what_they_begin(some: list[Task], on: tuple[Host, ...], rule: Rule) -> None:
    todo = tasks.of(some)
    trace = run(core.start(todo, on, ranked(rule, todo), 1))
    assert trace.state.done
    assert len(trace.stays) == len(some)
