"""Graphs of packages in other shapes than those of real data. Pure; the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from types import MappingProxyType

from cluster.master.schedule import tasks
from cluster.master.schedule.tasks import Task, Tasks
from cluster.model import Cpv

MEDIAN_S = 34.0
SIGMA = 1.15
"""Median, and standard deviation of the logarithm, of the seconds of a package: those of a bulk build of pkgsrc."""

_LAYERS = 14  # as @system has, drawn for the most to be built at once
_HUBS = 50  # one package of so many is needed by many
_NEAR = 0.3  # of all needs, those of a package that is near


def deep(packages: int, seed: int = 0) -> Tasks:
    """A few long chains, each package needing the one before it, seldom that of another chain."""
    chance = random.Random(f"deep {seed}")
    chains = max(packages // 40, 2)

    def needs(number: int) -> set[int]:
        before = {number - chains} if number >= chains else set()
        return before | ({chance.randrange(number)} if number and chance.random() < 0.1 else set())

    return _graph(packages, chance, needs)


def wide(packages: int, seed: int = 0) -> Tasks:
    """All packages need one of the first few and nothing else."""
    chance = random.Random(f"wide {seed}")
    roots = max(packages // 100, 1)
    return _graph(packages, chance, lambda number: {chance.randrange(roots)} if number >= roots else set())


def huge(packages: int, seed: int = 0) -> Tasks:
    """As `layered`, with one package in the middle that takes a tenth of all the work by itself."""
    made = layered(packages, seed)
    work = sum(task.seconds for task in made.all)
    middle = packages // 2
    return tasks.retimed(made, (work / 9 if place == middle else task.seconds for place, task in enumerate(made.all)))


def layered(packages: int, seed: int = 0, needs_each: int = 10) -> Tasks:
    """As a distribution: layers, a few hubs that most packages need, `needs_each` needs of each above the first."""
    chance = random.Random(f"layered {seed}")
    size = -(-packages // _LAYERS)

    def needs(number: int) -> set[int]:
        first = number // size * size  # of its own layer
        hubs = max(first // _HUBS, min(first, needs_each))
        found: set[int] = set()
        while len(found) < min(first, needs_each):
            near = chance.random() < _NEAR
            low, high = (max(first - size, 0), first) if near else (0, hubs)
            found.add(low + int((high - low) * chance.random()))
        return found

    return _graph(packages, chance, needs)


def _graph(packages: int, chance: random.Random, needs: Callable[[int], set[int]]) -> Tasks:
    """Packages of lognormal times; `needs` gives for each number what it needs, which has lower ones."""
    names = [Cpv(f"cat/p{number}-1") for number in range(packages)]
    return tasks.of(
        Task(name, MEDIAN_S * chance.lognormvariate(0, SIGMA), tuple(names[other] for other in sorted(needs(number))))
        for number, name in enumerate(names)
    )


SHAPES: Mapping[str, Callable[[int, int], Tasks]] = MappingProxyType(
    {"deep": deep, "wide": wide, "one huge package": huge, "layered": layered}
)
