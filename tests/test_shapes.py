"""Generated graphs."""

from __future__ import annotations

import pytest

from cluster.bench import shapes
from cluster.master.schedule.tasks import longest

MAKERS = pytest.mark.parametrize("name", shapes.SHAPES)


@MAKERS
def test_a_shape_has_so_many_packages_that_take_some_time(name: str) -> None:
    made = shapes.SHAPES[name](200, 0)
    assert len(made) == 200
    assert all(task.seconds > 0 for task in made.all)


@MAKERS
def test_the_same_seed_gives_the_same_graph_and_another_does_not(name: str) -> None:
    make = shapes.SHAPES[name]
    assert make(100, 1).all == make(100, 1).all
    assert make(100, 1).all != make(100, 2).all


def test_each_shape_is_what_it_is_called() -> None:
    hops = {name: max(longest(make(400, 0), lambda task: 1.0)) for name, make in shapes.SHAPES.items()}
    assert hops["deep"] >= 40
    assert hops["wide"] == 2
    assert hops["layered"] == hops["one huge package"] == 14
    huge = shapes.huge(400)
    work = sum(task.seconds for task in huge.all)
    assert max(task.seconds for task in huge.all) == pytest.approx(work / 10, rel=0.01)


def test_a_package_above_the_first_layer_has_so_many_needs() -> None:
    made = shapes.layered(1400, needs_each=10)
    assert {len(needs) for needs in made.needs[:100]} == {0}
    assert {len(needs) for needs in made.needs[100:]} == {10}
    assert made.places[made.all[5].cpv] == 5
