"""A rental from its first call to its last: made, joined, and ended whatever happens in between."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from cluster.errors import ClusterError, InputError, MachineError
from cluster.master.ec2 import fleet, joining, reaper, userdata
from cluster.master.ec2.client import Cloud
from cluster.master.ec2.joining import Welcome
from cluster.master.ec2.quote import Quote
from cluster.master.ec2.rental import Instance, Rental, Rentals, State, new_run
from cluster.node import keypair

Tell = Callable[[str], object]
HELD_S = 10.0
"""For so long whoever changes a little of a rental waits for others that do."""


@dataclass(frozen=True, slots=True)
class Terms:
    """On what an instance lets the master in, and without it ends."""

    source: str
    """The network in CIDR notation that the master comes from."""
    silence_min: int
    master: str
    """The master's own public key, OpenSSH's line: those of the rental let in only who has its directory."""


def up(
    cloud: Cloud,
    quote: Quote,
    terms: Terms,
    rentals: Rentals,
    welcome: Callable[[Rental], Welcome],
    tell: Tell,
    *,
    deadline_s: float = joining.JOIN_S,
) -> Rental:
    """Rent what was quoted and let it join; returns the rental, which is up.

    Whatever goes wrong, and on Ctrl-C, all that was made is removed before the error is raised. Raises MachineError if
    no instance was to be had, or none joined.
    """
    run = new_run(time.time())
    with rentals.held(run):
        rental, keys = _begin(quote, terms, rentals, run)
        try:
            tell(f"renting as {run}: at most {quote.usd_h:.3f} USD an hour, for {quote.hours:.1f} hours at the longest")
            rental = fleet.rent(cloud, quote, rental, keys, rentals.save)
            _insist(rental, rental.missing)
            rental = joining.join(cloud, rental, welcome(rental), rentals.save, deadline_s=deadline_s)
            _insist(rental, tuple(f"{one.name}: {one.why}" for one in rental.instances))
        except BaseException:
            _end(cloud, rentals, run, tell)
            raise
        rental = replace(rental, state=State.UP)
        rentals.save(rental)
        return rental


def _begin(quote: Quote, terms: Terms, rentals: Rentals, run: str) -> tuple[Rental, fleet.Keys]:
    """The record, and the keys, of which nobody knows yet."""
    place = rentals.place(run)
    for name in ("key", "host_key"):
        keypair.make(place / name)
    wish = quote.wish
    rental = Rental(
        run=run,
        region=wish.region,
        market=wish.market,
        wished={part.type: part.count for part in wish.parts if not part.compiles_only},
        limits=wish.limits,
        hours=quote.hours,
        silence_min=terms.silence_min,
        source=terms.source,
        began=time.time(),
        targets=wish.targets,
        grows=wish.grows and any(not part.compiles_only for part in wish.parts),
        image=wish.image,
    )
    keys = _keys(rental, place, terms.master, quote.hours)
    rentals.save(rental)
    return rental, keys


def _keys(rental: Rental, place: Path, master: str, hours: float) -> fleet.Keys:
    """What instances of `rental` are given, whose keys are in `place`, that end themselves after `hours`."""
    public, host_public = ((place / f"{name}.pub").read_text().strip() for name in ("key", "host_key"))
    words = userdata.Words(
        run=rental.run,
        host_key=(place / "host_key").read_text(),
        host_key_public=host_public,
        authorized=(public, master),
        hours=hours,
        silence_min=rental.silence_min,
    )
    return fleet.Keys(public, userdata.render(words))


def _insist(rental: Rental, why: tuple[str, ...]) -> None:
    if not rental.living:
        raise MachineError(f"no instance is to be had in {rental.region}", "; ".join(why) or "AWS does not say why")


def _end(cloud: Cloud, rentals: Rentals, run: str, tell: Tell) -> None:
    """End a rental that did not come up. What cannot be removed now is said, and does not hide why it did not."""
    try:
        end(cloud, rentals, run)
    except ClusterError as error:
        tell(f"not all of {run} is removed: {error}; `cluster ec2 reap --yes` removes it")


def grow(cloud: Cloud, quote: Quote, rentals: Rentals, run: str, master: str) -> tuple[tuple[Instance, ...], str]:
    """Rent what was quoted besides into a rental that is up: the instances, which are to join, and why no more.

    `master` is the master's own public key. Raises InputError if the rental is not up, or another process is at work
    on it, and Refused; what was made until then is in the record, or found by its tag.
    """
    with rentals.held(run, wait_s=HELD_S):
        before = rentals.get(run)
        if before.state is not State.UP:
            raise InputError(f"the rental {run} is {before.state}", "only one that is up can grow")
        _check_room(before, quote)
        keys = _keys(before, rentals.place(run), master, quote.hours)
        after, why = fleet.add(cloud, quote, before, keys, rentals.save)
    known = {one.id for one in before.instances}
    return tuple(one for one in after.instances if one.id not in known), why


def _check_room(rental: Rental, quote: Quote) -> None:
    """Raise InputError if what was quoted does not fit into what is left of the rental's limits."""
    count = len(rental.living) + sum(quote.wish.instances.values())
    usd_h = sum(one.usd_h for one in rental.living) + quote.usd_h
    if count > rental.limits.hosts or usd_h > rental.limits.usd_h:
        what = f"{count} instances for up to {usd_h:.3f} USD an hour are more than {rental.run} may have"
        raise InputError(what, f"--max-hosts {rental.limits.hosts} --max-price {rental.limits.usd_h:g}")


def let_go(cloud: Cloud, rentals: Rentals, run: str, ids: frozenset[str], why: str) -> None:
    """End some instances of a rental; does not wait until they are gone. Raises as `grow` does."""
    with rentals.held(run, wait_s=HELD_S):
        reaper.terminate(cloud, sorted(ids))
        rentals.save(rentals.get(run).gone(ids, time.time(), why))


def down(cloud: Cloud, rentals: Rentals, run: str) -> tuple[reaper.Leftover, ...]:
    """End a rental and remove all that was made for it; returns what that was. Nothing of it is left then."""
    with rentals.held(run):
        return end(cloud, rentals, run)


def end(cloud: Cloud, rentals: Rentals, run: str) -> tuple[reaper.Leftover, ...]:
    """The same by whoever holds the rental."""
    rental = replace(rentals.get(run), state=State.ENDING)
    rentals.save(rental)
    reaper.terminate(cloud, [one.id for one in rental.living])
    removed = reaper.remove(cloud, {run})
    ended(rentals, run)
    return removed


def ended(rentals: Rentals, run: str) -> None:
    """Note that nothing is left of a rental."""
    rental = rentals.get(run)
    ids = frozenset(one.id for one in rental.living)
    rentals.save(replace(rental.gone(ids, time.time()), state=State.ENDED))
