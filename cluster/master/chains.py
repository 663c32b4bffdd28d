"""Why a plan has a package: the chains of dependencies from the request down to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cluster.model import Cpv, Dependency, Kind, Package, Plan


@dataclass(frozen=True, slots=True)
class Link:
    """A package in a chain, and how the one before asks for it."""

    cpv: Cpv
    kinds: tuple[Kind, ...]
    """None for the first, which the request names."""
    atoms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Parent:
    """A package that needs the one in question itself."""

    cpv: Cpv
    kinds: tuple[Kind, ...]
    atoms: tuple[str, ...]
    chain: int | None
    """How many links the shortest chain through it has; None if the plan has it for that package's sake only."""


@dataclass(frozen=True, slots=True)
class Why:
    """What pulls a package in."""

    cpv: Cpv
    planned: bool
    """Whether the plan builds it; the stage has it otherwise."""
    arguments: tuple[str, ...]
    """The arguments that name it."""
    parents: tuple[Parent, ...]
    """Every package that needs it, the one nearest to the request first."""
    chains: tuple[tuple[Link, ...], ...]
    """The shortest chain through each of the nearest parents, the shortest first."""


def why(plan: Plan, cpv: Cpv, limit: int) -> Why:
    """What pulls `cpv` into `plan`, with at most `limit` chains. Linear in packages and dependencies."""
    packages = {package.cpv: package for package in plan.packages}
    reached = _reach(packages, cpv)
    depth = _depths(reached)
    needs = [(package, need) for package in plan.packages for need in package.dependencies if need.cpv == cpv]
    parents = [_parent(package, need, depth) for package, need in needs if package.cpv != cpv]
    parents.sort(key=lambda parent: (parent.chain is None, parent.chain or 0))
    asked = packages[cpv].arguments if cpv in packages else ()
    own = [(_first(packages[cpv]),)] if cpv in packages and packages[cpv].requested else []
    found = (
        (*_down(reached, parent.cpv), Link(cpv, parent.kinds, parent.atoms))
        for parent in parents[:limit]
        if parent.chain is not None
    )
    return Why(cpv, cpv in packages, asked, tuple(parents), (*own, *found)[:limit])


@dataclass(frozen=True, slots=True)
class _Reached:
    """How a search from the request came to a package: from which, and by what."""

    above: Cpv | None
    link: Link


def _reach(packages: Mapping[Cpv, Package], stop: Cpv) -> dict[Cpv, _Reached]:
    """Every package with the step by which it is first reached from the request, breadth first.

    Nothing is reached through `stop`: a chain would pass it twice.
    """
    found = {package.cpv: _Reached(None, _first(package)) for package in packages.values() if package.requested}
    queue = list(found)
    for here in queue:
        if here == stop:
            continue
        for need in packages[here].dependencies:
            if need.cpv in packages and need.cpv not in found:
                found[need.cpv] = _Reached(here, Link(need.cpv, need.kinds, need.atoms))
                queue.append(need.cpv)
    return found


def _first(package: Package) -> Link:
    return Link(package.cpv, (), package.arguments)


def _depths(reached: Mapping[Cpv, _Reached]) -> dict[Cpv, int]:
    """How many links lead to each package, itself counted."""
    depth: dict[Cpv, int] = {}
    for cpv, step in reached.items():  # breadth first: the one above comes before
        depth[cpv] = 1 if step.above is None else depth[step.above] + 1
    return depth


def _parent(package: Package, need: Dependency, depth: Mapping[Cpv, int]) -> Parent:
    above = depth.get(package.cpv)
    return Parent(package.cpv, need.kinds, need.atoms, None if above is None else above + 1)


def _down(reached: Mapping[Cpv, _Reached], cpv: Cpv) -> tuple[Link, ...]:
    return tuple(reversed(list(_up(reached, cpv))))


def _up(reached: Mapping[Cpv, _Reached], cpv: Cpv) -> Iterator[Link]:
    here: Cpv | None = cpv
    while here is not None:
        yield reached[here].link
        here = reached[here].above
