"""Which rule is best from here on: a few are played to the end with the very same core, and the best is taken.

No single rule is near the best possible on every graph and on every mix of hosts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from cluster.errors import InputError
from cluster.master.schedule import bound, core, simulation
from cluster.master.schedule.peers import PEERS
from cluster.master.schedule.rules import Earliest
from cluster.master.schedule.state import Ranking, Rule, State, ranked

PACKAGES = 60_000
"""How many packages are played through for one choice, all rules together; fifty thousand are about a second."""
_AT_LEAST = 3  # rules, however many packages there are
_ENOUGH = 0.0005  # a rule that is no further from the best possible need not be beaten
_DOUBT = 0.1  # how much sooner a later rule has to end than an earlier one, where estimates are off by all of it


def candidates() -> Iterator[Rule]:
    """The rules that are tried, those that are most often the best first."""
    yield from (Earliest(), Earliest(hops=0.5), Earliest(wait_s=60.0))
    yield from PEERS.values()
    yield from (Earliest(hops) for hops in (0.25, 0.75, 1.0))
    yield from (Earliest(hops, wait_s) for wait_s in (60.0, 600.0) for hops in (0.25, 0.5, 0.75, 1.0))


def named(name: str) -> Rule:
    """The candidate of that name. Raises InputError if there is none."""
    found = next((rule for rule in candidates() if rule.name == name), None)
    if found is None:
        raise InputError(f"there is no rule {name!r}", "it was written by another version of this program")
    return found


def choose(state: State, now: float, rules: Iterable[Rule] | None = None) -> Ranking:
    """The rule by which `state` is expected to end soonest; of equal ones the first.

    The more builds were off so far, the more sooner a later one has to end. A rule is played until it falls behind
    the best so far, and none is played once that is as good as can be.
    """
    best, soonest = state.ranking, math.inf
    enough = now + (bound.left(state, now) - now) * (1 + _ENOUGH)
    doubt = _DOUBT * _off(state)
    played = 0
    for number, rule in enumerate(candidates() if rules is None else rules, 1):
        ranking = ranked(rule, state.tasks)
        until = now + (soonest - now) * (1 - doubt)
        trace = _played(state, now, ranking, until)
        played += len(trace.stays)
        if trace.state.done and trace.end < until:
            best, soonest = ranking, trace.end
        if soonest <= enough or (played >= PACKAGES and number >= _AT_LEAST):
            break
    return best


def _off(state: State) -> float:
    """By how much of what was expected builds were shorter or longer so far, 0 to 1."""
    ended_s = sum(state.tasks.all[place].seconds for place in state.ended)
    return min(state.off_s / ended_s, 1.0) if ended_s else 0.0


def _played(state: State, now: float, ranking: Ranking, until: float) -> simulation.Trace:
    return simulation.run(core.reranked(state, ranking), simulation.expected(state), now=now, until=until)
