"""Which rule is best from here on: a few are played to the end with the very same core, and the best is taken.

No single rule is near the best possible on every graph and on every mix of hosts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from cluster.master.schedule import core, simulation
from cluster.master.schedule.peers import PEERS
from cluster.master.schedule.rules import Earliest
from cluster.master.schedule.state import Ranking, Rule, State, ranked

PACKAGES = 60_000
"""How many packages are played through for one choice, all rules together; thirty thousand are about a second."""
_AT_LEAST = 3  # rules, however many packages there are


def candidates() -> Iterator[Rule]:
    """The rules that are tried, those that are most often the best first."""
    yield from (Earliest(), Earliest(hops=0.5), Earliest(wait_s=60.0))
    yield from PEERS.values()
    yield from (Earliest(hops, wait_s) for wait_s in (0.0, 60.0, 600.0) for hops in (0.25, 0.5, 0.75, 1.0))


def choose(state: State, now: float, rules: Sequence[Rule] | None = None) -> Ranking:
    """The rule by which `state` is expected to end soonest; of equal ones the first."""
    left = len(state.tasks) - len(state.ended)
    count = max(_AT_LEAST, PACKAGES // max(left, 1))
    rankings = [ranked(rule, state.tasks) for rule in islice(rules or candidates(), count)]
    return min(rankings, key=lambda ranking: _end(state, now, ranking))


def _end(state: State, now: float, ranking: Ranking) -> float:
    adopted = core.reranked(state, ranking)
    return simulation.run(adopted, simulation.expected(state), now=now).end
