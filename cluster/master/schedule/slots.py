"""How many compiles at once a package is given: make's -j, and its share of the host's compile slots."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping

from cluster.master.schedule.state import State
from cluster.model import Cpv


def jobs(parallelism: float | None, usual: int, most: int) -> int:
    """make's -j for a package that kept `parallelism` processors busy: one more than that, and at most `most`.

    The one more is for what waits. A package that could use more than it had shows it by keeping all of it busy, and
    gets one more from build to build. `usual` where nothing is known.
    """
    return usual if parallelism is None else max(1, min(most, math.floor(parallelism) + 1 + (parallelism % 1 > 0.5)))


def touched(before: State, after: State) -> frozenset[str]:
    """The hosts on which shares may be others than before: what runs there has changed, or how it is ranked.

    To work out all shares of a thousand hosts takes longer than everything else that follows from an event.
    """
    if after.ranking is not before.ranking:
        return frozenset(after.rooms)
    return frozenset(name for name, room in after.rooms.items() if before.rooms.get(name) is not room)


def shares(state: State, slots: int, wanted: Mapping[Cpv, int], hosts: Collection[str]) -> dict[str, int]:
    """By node of `hosts`, of `slots` on each: one for each package there, the rest to those most waited for.

    Each gets at most what it can use, its -j in `wanted`: first all that the longest chain wants, then the next one.
    """
    there = ((place, one) for place, one in state.running.items() if one.host in hosts)
    running = sorted(there, key=lambda item: (state.ranking.keys[item[0]], item[0]))
    counts = Counter(one.host for _, one in running)
    left = {host: max(0, slots - count) for host, count in counts.items()}
    given: dict[str, int] = {}
    for place, one in running:
        more = min(left[one.host], wanted.get(state.tasks.all[place].cpv, 1) - 1)
        given[one.node] = 1 + more
        left[one.host] -= more
    return given
