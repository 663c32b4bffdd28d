"""How other builders choose, from their descriptions: what ours is measured against."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cluster.master.schedule.state import Draft, Rule
from cluster.master.schedule.tasks import Tasks, longest

Order = Callable[[Tasks], tuple[float, ...]]
Pick = Callable[[Draft, int], str | None]


@dataclass(frozen=True, slots=True)
class Greedy:
    """The first package in some order that has a free node to its liking takes it; none waits for a better one."""

    name: str
    order: Order
    """How soon each package is wanted, the greatest first."""
    pick: Pick
    """The host that a package takes, of those with room; None to leave it for another package."""

    def priorities(self, tasks: Tasks) -> tuple[float, ...]:
        """By `order`."""
        return self.order(tasks)

    def place(self, draft: Draft, now: float) -> float:
        """Start all that can start."""
        for place in draft.waiting():
            if not draft.free:
                break
            name = self.pick(draft, place)
            if name is not None:
                draft.start(place, name, now)
        return math.inf


def _any(draft: Draft, place: int) -> str | None:
    """One of the hosts with a free node, whatever its speed."""
    idle = [name for names in draft.idle.values() for name in names if draft.fits(place, name)]
    return random.Random(f"{place} {len(draft.running)}").choice(idle) if idle else None


def _fastest(draft: Draft, place: int) -> str | None:
    return next((name for speed in draft.speeds if (name := draft.room_for(place, speed))), None)


def _shuffled(tasks: Tasks) -> tuple[float, ...]:
    drawn = random.Random(len(tasks))
    return tuple(drawn.random() for _ in tasks.all)


def _listed(tasks: Tasks) -> tuple[float, ...]:
    """The order in which one would merge them one by one."""
    turn = {place: number for number, place in enumerate(tasks.order)}
    return tuple(-float(turn[place]) for place in range(len(tasks)))


def _dependents(tasks: Tasks) -> tuple[float, ...]:
    """How many packages need each, directly or not."""
    after = [0] * len(tasks)  # sets of places, as bits
    for place in reversed(tasks.order):
        for dependent in tasks.dependents[place]:
            after[place] |= after[dependent] | 1 << dependent
    return tuple(float(found.bit_count()) for found in after)


def _hops(tasks: Tasks) -> tuple[float, ...]:
    return longest(tasks, lambda task: 1.0)


def _seconds(tasks: Tasks) -> tuple[float, ...]:
    return longest(tasks, lambda task: task.seconds)


PEERS: Mapping[str, Rule] = MappingProxyType(
    {
        rule.name: rule
        for rule in (
            Greedy("dpb", _seconds, _fastest),
            Greedy("hydra", _dependents, _fastest),
            Greedy("poudriere", _hops, _any),
            Greedy("portage", _listed, _any),
            Greedy("random", _shuffled, _any),
        )
    }
)
"""By the names of the builders."""
