"""The shape of a plan: levels, circles, the critical path, and what can be built at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cluster.master.estimate import Estimate, forecast
from cluster.master.graph import components
from cluster.master.history import Build
from cluster.model import Cpv, Kind, Package, Plan


@dataclass(frozen=True, slots=True)
class Vertex:
    """A package of the plan, and where it stands in it."""

    package: Package
    level: int
    """How many builds must follow each other before its own, at least."""
    component: int
    """Counts from 1, the largest first. Packages with the same number need each other, in whatever way."""
    circular: bool
    """Whether another package has the same component."""
    estimate: Estimate
    critical: bool
    """Whether it is on the critical path."""


@dataclass(frozen=True, slots=True)
class Edge:
    """That one package of the plan needs another."""

    package: Cpv
    needs: Cpv
    kinds: tuple[Kind, ...]
    atoms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """A plan as a graph. Packages of the stage are not in it."""

    target: str
    vertices: tuple[Vertex, ...]
    """In the plan's order."""
    edges: tuple[Edge, ...]
    circles: tuple[tuple[Cpv, ...], ...]
    """The components of more than one package, the largest first."""
    critical_path: tuple[Cpv, ...]
    """The chain of builds, each in need of the one before, that takes longest."""

    def seconds(self, cpvs: Iterable[Cpv]) -> float:
        """The estimates of `cpvs` together."""
        wanted = frozenset(cpvs)
        return sum(vertex.estimate.seconds for vertex in self.vertices if vertex.package.cpv in wanted)

    @property
    def levels(self) -> tuple[int, ...]:
        """The number of packages on each level."""
        count = Counter(vertex.level for vertex in self.vertices)
        return tuple(count[level] for level in range(len(count)))

    @property
    def work_s(self) -> float:
        """Seconds of all builds together."""
        return sum(vertex.estimate.seconds for vertex in self.vertices)

    @property
    def left_s(self) -> float:
        """Seconds of the builds that the binhost does not spare."""
        return sum(vertex.estimate.seconds for vertex in self.vertices if vertex.package.action.builds)

    @property
    def critical_s(self) -> float:
        """Seconds of the critical path: no number of nodes is faster."""
        return self.seconds(self.critical_path)

    @property
    def parallelism(self) -> float:
        """Work over critical path: with more nodes than this on average some are idle."""
        return self.work_s / self.critical_s if self.critical_s else 1.0


def shape(plan: Plan, past: Iterable[Build]) -> Shape:
    """The shape of `plan`, its times estimated from `past`. Linear in packages, dependencies and `requires`."""
    expected = forecast({package.cpv: package.source_bytes for package in plan.packages}, past)
    edges = _edges(plan)
    numbers, circles = _components(plan, edges)
    level = levels(plan)
    critical = longest_chain(plan.packages, {cpv: estimate.seconds for cpv, estimate in expected.items()})
    on_path = frozenset(critical)
    circular = frozenset(cpv for circle in circles for cpv in circle)
    vertices = tuple(
        Vertex(
            package,
            level[package.cpv],
            numbers[package.cpv],
            package.cpv in circular,
            expected[package.cpv],
            package.cpv in on_path,
        )
        for package in plan.packages
    )
    return Shape(plan.target, vertices, edges, circles, critical)


def _edges(plan: Plan) -> tuple[Edge, ...]:
    planned = frozenset(package.cpv for package in plan.packages)
    return tuple(
        Edge(package.cpv, need.cpv, need.kinds, need.atoms)
        for package in plan.packages
        for need in package.dependencies
        if need.cpv in planned and need.cpv != package.cpv
    )


def _components(plan: Plan, edges: Iterable[Edge]) -> tuple[dict[Cpv, int], tuple[tuple[Cpv, ...], ...]]:
    found = components((package.cpv for package in plan.packages), ((edge.package, edge.needs) for edge in edges))
    numbers = {cpv: number for number, members in enumerate(found, 1) for cpv in members}
    return numbers, tuple(members for members in found if len(members) > 1)


def levels(plan: Plan) -> dict[Cpv, int]:
    """For each package how many builds must follow each other before its own, at least."""
    level: dict[Cpv, int] = {}
    for package in plan.packages:
        level[package.cpv] = max((level[cpv] + 1 for cpv in package.requires if cpv in level), default=0)
    return level


def longest_chain(packages: Iterable[Package], seconds: Mapping[Cpv, float]) -> tuple[Cpv, ...]:
    """Of the chains of packages in which each requires the one before, the one that takes longest.

    `packages` come in the plan's order; what they require of others is left out. Of equals the first.
    """
    ends: dict[Cpv, float] = {}
    before: dict[Cpv, Cpv | None] = {}
    for package in packages:
        last = max((cpv for cpv in package.requires if cpv in ends), key=ends.__getitem__, default=None)
        before[package.cpv] = last
        ends[package.cpv] = seconds[package.cpv] + (ends[last] if last else 0.0)
    chain = []
    here = max(ends, key=ends.__getitem__, default=None)
    while here is not None:
        chain.append(here)
        here = before[here]
    return tuple(reversed(chain))
