"""The plan as a networkx graph: what waits for what, and for how long."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from itertools import chain
from operator import or_
from typing import TYPE_CHECKING, Any

from cluster import lazy
from cluster.model import Cpv, Plan
from cluster.subset import Subset, Universe

if TYPE_CHECKING:
    import networkx as nx
else:
    nx = lazy.module("networkx")


def dependency_graph(plan: Plan) -> nx.DiGraph[Cpv]:
    """An edge from every requirement to its dependent; nodes in the plan's order.

    `requires` is a closure. An edge that a chain of others implies is left out, where the
    requirements' own requirements show it: that is every one when they are closures too.
    """
    graph: nx.DiGraph[Cpv] = nx.DiGraph()
    order = _order(plan)
    required = {package.cpv: order.bits(package.requires) for package in plan.packages}
    for package in plan.packages:
        graph.add_node(package.cpv)
        implied = reduce(or_, (required.get(cpv, 0) for cpv in package.requires), 0)
        direct = Subset(order, required[package.cpv] & ~implied)
        graph.add_edges_from((cpv, package.cpv) for cpv in direct)
    return graph


def _order(plan: Plan) -> Universe[Cpv]:
    """What the plan's requirements are of: their own order if they have one, else all that is named."""
    orders = {package.requires.universe if isinstance(package.requires, Subset) else None for package in plan.packages}
    if len(orders) == 1 and (order := orders.pop()) is not None:
        return order
    return Universe(dict.fromkeys(chain.from_iterable((*package.requires, package.cpv) for package in plan.packages)))


def longest_remaining(graph: nx.DiGraph[Cpv], seconds: Mapping[Cpv, float]) -> dict[Cpv, float]:
    """For each package the seconds of the longest path from its start to the end of the plan.

    Its own time counts. This is the critical-path rank of list scheduling (Graham 1969;
    "b-level" in Kwok and Ahmad, ACM Computing Surveys 31(4), 1999). A package without an
    estimate takes 0 s. Linear in nodes and edges.
    """
    rank: dict[Cpv, float] = {}
    for cpv in reversed(list(nx.topological_sort(graph))):
        after = max((rank[dependent] for dependent in graph.successors(cpv)), default=0.0)
        rank[cpv] = seconds.get(cpv, 0.0) + after
    return rank


def components(nodes: Iterable[Cpv], edges: Iterable[tuple[Cpv, Cpv]]) -> tuple[tuple[Cpv, ...], ...]:
    """The strongly connected components, the largest first, then by their first node; each in the nodes' order.

    Linear in nodes and edges, but for the sort.
    """
    graph: nx.DiGraph[Cpv] = nx.DiGraph()
    graph.add_nodes_from(nodes)
    place = {node: index for index, node in enumerate(graph)}
    graph.add_edges_from(edges)
    found = [sorted(members, key=place.__getitem__) for members in nx.strongly_connected_components(graph)]
    return tuple(map(tuple, sorted(found, key=lambda members: (-len(members), place[members[0]]))))


def graphml(nodes: Mapping[Cpv, Mapping[str, Any]], edges: Iterable[tuple[Cpv, Cpv, Mapping[str, Any]]]) -> str:
    """A GraphML document. The attributes are strings, numbers and booleans."""
    graph: nx.DiGraph[Cpv] = nx.DiGraph()
    graph.add_nodes_from((node, dict(attributes)) for node, attributes in nodes.items())
    graph.add_edges_from((start, end, dict(attributes)) for start, end, attributes in edges)
    return "\n".join(nx.generate_graphml(graph)) + "\n"


def smallest_cycle(edges: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """The nodes of a shortest cycle, in its direction, or () when there is none.

    The cycle starts with its alphabetically first node, and of several of one length the
    alphabetically first is returned, so that a message does not change from run to run.
    """
    graph: nx.DiGraph[str] = nx.DiGraph(sorted(edges))
    best: tuple[str, ...] = ()
    for component in nx.strongly_connected_components(graph):
        inside = graph.subgraph(component)
        for cycle in (_cycle_through(inside, node) for node in sorted(component)):
            if cycle and (not best or (len(cycle), cycle) < (len(best), best)):
                best = cycle
    return best


def _cycle_through(graph: nx.DiGraph[str], node: str) -> tuple[str, ...]:
    """A shortest cycle through `node`, found by breadth first from it, rotated to its first name."""
    before = {node: node}
    queue = [node]
    for here in queue:
        for after in sorted(graph.successors(here)):
            if after == node:
                return _rotated(_path(before, here))
            if after not in before:
                before[after] = here
                queue.append(after)
    return ()


def _path(before: Mapping[str, str], last: str) -> list[str]:
    path = [last]
    while before[path[-1]] != path[-1]:
        path.append(before[path[-1]])
    return path[::-1]


def _rotated(cycle: list[str]) -> tuple[str, ...]:
    first = cycle.index(min(cycle))
    return tuple(cycle[first:] + cycle[:first])
