"""Closures as bits, against closures as sets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from cluster.master.resolver import _closures
from cluster.subset import Subset, Universe

GRAPHS = some.integers(1, 9).flatmap(
    lambda size: some.lists(some.lists(some.integers(0, size - 1), max_size=3), min_size=size, max_size=size)
)


def reached(children: list[list[int]], start: int) -> set[int]:
    found: set[int] = set()
    stack = [start]
    while stack:
        place = stack.pop()
        if place not in found:
            found.add(place)
            stack += children[place]
    return found


@given(GRAPHS)
def test_a_closure_is_all_that_can_be_reached_also_in_circles(children: list[list[int]]) -> None:
    order = Universe(range(len(children)))
    found = [set(Subset(order, bits)) for bits in _closures(children)]
    assert found == [reached(children, start) for start in range(len(children))]


@given(some.sets(some.integers(0, 99)))
def test_a_subset_is_a_sequence_in_the_orders_order(chosen: set[int]) -> None:
    order = Universe(range(99, -1, -1))
    subset = Subset(order, order.bits(chosen))
    expected = tuple(sorted(chosen, reverse=True))
    assert (tuple(subset), len(subset), subset) == (expected, len(expected), expected)
    assert hash(subset) == hash(expected)
    assert all((item in subset) == (item in chosen) for item in range(-1, 101))
    assert subset == Subset(Universe(range(99, -1, -1)), subset.bits)
    assert order.bits(subset) == subset.bits
    assert order.bits(expected) == subset.bits
    assert subset != [*expected]
    assert subset[:2] == expected[:2]


def test_what_is_not_in_the_order_is_no_subset() -> None:
    with pytest.raises(KeyError):
        Universe("ab").bits("c")
