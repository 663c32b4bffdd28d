"""The plan as a graph."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import pytest

from cluster.master.graph import components, dependency_graph, longest_remaining, smallest_cycle
from cluster.model import Cpv, Package, Plan

CHAIN = {"c/zlib-1": (), "c/png-1": ("c/zlib-1",), "c/crush-1": ("c/zlib-1", "c/png-1"), "c/sed-1": ()}


def plan(requires: dict[str, tuple[str, ...]]) -> Plan:
    packages = tuple(
        Package(Cpv(cpv), "0", (), (), "test", Path("x.ebuild"), tuple(map(Cpv, needed)), ())
        for cpv, needed in requires.items()
    )
    return Plan("arm64", "aarch64-linux-gnu", packages, (), Path("profile"))


def test_edges_run_from_a_requirement_to_its_dependent_and_implied_ones_are_left_out() -> None:
    graph = dependency_graph(plan(CHAIN))
    assert list(graph) == list(CHAIN)
    assert set(graph.edges) == {("c/zlib-1", "c/png-1"), ("c/png-1", "c/crush-1")}


def test_leaving_edges_out_keeps_what_reaches_what() -> None:
    # A closure that is not transitive: d needs b for its build, and b's own build needed a.
    requires = {"c/a-1": (), "c/b-1": ("c/a-1",), "c/d-1": ("c/b-1",), "c/e-1": ("c/a-1", "c/d-1")}
    graph = dependency_graph(plan(requires))
    for cpv, needed in requires.items():
        assert set(needed) <= nx.ancestors(graph, Cpv(cpv))


def test_the_longest_remaining_path_counts_the_package_itself() -> None:
    seconds = {Cpv("c/zlib-1"): 1.0, Cpv("c/png-1"): 20.0, Cpv("c/crush-1"): 300.0, Cpv("c/sed-1"): 5.0}
    rank = longest_remaining(dependency_graph(plan(CHAIN)), seconds)
    assert rank == {"c/zlib-1": 321.0, "c/png-1": 320.0, "c/crush-1": 300.0, "c/sed-1": 5.0}


def test_a_package_without_an_estimate_takes_no_time() -> None:
    assert longest_remaining(dependency_graph(plan(CHAIN)), {})[Cpv("c/zlib-1")] == 0.0


def test_a_chain_may_be_longer_than_the_stack() -> None:
    chain = {"c/p-0": (), **{f"c/p-{n}": (f"c/p-{n - 1}",) for n in range(1, 5_000)}}
    graph = dependency_graph(plan(chain))
    rank = longest_remaining(graph, dict.fromkeys(graph, 1.0))
    assert rank[Cpv("c/p-0")] == 5_000


@pytest.mark.parametrize(
    ("edges", "cycle"),
    [
        ([], ()),
        ([("a", "b"), ("b", "c")], ()),
        ([("a", "a")], ("a",)),
        ([("c", "a"), ("a", "b"), ("b", "c")], ("a", "b", "c")),
        ([("a", "b"), ("b", "c"), ("c", "a"), ("c", "b")], ("b", "c")),
        ([("x", "y"), ("y", "x"), ("a", "b"), ("b", "a")], ("a", "b")),
    ],
)
def test_the_smallest_cycle(edges: list[tuple[str, str]], cycle: tuple[str, ...]) -> None:
    assert smallest_cycle(edges) == cycle


def test_components_come_largest_first_and_in_the_nodes_order() -> None:
    nodes = [Cpv(name) for name in "edcba"]
    edges = [(Cpv("a"), Cpv("b")), (Cpv("b"), Cpv("a")), (Cpv("c"), Cpv("d"))]
    assert components(nodes, edges) == (("b", "a"), ("e",), ("d",), ("c",))
