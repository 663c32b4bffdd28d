"""Who may use how many of the nodes that several runs share: weighted max-min fairness, in whole nodes, over time.

A run gets in proportion to its weight, or what it wants if that is less; what one does not want goes to the others
by the same rule: Demers, Keshav and Shenker, "Analysis and Simulation of a Fair Queueing Algorithm" (SIGCOMM 1989);
progressive filling in Bertsekas and Gallager, "Data Networks" (1992), 6.5.2. The parts of a node that are then left
over go, as whole nodes, to those that have had least for their weight: the virtual time of Demers et al., kept as in
Waldspurger and Weihl, "Stride Scheduling" (MIT/LCS/TM-528, 1995). So each has its share on average, also of fewer
nodes than there are runs, and is kept waiting by none for good.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from itertools import accumulate

URGENT = 4.0
"""By how much more a run counts while it has urgent packages to build: on one node it has four of five parts of
the time beside one other run of its weight."""

_DIGITS = 9  # of a share: what floating point is off by is no part of a node


@dataclass(frozen=True, slots=True)
class Claim:
    """What one run wants of the nodes, and what it has had."""

    id: str
    weight: float = 1.0
    """Greater than 0."""
    urgent: bool = False
    """Whether it has urgent packages to build."""
    wants: int = 0
    """How many nodes it could use now, with those that it uses."""
    holds: int = 0
    """How many nodes it uses, or may begin to use without asking again."""
    served: float = 0.0
    """The node-seconds that it has had, for its weight."""

    @property
    def pull(self) -> float:
        """Its weight, with its urgency."""
        return self.weight * (URGENT if self.urgent else 1.0)

    def after(self, seconds: float) -> Claim:
        """The same when it has held its nodes for so much longer."""
        return replace(self, served=self.served + self.holds * seconds / self.pull)

    def among(self, others: Iterable[Claim]) -> Claim:
        """The same with nothing saved up: one that had all that it wanted is not behind all of `others`.

        A claim that is new has wanted nothing, so it begins beside the one that is furthest behind.
        """
        if self.holds < self.wants:
            return self
        furthest = min((other.served for other in others if other.wants), default=0.0)
        return replace(self, served=max(self.served, furthest))


def shares(claims: Collection[Claim], nodes: int) -> dict[str, int]:
    """How many of `nodes` nodes each claim may use, by its id.

    Nobody is made to give up a node that it holds: one that may use fewer starts nothing until it holds fewer, and
    the others share the rest. So what each holds or may use, whichever is more, is together no more than `nodes`
    if what they hold is not.
    """
    allowed: dict[str, int] = {}
    sharing = list(claims)
    while True:
        found = _whole(sharing, nodes)
        over = [claim for claim in sharing if claim.holds > found[claim.id]]
        if not over:
            return allowed | found
        allowed |= {claim.id: found[claim.id] for claim in over}
        nodes = max(0, nodes - sum(claim.holds for claim in over))
        sharing = [claim for claim in sharing if claim.id not in allowed]


def _whole(claims: Collection[Claim], nodes: int) -> dict[str, int]:
    """The fair shares in whole nodes, each rounded up or down."""
    fair = _fair(claims, nodes)
    whole = {claim.id: int(fair[claim.id]) for claim in claims}
    parts = [claim for claim in claims if fair[claim.id] > whole[claim.id]]
    left = min(nodes, sum(claim.wants for claim in claims)) - sum(whole.values())
    for claim in sorted(parts, key=lambda claim: (claim.served, -claim.pull, claim.id))[:left]:
        whole[claim.id] += 1
    return whole


def _fair(claims: Iterable[Claim], nodes: float) -> dict[str, float]:
    """The weighted max-min fair shares, in parts of nodes: progressive filling, those satisfied soonest first."""
    order = sorted(claims, key=lambda claim: claim.wants / claim.pull)
    pulls = reversed(list(accumulate(claim.pull for claim in reversed(order))))
    fair: dict[str, float] = {}
    for claim, pull in zip(order, pulls, strict=True):
        fair[claim.id] = round(min(claim.wants, nodes * claim.pull / pull), _DIGITS)
        nodes -= fair[claim.id]
    return fair
