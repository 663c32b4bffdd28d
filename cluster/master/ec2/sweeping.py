"""What `reap` removes: of which rentals, in which regions."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from cluster.master.ec2 import reaper, renting
from cluster.master.ec2.client import Cloud
from cluster.master.ec2.reaper import Leftover
from cluster.master.ec2.rental import Rentals, State


def regions(cloud: Cloud) -> tuple[str, ...]:
    """Those that are enabled for the account."""
    return tuple(one["RegionName"] for one in cloud.call("describe_regions")["Regions"])


def over(found: Iterable[Leftover], rentals: Rentals, region: str, *, everyone: bool) -> frozenset[str]:
    """The runs in `region`, where `found` is, that nobody needs any more: of this master, not up and not being made.

    A rental that is up and has no instance left, as all have ended themselves, is not up any more. With `everyone`
    all of `found`, of other masters and of rentals that are up as well.
    """
    known = tuple(found)
    if everyone:
        return frozenset(one.run for one in known)
    running = {one.run for one in known if one.kind == "instance" and not one.ending}
    return frozenset(
        one.run
        for one in rentals.all()
        if one.region == region and not (one.state is State.UP and one.run in running) and not rentals.is_held(one.run)
    )


def strays(found: Iterable[Leftover], rentals: Rentals) -> frozenset[str]:
    """The instances of rentals that are up which no record has: their master was killed as it rented them."""
    up = {
        one.run: {instance.id for instance in one.instances}
        for one in rentals.all()
        if one.state is State.UP and not rentals.is_held(one.run)
    }
    return frozenset(
        one.id
        for one in found
        if one.kind == "instance" and not one.ending and one.run in up and one.id not in up[one.run]
    )


def remove(cloud: Cloud, rentals: Rentals, runs: Collection[str]) -> tuple[Leftover, ...]:
    """Remove all that is there of `runs`, and note that it is; returns what that was."""
    removed = reaper.remove(cloud, runs)
    for one in rentals.all():
        if one.run in runs and one.region == cloud.region and one.state is not State.ENDED:
            renting.ended(rentals, one.run)
    return removed
