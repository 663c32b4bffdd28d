"""What is to be done: packages with what they need and what they are expected to take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cluster.errors import InputError
from cluster.model import Cpv


@dataclass(frozen=True, slots=True)
class Task:
    """One package, and what its build is expected to take."""

    cpv: Cpv
    seconds: float
    """On a node of speed 1."""
    needs: tuple[Cpv, ...] = ()
    memory_mib: float = 0.0
    disk_mib: float = 0.0
    parallelism: float | None = None
    """How many processors it keeps busy; None where that is not known."""
    apart: str = ""
    """Of packages with the same word here a host has one at a time; "" for no such word."""
    urgent: bool = False
    """Whether it goes before all that is not, with all that it needs."""


@dataclass(frozen=True, slots=True, eq=False)
class Tasks:
    """All packages of a run. Inside a schedule a package is its place in `all`.

    Equal to itself alone, so that what was computed of it can be remembered.
    """

    all: tuple[Task, ...]
    places: Mapping[Cpv, int]
    needs: tuple[tuple[int, ...], ...]
    """What each needs of this run."""
    dependents: tuple[tuple[int, ...], ...]
    order: tuple[int, ...]
    """Every package after what it needs."""

    apart: bool
    """Whether some of them share no host with their like."""

    def __len__(self) -> int:
        return len(self.all)


def of(tasks: Iterable[Task]) -> Tasks:
    """The graph of `tasks`; what they need and is not among them is there already.

    Raises InputError where packages need each other in a circle. Linear in packages and needs.
    """
    every = tuple(tasks)
    places = {task.cpv: place for place, task in enumerate(every)}
    needs = tuple(tuple(sorted({places[cpv] for cpv in task.needs if cpv in places})) for task in every)
    dependents: list[list[int]] = [[] for _ in every]
    for place, needed in enumerate(needs):
        for need in needed:
            dependents[need].append(place)
    order = _order(needs, dependents)
    if len(order) < len(every):
        stuck = set(range(len(every))).difference(order)
        raise InputError(f"packages need each other in a circle: {' -> '.join(_circle(every, needs, stuck))}", "cut it")
    urgent = _with_needs(needs, (place for place, task in enumerate(every) if task.urgent))
    every = tuple(_urged(task) if place in urgent else task for place, task in enumerate(every))
    apart = any(task.apart for task in every)
    return Tasks(every, places, needs, tuple(map(tuple, dependents)), tuple(order), apart)


def _order(needs: Sequence[Sequence[int]], dependents: Sequence[Sequence[int]]) -> list[int]:
    """The packages that are in no circle and after none, topologically (Kahn 1962)."""
    missing = [len(needed) for needed in needs]
    order = [place for place, count in enumerate(missing) if not count]
    for place in order:
        for dependent in dependents[place]:
            missing[dependent] -= 1
            if not missing[dependent]:
                order.append(dependent)
    return order


def _circle(every: Sequence[Task], needs: Sequence[Sequence[int]], stuck: set[int]) -> list[Cpv]:
    """A circle among `stuck`, whose every member needs another of them: the way back from any leads into one."""
    path = [min(stuck)]
    while True:
        need = next(need for need in needs[path[-1]] if need in stuck)
        if need in path:
            return [every[place].cpv for place in (*path[path.index(need) :], need)]
        path.append(need)


def _with_needs(needs: Sequence[Sequence[int]], places: Iterable[int]) -> set[int]:
    found = set(places)
    left = list(found)
    while left:
        new = set(needs[left.pop()]) - found
        found |= new
        left.extend(new)
    return found


def _urged(task: Task) -> Task:
    return task if task.urgent else replace(task, urgent=True)


def retimed(tasks: Tasks, seconds: Iterable[float]) -> Tasks:
    """The same graph with other seconds, in the order of `tasks.all`."""
    return replace(tasks, all=tuple(replace(task, seconds=s) for task, s in zip(tasks.all, seconds, strict=True)))


def longest(tasks: Tasks, own: Callable[[Task], float]) -> tuple[float, ...]:
    """For each package the greatest sum of `own` along a chain from it to the end, itself included.

    With seconds it is the time-critical path, the upward rank of list scheduling (Topcuoglu, Hariri and Wu,
    IEEE TPDS 13(3), 2002); with 1 the number of packages that must follow one another. Linear.
    """
    rank = [0.0] * len(tasks)
    for place in reversed(tasks.order):
        after = max((rank[dependent] for dependent in tasks.dependents[place]), default=0.0)
        rank[place] = own(tasks.all[place]) + after
    return tuple(rank)
