"""The rentals that a build has hosts of: looked at and changed while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from cluster.master.ec2 import catalogue as catalogues
from cluster.master.ec2 import hosting, joining, quote, reaper, renting, sweeping
from cluster.master.ec2.catalogue import Catalogue
from cluster.master.ec2.client import Cloud
from cluster.master.ec2.joining import Welcome
from cluster.master.ec2.mixes import HOUR_S
from cluster.master.ec2.quote import Quote
from cluster.master.ec2.rental import Instance, Rental, Rentals, State, Wish
from cluster.master.ec2.scale import Choice
from cluster.master.ec2.speeds import Speeds
from cluster.master.hosts.registry import Machine, Registry

_RECORD_S = 120.0
"""For so long it is tried to record what has joined, while something else is asked about its rental."""


@dataclass(frozen=True, slots=True)
class Estate:
    """All of one master; its methods may be called from several threads."""

    rentals: Rentals
    registry: Registry
    target: str
    """What the run builds for."""
    catalogue: Callable[[str], Catalogue]
    """Of a region."""
    speeds: Callable[[], Speeds]
    """What was measured so far."""
    cloud: Callable[[str], Cloud]
    """A region, the same each time."""
    welcome: Callable[[Catalogue], Callable[[Rental], Welcome]]
    """What takes an instance among the hosts."""
    master: str
    """The master's own public key."""

    def up(self) -> tuple[Rental, ...]:
        """The rentals that are up, as they are recorded."""
        return tuple(one for one in self.rentals.all() if one.state is State.UP)

    def machines(self) -> Mapping[str, Machine]:
        """The hosts that have nodes for the target, by name."""
        return {one.name: one for one in self.registry.all() if one.nodes.get(self.target)}

    def seen(self, rental: Rental) -> Rental:
        """The rental as AWS sees it now. Raises ClusterError."""
        with self.rentals.held(rental.run, wait_s=renting.HELD_S):
            now = joining.seen(self.cloud(rental.region), self.rentals.get(rental.run))
            self.rentals.save(now)
        if len(now.living) != len(rental.living):
            hosting.tidy(self.registry, self.rentals)
        return now

    def sweep(self, rental: Rental) -> tuple[str, ...]:
        """End the instances that no record has, and say which those were."""
        cloud = self.cloud(rental.region)
        strays = sweeping.strays(reaper.instances(cloud), self.rentals)
        reaper.terminate(cloud, strays)
        return tuple(sorted(strays))

    def startup_s(self, rental: Rental) -> float:
        """From the request for an instance until it takes packages."""
        return self.catalogue(rental.region).startup.seconds

    def choices(self, rental: Rental, prices: Mapping[str, float]) -> dict[str, Choice]:
        """What each type of the rental brings, which costs so much an hour at most, or what its instances were to.

        Types that have no node for the target are left out.
        """
        known = self.catalogue(rental.region)
        paid = {one.type: one.usd_h for one in rental.instances} | dict(prices)
        offered = {one.type: one for one in catalogues.offers(known, self.target, self.speeds())}
        return {name: Choice(offered[name], usd_h) for name, usd_h in paid.items() if name in offered}

    def quote(self, rental: Rental, instances: Mapping[str, int], now: float) -> Quote:
        """What so many of each type come to today, for as long as the rental is up yet. Raises ClusterError."""
        known = self.catalogue(rental.region)
        wish = Wish(instances, rental.market, rental.region, rental.limits, rental.targets, rental.grows, rental.image)
        return quote.quote(self.cloud(rental.region), wish, known, (rental.until - now) / HOUR_S)

    def rent(self, rental: Rental, quoted: Quote) -> tuple[tuple[Instance, ...], str]:
        """Rent it; returns the instances, which are to `join`, and why they are no more. Raises ClusterError."""
        return renting.grow(self.cloud(rental.region), quoted, self.rentals, rental.run, self.master)

    def join(self, rental: Rental, instances: tuple[Instance, ...]) -> tuple[Instance, ...]:
        """Take them among the hosts, which takes minutes; returns them as they are then. Raises ClusterError.

        One that does not join, or has ended meanwhile, has an end.
        """
        welcome = self.welcome(self.catalogue(rental.region))(rental)

        def save(part: Rental) -> None:
            self.rentals.amend(rental.run, lambda whole: whole.updated(part.instances), wait_s=_RECORD_S)

        part = replace(rental, instances=instances)
        return joining.join(self.cloud(rental.region), part, welcome, save).instances

    def let_go(self, rental: Rental, names: frozenset[str], why: str) -> None:
        """End the hosts called so, and forget them. Raises ClusterError."""
        ids = frozenset(one.id for one in rental.living if one.name in names)
        renting.let_go(self.cloud(rental.region), self.rentals, rental.run, ids, why)
        for name in names:
            self.registry.remove(name)
