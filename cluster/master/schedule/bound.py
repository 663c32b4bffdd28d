"""What no schedule can beat."""

from __future__ import annotations

from collections.abc import Iterable

from cluster.master.schedule.hosts import Host
from cluster.master.schedule.tasks import Tasks, longest


def lower(tasks: Tasks, hosts: Iterable[Host]) -> float:
    """Seconds that `tasks` take at least on `hosts`: all work over all nodes, or the longest chain on the fastest.

    Graham, SIAM J. Appl. Math. 17(2), 1969, for nodes of unequal speed. There may be no schedule that is as short.
    """
    present = tuple(hosts)
    capacity = sum(host.speed * len(host.nodes) for host in present)
    work = sum(task.seconds for task in tasks.all)
    chain = max(longest(tasks, lambda task: task.seconds), default=0.0)
    return max(work / capacity, chain / max(host.speed for host in present))
