"""What no schedule can beat."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType

from cluster.master.schedule.hosts import Host, capacity, fastest
from cluster.master.schedule.state import State
from cluster.master.schedule.tasks import Tasks, longest

_NONE: Mapping[str, float] = MappingProxyType({})
_REMEMBERED = 64  # graphs: those that many mixes of hosts are tried for


def lower(tasks: Tasks, hosts: Iterable[Host], gone: Mapping[str, float] = _NONE) -> float:
    """Seconds that `tasks` take at least on `hosts`: all work on all nodes, or the longest chain on the fastest.

    Graham, SIAM J. Appl. Math. 17(2), 1969, for nodes of unequal speed. There may be no schedule that is as short.

    `gone` says when hosts leave for good. Until any moment no more work is done than the nodes that are there could
    do together, and no more of any one chain, whose packages follow each other, than the fastest node could that was
    there at each moment. So both bounds are the first moment until when enough could be done; what was begun on a
    host that leaves counts as done, as a schedule that knew of it would not have begun it. Infinite where too little
    is left.
    """
    every = tuple(hosts)
    work, chain = amounts(tasks)
    return max(_until(work, capacity, every, gone), _until(chain, fastest, every, gone))


@lru_cache(_REMEMBERED)
def amounts(tasks: Tasks) -> tuple[float, float]:
    """Seconds of all `tasks`, and of their longest chain."""
    return sum(task.seconds for task in tasks.all), max(longest(tasks, lambda task: task.seconds), default=0.0)


def _until(
    amount: float, rate: Callable[[Iterable[Host]], float], hosts: tuple[Host, ...], gone: Mapping[str, float]
) -> float:
    """When `amount` is done at the `rate` of the hosts that are there."""
    now = 0.0
    for then in (*sorted({at for at in gone.values() if at > 0}), math.inf):
        speed = rate(host for host in hosts if gone.get(host.name, math.inf) > now)
        if speed and amount / speed <= then - now:
            return now + amount / speed
        amount -= speed * (then - now)
        now = then
    return math.inf


def left(state: State, now: float) -> float:
    """When what is left of `state` ends at the soonest, seen from `now`, if all takes what is expected.

    As `lower`, from when what runs is expected to end: that it does where it is, whatever comes after it.
    """
    expected = {place: running.expected(now) for place, running in state.running.items()}
    speeds = {place: state.hosts[running.host].speed for place, running in state.running.items()}
    begun = sum((at - now) * speeds[place] for place, at in expected.items())
    waiting = state.left_s - sum(state.tasks.all[place].seconds for place in expected)
    if not state.hosts or (not state.usable and len(state.ended) + len(expected) < len(state.tasks)):
        return math.inf
    greatest = fastest(state.usable)
    ends: dict[int, float] = {}
    for place in state.tasks.order:
        if place not in state.ended:
            ready = max((ends.get(need, now) for need in state.tasks.needs[place]), default=now)
            ends[place] = expected.get(place, ready + state.tasks.all[place].seconds / greatest)
    return max(max(ends.values(), default=now), now + (begun + waiting) / capacity(state.hosts.values()))
