"""The shortest schedule there is, found by trying; and how near to it ours comes, run by hand and asserted nowhere.

PYTHONPATH=. python tests/oracle.py [GRAPHS]
"""

from __future__ import annotations

import math
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from statistics import mean

from cluster.master.schedule import core, lookahead, simulation, tasks
from cluster.master.schedule.hosts import Host
from cluster.master.schedule.peers import PEERS
from cluster.master.schedule.rules import Earliest
from cluster.master.schedule.state import Ranking, ranked
from cluster.master.schedule.tasks import Task, Tasks, longest
from cluster.model import Cpv


def optimum(todo: Tasks, hosts: Iterable[Host], known: float = math.inf) -> float:
    """When the last of `todo` ends at the earliest; for a few packages on a few nodes. `known` is one such schedule.

    Packages are given one after another to any node, idle or not, where each starts as soon as that node and what
    the package needs allow, and none before the one given last. An optimum is among what this tries: let every
    package of an optimal schedule start as early as it can without changing what runs where and in which order on
    each node. Nothing ends later by that, and each start is now the end of what ran before on its node or of
    something that it needs, or 0. Give the packages in the order of these starts, what is needed first among equal
    ones: each then finds its node and needs as they are there, and starts as it does there. That a package waits for a
    busy node, though another is idle, is so tried too.
    """
    return _Search(todo, [host.speed for host in hosts for _ in host.nodes], known).shortest()


class _Search:
    """Depth first, without what cannot be shorter than the best that is known (branch and bound)."""

    def __init__(self, todo: Tasks, speeds: Sequence[float], known: float) -> None:
        self.todo, self.speeds, self.best = todo, speeds, known
        self.seconds = [task.seconds for task in todo.all]
        self.rank = longest(todo, lambda task: task.seconds)
        self.free = [0.0] * len(speeds)
        self.ends: dict[int, float] = {}

    def shortest(self) -> float:
        self._from(0.0)
        return self.best

    def _from(self, last: float) -> None:
        if len(self.ends) == len(self.todo):
            self.best = min(self.best, max(self.ends.values(), default=0.0))
            return
        if self._least(last) >= self.best:
            return
        for place, needs in enumerate(self.todo.needs):
            if place not in self.ends and all(need in self.ends for need in needs):
                self._give(place, max((self.ends[need] for need in needs), default=0.0), last)

    def _give(self, place: int, ready: float, last: float) -> None:
        """To each node in turn; of nodes that are alike to one."""
        alike = {(speed, self.free[node]): node for node, speed in enumerate(self.speeds)}
        for (speed, free), node in alike.items():
            start = max(free, ready)
            if start >= last:
                self.free[node] = self.ends[place] = start + self.seconds[place] / speed
                self._from(start)
                self.free[node] = free
                del self.ends[place]

    def _least(self, last: float) -> float:
        """No way on from here ends earlier: the longest chain, and what all nodes can do from `last` on together."""
        left = [place for place in range(len(self.todo)) if place not in self.ends]
        chain = max(self.rank[place] for place in left)
        work = sum(self.seconds[place] for place in left)
        work += sum(max(last, free) * speed for free, speed in zip(self.free, self.speeds, strict=True))
        return max(last + chain / max(self.speeds), work / sum(self.speeds), *self.ends.values(), 0.0)


def ends(todo: Tasks, hosts: Iterable[Host], ranking: Ranking) -> float:
    """When the last of `todo` ends by one rule."""
    state = core.start(todo, hosts, ranking, 1)
    return simulation.run(state, simulation.expected(state)).end


def chosen(todo: Tasks, hosts: Iterable[Host]) -> float:
    """When the last of `todo` ends by the rule that looking ahead chooses."""
    hosts = tuple(hosts)
    return ends(todo, hosts, lookahead.choose(core.start(todo, hosts, ranked(Earliest(), todo), 1), 0.0))


def drawn(seed: int) -> tuple[Tasks, tuple[Host, ...]]:
    """Three to seven packages, with up to three needs each, and two or three hosts of one node."""
    chance = random.Random(seed)
    names = [Cpv(f"cat/p{number}-1") for number in range(chance.randint(3, 7))]
    todo = tasks.of(
        Task(cpv, float(chance.randint(1, 20)), tuple(chance.sample(names[:number], chance.randint(0, min(number, 3)))))
        for number, cpv in enumerate(names)
    )
    speeds = [chance.choice((1.0, 1.0, 2.0, 4.0)) for _ in range(chance.randint(2, 3))]
    return todo, tuple(Host(f"h{number}", (f"h{number}",), speed) for number, speed in enumerate(speeds))


def measure(graphs: int) -> None:
    """Print how often each rule, and the one that is chosen, is optimal, and by how much it is not."""
    ratios: dict[str, list[float]] = {}
    ways: dict[str, Callable[[Tasks, tuple[Host, ...]], float]] = {"chosen by looking ahead": chosen}
    for rule in (Earliest(), *PEERS.values()):
        ways[rule.name] = lambda todo, hosts, rule=rule: ends(todo, hosts, ranked(rule, todo))  # type: ignore[misc]
    for seed in range(graphs):
        todo, hosts = drawn(seed)
        found = {name: way(todo, hosts) for name, way in ways.items()}
        best = optimum(todo, hosts, min(found.values()))
        for name, end in found.items():
            ratios.setdefault(name, []).append(end / best)
    print(f"{graphs} graphs of 3 to 7 packages on 2 or 3 nodes of speed 1, 2 or 4: time over the shortest possible")
    print(f"{'':40}{'optimal':>9}{'mean':>8}{'worst':>8}")
    for name, values in ratios.items():
        optimal = Counter(value < 1 + 1e-9 for value in values)[True] / graphs
        print(f"{name:40}{optimal:9.1%}{mean(values):8.4f}{max(values):8.4f}")


if __name__ == "__main__":
    measure(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
