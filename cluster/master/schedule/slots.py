"""How many compiles at once a package is given: make's -j, and its share of the host's compile slots."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from cluster.master.schedule.state import State
from cluster.master.schedule.tasks import Task


def jobs(parallelism: float | None, usual: int, most: int) -> int:
    """make's -j for a package that kept `parallelism` processors busy: one more than that, and at most `most`.

    The one more is for what waits. A package that could use more than it had shows it by keeping all of it busy, and
    gets one more from build to build. `usual` where nothing is known.
    """
    return usual if parallelism is None else max(1, min(most, math.floor(parallelism) + 1 + (parallelism % 1 > 0.5)))


def touched(before: State, after: State) -> frozenset[str]:
    """The hosts on which shares may be others than `before` the event: what runs there has changed, or its rank."""
    return after.changed if after.ranking is before.ranking else frozenset(after.there)


def shares(state: State, slots: int, wanted: Callable[[Task], int], hosts: Iterable[str]) -> dict[str, int]:
    """By node of `hosts`, of `slots` on each: one for each package there, the rest to those most waited for.

    Each gets at most what it can use, which is its -j, `wanted`: first all that the longest chain wants, then the next
    one.
    """
    given: dict[str, int] = {}
    for host in hosts:
        there = sorted(state.there.get(host, ()), key=lambda place: (state.ranking.keys[place], place))
        left = max(0, slots - len(there))
        for place in there:
            more = min(left, wanted(state.tasks.all[place]) - 1)
            given[state.running[place].node] = 1 + more
            left -= more
    return given
