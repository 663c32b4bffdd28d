"""What a change of a package would rebuild, and for how long."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cluster.master.estimate import Basis, Estimate, forecast
from cluster.master.history import Build
from cluster.master.shape import longest_chain
from cluster.model import Cpv, Kind, Package, Plan


@dataclass(frozen=True, slots=True)
class Rebuild:
    """A package to build anew."""

    cpv: Cpv
    estimate: Estimate
    direct: bool
    """Whether its build has the changed package in its node; else only one that is itself rebuilt."""


@dataclass(frozen=True, slots=True)
class Impact:
    """What follows from a change of `cpv`."""

    cpv: Cpv
    planned: bool
    """Whether the plan builds it; the stage has it otherwise."""
    rebuilds: tuple[Rebuild, ...]
    """The dearest first; the package itself among them if the plan builds it."""
    critical_path: tuple[Rebuild, ...]
    """The chain of these builds, each in need of the one before, that takes longest."""
    packages: int
    """How many the plan has."""

    @property
    def work_s(self) -> float:
        """Seconds of all rebuilds together."""
        return sum(rebuild.estimate.seconds for rebuild in self.rebuilds)

    @property
    def critical_s(self) -> float:
        """Seconds of the critical path."""
        return sum(rebuild.estimate.seconds for rebuild in self.critical_path)

    @property
    def unknown(self) -> tuple[Rebuild, ...]:
        """The rebuilds whose time is assumed."""
        return tuple(rebuild for rebuild in self.rebuilds if rebuild.estimate.basis is Basis.ASSUMED)


def impact(plan: Plan, cpv: Cpv, past: Iterable[Build]) -> Impact:
    """What a change of `cpv`, which the plan builds or the stage has, would rebuild.

    That is every package with it in the node of its build, and then every one with one of those.
    Linear in packages, dependencies and `requires`.
    """
    direct = _direct(plan, cpv)
    changed: dict[Cpv, Package] = {}
    for package in plan.packages:  # each comes after what it requires
        if package.cpv == cpv or package.cpv in direct or not changed.keys().isdisjoint(package.requires):
            changed[package.cpv] = package
    expected = forecast({package.cpv: package.source_bytes for package in plan.packages}, past)
    rebuilds = {name: Rebuild(name, expected[name], name in direct) for name in changed}
    chain = longest_chain(changed.values(), {name: rebuild.estimate.seconds for name, rebuild in rebuilds.items()})
    return Impact(
        cpv,
        any(package.cpv == cpv for package in plan.packages),
        tuple(sorted(rebuilds.values(), key=lambda rebuild: (-rebuild.estimate.seconds, rebuild.cpv))),
        tuple(rebuilds[name] for name in chain),
        len(plan.packages),
    )


def _direct(plan: Plan, cpv: Cpv) -> frozenset[Cpv]:
    """The packages with `cpv` in the node of their build.

    `requires` says so of what the plan builds. Of what the stage has the dependencies do: the build's
    own, and those to run of what is put into the node.
    """
    if any(package.cpv == cpv for package in plan.packages):
        return frozenset(package.cpv for package in plan.packages if cpv in package.requires)
    bring = frozenset(
        package.cpv
        for package in plan.packages
        if any(need.cpv == cpv and need.kinds != (Kind.BUILD,) for need in package.dependencies)
    )
    return frozenset(
        package.cpv
        for package in plan.packages
        if any(need.cpv == cpv and Kind.BUILD in need.kinds for need in package.dependencies)
        or not bring.isdisjoint(package.requires)
    )
