"""What a plan's packages are expected to take of time, memory and disk: its tasks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from cluster.master import graph
from cluster.master.estimate import Estimate, forecast
from cluster.master.history import Build
from cluster.master.schedule import tasks
from cluster.model import Cpv, Package, Plan


@dataclass(frozen=True, slots=True)
class Node:
    """What the node of a package takes of its host where nothing is known of the package."""

    memory_mib: float = 0.0
    disk_mib: float = 0.0
    disk_is_memory: bool = False
    """Whether what a node writes takes memory of the host, because it goes to a tmpfs."""


def estimates(plan: Plan, builds: Iterable[Build]) -> dict[Cpv, Estimate]:
    """An estimate for every package of `plan`; `builds` are those of its target."""
    return forecast({package.cpv: package.source_bytes for package in plan.packages}, builds)


def tasks_of(
    plan: Plan,
    expected: Mapping[Cpv, Estimate],
    node: Node | None = None,
    *,
    apart: Iterable[Collection[str]] = (),
    urgent: Collection[Cpv] = (),
) -> tasks.Tasks:
    """What `plan` builds. Of each of `apart`, groups of CATEGORY/NAME, a host has one package at a time."""
    built = replace(plan, packages=plan.to_build)
    needs = graph.dependency_graph(built)
    groups = {name: str(number) for number, names in enumerate(apart, 1) for name in names}
    return tasks.of(
        _task(package, expected[package.cpv], tuple(needs.predecessors(package.cpv)), node or Node(), groups, urgent)
        for package in built.packages
    )


def _task(
    package: Package,
    estimate: Estimate,
    needs: tuple[Cpv, ...],
    node: Node,
    groups: Mapping[str, str],
    urgent: Collection[Cpv],
) -> tasks.Task:
    memory = node.memory_mib if estimate.memory_mib is None else estimate.memory_mib
    disk = node.disk_mib if estimate.disk_mib is None else estimate.disk_mib
    return tasks.Task(
        package.cpv,
        estimate.seconds,
        needs,
        memory_mib=memory + disk * node.disk_is_memory,
        disk_mib=disk,
        parallelism=estimate.parallelism,
        apart=groups.get(package.name, ""),
        urgent=package.cpv in urgent,
    )
