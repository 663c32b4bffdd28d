"""Bound, optimum and what rules come to, in this order: over random graphs, and where lists are known to go wrong."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import chosen, ends, optimum
from scheduling import FAST_AND_SLOW, OURS, RULES, A, B, C, task

from cluster.master.schedule import bound, tasks
from cluster.master.schedule.hosts import Host
from cluster.master.schedule.peers import PEERS
from cluster.master.schedule.state import Rule, ranked
from cluster.master.schedule.tasks import Task, Tasks
from cluster.model import Cpv

_MORE = 1 + 1e-9  # sums of floats, in another order


def nodes(*speeds: float) -> tuple[Host, ...]:
    return tuple(Host(f"h{number}", (f"h{number}",), speed) for number, speed in enumerate(speeds))


@st.composite
def small(draw: st.DrawFn, most: int = 6) -> Tasks:
    names = [Cpv(f"cat/p{number}-1") for number in range(draw(st.integers(1, most)))]
    return tasks.of(
        Task(
            cpv,
            float(draw(st.integers(1, 20))),
            tuple(draw(st.sets(st.sampled_from(names[:number]), max_size=3))) if number else (),
        )
        for number, cpv in enumerate(names)
    )


FEW = st.lists(st.sampled_from([1.0, 2.0, 4.0]), min_size=1, max_size=3).map(lambda speeds: nodes(*speeds))


def tried_all(todo: Tasks, hosts: Iterable[Host]) -> float:
    """The optimum, from every order and every choice of nodes, with nothing left out."""
    speeds = [host.speed for host in hosts for _ in host.nodes]
    best = float("inf")
    for order in permutations(range(len(todo))):
        if any(need in order[order.index(place) :] for place in order for need in todo.needs[place]):
            continue
        for where in product(range(len(speeds)), repeat=len(todo)):
            free, end = [0.0] * len(speeds), [0.0] * len(todo)
            for place, node in zip(order, where, strict=True):
                start = max(free[node], *(end[need] for need in todo.needs[place]), 0.0)
                free[node] = end[place] = start + todo.all[place].seconds / speeds[node]
            best = min(best, max(end))
    return best


@settings(max_examples=30)
@given(small(4), FEW)
def test_the_search_leaves_out_nothing_that_is_shorter(todo: Tasks, hosts: tuple[Host, ...]) -> None:
    assert optimum(todo, hosts) == pytest.approx(tried_all(todo, hosts))


@settings(max_examples=30)
@given(small(), FEW, RULES)
def test_no_rule_beats_the_optimum_and_the_optimum_not_the_bound(
    todo: Tasks, hosts: tuple[Host, ...], rule: Rule
) -> None:
    found = ends(todo, hosts, ranked(rule, todo))
    best = optimum(todo, hosts, found * _MORE)
    assert bound.lower(todo, hosts) <= best * _MORE
    assert best <= found * _MORE


def least_idle(hosts: Iterable[Host]) -> float:
    """How many times the optimum a schedule is at most that leaves no node idle beside a package that could start.

    Of its time either all nodes work, or some do, and then one of them at the longest chain, as its next package
    would start otherwise. So with speeds s of sum S its time is at most work/S + t(1 - min s/S), where in t only some
    work, and t is at most chain/min s. Neither work/S nor chain/max s is more than the optimum. For equal nodes this is
    Graham's 2 - 1/m (SIAM J. Appl. Math. 17(2), 1969).
    """
    speeds = [host.speed for host in hosts for _ in host.nodes]
    return 1 + max(speeds) / min(speeds) - max(speeds) / sum(speeds)


@settings(max_examples=30)
@given(small(), FEW, st.sampled_from(list(PEERS.values())))
def test_what_leaves_no_node_idle_is_within_its_bound(todo: Tasks, hosts: tuple[Host, ...], rule: Rule) -> None:
    found = ends(todo, hosts, ranked(rule, todo))
    assert found <= optimum(todo, hosts, found * _MORE) * least_idle(hosts) * _MORE


@settings(max_examples=30)
@given(small(), st.integers(1, 3).map(lambda count: nodes(*[1.0] * count)), st.sampled_from([OURS, *PEERS.values()]))
def test_on_equal_nodes_every_rule_is_within_grahams_bound(todo: Tasks, hosts: tuple[Host, ...], rule: Rule) -> None:
    found = ends(todo, hosts, ranked(rule, todo))
    assert found <= optimum(todo, hosts, found * _MORE) * (2 - 1 / len(hosts)) * _MORE


@settings(max_examples=30)
@given(small(), FEW)
def test_what_looking_ahead_chooses_is_within_that_bound_too(todo: Tasks, hosts: tuple[Host, ...]) -> None:
    found = chosen(todo, hosts)
    assert found <= optimum(todo, hosts, found * _MORE) * least_idle(hosts) * _MORE


def anomalous(
    times: tuple[float, ...] = (3, 2, 2, 2, 4, 4, 4, 4, 9), after_fourth: tuple[int, ...] = (5, 6, 7, 8)
) -> Tasks:
    """Graham's nine packages: the ninth needs the first, and some the fourth."""
    needs = {9: 1, **dict.fromkeys(after_fourth, 4)}
    return tasks.of(
        task(f"cat/t{number}-1", *([f"cat/t{needs[number]}-1"] if number in needs else []), seconds=seconds)
        for number, seconds in enumerate(times, 1)
    )


SHORTER = anomalous((2.1, 1, 1, 1, 3, 3, 3, 3, 8))
FEWER = anomalous(after_fourth=(7, 8))


@pytest.mark.parametrize(
    ("todo", "count", "listed", "best"),
    [(anomalous(), 3, 12, 12), (anomalous(), 4, 15, 12), (SHORTER, 3, 13, 10.1), (FEWER, 3, 16, 12)],
    ids=["as it is", "one node more", "shorter packages", "fewer needs"],
)
def test_a_list_takes_longer_with_more_nodes_shorter_packages_or_fewer_needs(
    todo: Tasks, count: int, listed: float, best: float
) -> None:
    """Graham, Bell System Technical Journal 45(9), 1966; looking ahead finds the optimum of each."""
    hosts = nodes(*[1.0] * count)
    assert ends(todo, hosts, ranked(PEERS["portage"], todo)) == listed
    assert optimum(todo, hosts, listed) == best
    assert chosen(todo, hosts) == best


def test_waiting_for_a_busy_fast_node_is_among_what_is_tried() -> None:
    todo = tasks.of([task(A, seconds=40.0), task(B, seconds=39.0)])
    assert optimum(todo, FAST_AND_SLOW) == 19.75
    assert ends(todo, FAST_AND_SLOW, ranked(PEERS["hydra"], todo)) == 39.0


def test_and_on_one_node_all_orders_are_as_good() -> None:
    todo = tasks.of([task(A, seconds=1.0), task(B, A, seconds=2.0), task(C, seconds=4.0)])
    assert optimum(todo, nodes(2.0)) == 3.5
