"""`cluster ec2 up`, `status`, `down`, `reap`, `policy`: hosts are rented, looked after and let go."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from cluster import config, paths, rentaltable, report
from cluster import target as targets
from cluster.errors import InputError
from cluster.master.ec2 import catalogue, hosting, joining, policy, quote, reaper, renting, source, sweeping
from cluster.master.ec2.client import Cloud
from cluster.master.ec2.rental import Limits, Market, Rental, Rentals, State, Wish
from cluster.master.hosts import link
from cluster.master.hosts.registry import Registry
from cluster.options import Common, at_least_one, console_for, print_json

_SHIPPED_REGION = "us-east-1"


def ec2_up(
    *,
    max_price: Annotated[float, Parameter(help="USD an hour of all instances, never exceeded.")],
    budget: Annotated[float, Parameter(help="USD in all, never exceeded.")],
    instances: Annotated[str, Parameter(help="What to rent: c7g.4xlarge=2,c7a.8xlarge=1.")] = "",
    compiling: Annotated[
        str, Parameter(help="The same of hosts without nodes, that only compile for the others.")
    ] = "",
    plan: Annotated[Path | None, Parameter(help="What `cluster ec2 plan --json` printed, for --mix.")] = None,
    mix: Annotated[int, Parameter(help="The number of the plan's mix to rent, from 1.")] = 1,
    market: Annotated[Market | None, Parameter(help="How it is paid for; else as the mix says, or spot.")] = None,
    region: Annotated[str | None, Parameter(help="Of AWS; by default that of the catalogue.")] = None,
    max_hosts: Annotated[int, Parameter(help="Instances at once, never exceeded.")] = 8,
    hours: Annotated[float | None, Parameter(help="End all after so many; else when the budget is spent.")] = None,
    silence: Annotated[int, Parameter(help="Minutes without the master after which an instance ends itself.")] = 30,
    source_network: Annotated[str, Parameter(name="--from", help="The network that ssh comes from, in CIDR.")] = "",
    grow: Annotated[
        bool, Parameter(negative="", help="Let builds rent more of these types, within the limits, while it pays.")
    ] = False,
    image: Annotated[str, Parameter(help="An AMI in the place of Debian 12.")] = "",
    target: Annotated[list[str] | None, Parameter(negative="", help="To build for; may be repeated.")] = None,
    dry_run: Annotated[bool, Parameter(negative="", help="Check all of it, say what it costs, start nothing.")] = False,
    common: Common | None = None,
) -> int:
    """Rent instances, and take them among the hosts. `cluster ec2 down` ends them."""
    common = common or Common()
    settings, directories = config.load(common.config), paths.directories(common.state)
    at_least_one(silence, "--silence")
    wanted, compilers, said = _wanted(instances, compiling, plan, mix)
    for name in target or ():
        targets.load(name)
    known = catalogue.load(directories, region)
    limits = Limits(max_hosts, max_price, budget, hours)
    names = tuple(target or [settings.build.target])
    wish = Wish(wanted, market or said or Market.SPOT, known.region, limits, names, grow, image, compilers)
    network = source.network(source_network)
    cloud = Cloud(wish.region)
    quoted = quote.quote(cloud, wish, known)
    console = console_for(common)
    if dry_run:
        if common.json:
            print_json(rentaltable.quote_json(quoted))
        else:
            rentaltable.quoted(console, quoted)
        return 0
    rental = _rented(cloud, quoted, known, network, silence, settings, common)
    return _show(Rentals(directories.rentals), (rental,), common)


def _rented(
    cloud: Cloud,
    quoted: quote.Quote,
    known: catalogue.Catalogue,
    network: str,
    silence: int,
    settings: config.Config,
    common: Common,
) -> Rental:
    """What was quoted, rented and among the hosts."""
    directories = paths.directories(common.state)
    rentals, registry = Rentals(directories.rentals), Registry(directories.hosts)
    identity = link.identity(directories.hosts)
    terms = renting.Terms(network, silence, identity.with_suffix(".pub").read_text().strip())
    with report.Reporter(console_for(common)) as reporter:
        welcome = hosting.reception(directories, known, reporter, settings.node.memory_mib)
        try:
            return renting.up(cloud, quoted, terms, rentals, welcome, reporter.step)
        finally:
            hosting.tidy(registry, rentals)


def _wanted(
    instances: str, compiling: str, plan: Path | None, mix: int
) -> tuple[dict[str, int], dict[str, int], Market | None]:
    """How many of each type, how many of these only to compile, and the market if a plan says it."""
    if bool(instances or compiling) == (plan is not None):
        raise InputError("what is to be rented is not said", "one of --instances TYPE=N,... and --plan FILE --mix N")
    if plan is not None:
        return _planned(plan, mix)
    building, compilers = _parsed("--instances", instances), _parsed("--compiling", compiling)
    return dict(Counter(building) + Counter(compilers)), compilers, None


def _parsed(option: str, instances: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for word in instances.split(",") if instances else ():
        type_, _, count = word.strip().partition("=")
        if not type_ or not count.isdecimal() or not int(count):
            raise InputError(f"{option} {word!r} is not TYPE=N", "for example c7g.4xlarge=2,c7a.8xlarge=1")
        found[type_] = found.get(type_, 0) + int(count)
    return found


def _planned(plan: Path, mix: int) -> tuple[dict[str, int], dict[str, int], Market]:
    try:
        mixes = json.loads(plan.read_text())["mixes"]
        chosen = mixes[mix - 1] if 0 < mix <= len(mixes) else None
        if chosen is not None:
            return _counts(chosen["instances"]), _counts(chosen.get("compiling", {})), Market(chosen["market"])
    except OSError as error:
        raise InputError(f"--plan {plan} cannot be read", str(error.strerror)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"--plan {plan} is not a plan", "save what `cluster ec2 plan --json` prints") from error
    raise InputError(f"--mix {mix} is not in {plan}", f"it has {len(mixes)}")


def _counts(said: dict[str, Any]) -> dict[str, int]:
    return {str(name): int(count) for name, count in said.items()}


def ec2_status(run: str | None = None, /, *, common: Common | None = None) -> int:
    """Show what is rented as RUN, or all that has not ended: instances, their age, what it has cost, its limits."""
    common = common or Common()
    directories = paths.directories(common.state)
    rentals = Rentals(directories.rentals)
    looked = tuple(_looked_at(rentals, one) for one in _chosen(rentals, run))
    hosting.tidy(Registry(directories.hosts), rentals)
    return _show(rentals, looked, common)


def _chosen(rentals: Rentals, run: str | None) -> tuple[Rental, ...]:
    """The one that is named, or all that have not ended."""
    return (rentals.get(run),) if run else tuple(one for one in rentals.all() if one.state is not State.ENDED)


def _looked_at(rentals: Rentals, rental: Rental) -> Rental:
    """The rental as AWS sees it now."""
    if not rental.living:
        return rental
    now = joining.seen(Cloud(rental.region), rental)
    if not rentals.is_held(rental.run):
        rentals.save(now)
    return now


def _show(rentals: Rentals, chosen: tuple[Rental, ...], common: Common) -> int:
    now = time.time()
    if common.json:
        print_json({"rentals": [rentaltable.rental_json(one, rentals.spans(one.run), now) for one in chosen]})
        return 0
    console = console_for(common)
    for one in chosen:
        rentaltable.rental(console, one, rentals.spans(one.run), now)
    if not chosen:
        console.print("nothing is rented")
    return 0


def ec2_down(run: str | None = None, /, *, common: Common | None = None) -> int:
    """End what is rented as RUN, or all that this master rents, and remove all that was made for it."""
    common = common or Common()
    directories = paths.directories(common.state)
    rentals, registry = Rentals(directories.rentals), Registry(directories.hosts)
    chosen = _chosen(rentals, run)
    with report.Reporter(console_for(common)) as reporter:
        for one in chosen:
            reporter.step(f"ending {one.run}")
            renting.down(Cloud(one.region), rentals, one.run)
    hosting.tidy(registry, rentals)
    return _show(rentals, tuple(rentals.get(one.run) for one in chosen), common)


def ec2_reap(
    *,
    everyone: Annotated[
        bool, Parameter(name="--all", negative="", help="Rentals that are up and other masters' as well, everywhere.")
    ] = False,
    yes: Annotated[bool, Parameter(negative="", help="Remove it; else it is only listed.")] = False,
    region: Annotated[list[str] | None, Parameter(negative="", help="Look there; may be repeated.")] = None,
    common: Common | None = None,
) -> int:
    """List, and with --yes remove, what is left of rentals that a master did not end: it is found by its tag."""
    common = common or Common()
    directories = paths.directories(common.state)
    rentals, registry = Rentals(directories.rentals), Registry(directories.hosts)
    found = []
    for name in _regions(region, rentals, everyone):
        cloud = Cloud(name)
        there = reaper.found(cloud)
        runs = sweeping.over(there, rentals, name, everyone=everyone)
        strays = sweeping.strays(there, rentals)
        left = sweeping.remove(cloud, rentals, runs) if yes else tuple(one for one in there if one.run in runs)
        alone = tuple(one for one in there if one.id in strays and one.run not in runs)
        if yes:
            reaper.terminate(cloud, (one.id for one in alone))
        found += [(name, one) for one in (*left, *alone)]
    hosting.tidy(registry, rentals)
    if common.json:
        print_json({"removed": yes, "left": [rentaltable.leftover_json(*one) for one in found]})
    else:
        rentaltable.leftovers(console_for(common), found, "removed" if yes else "left")
    return 0


def _regions(given: list[str] | None, rentals: Rentals, everyone: bool) -> tuple[str, ...]:
    """Those that are named, or else all of the account, or those in which this master has rented."""
    if given:
        return tuple(dict.fromkeys(given))
    if everyone:
        return sweeping.regions(Cloud(_SHIPPED_REGION))
    return tuple(dict.fromkeys((*(one.region for one in rentals.all()), _SHIPPED_REGION)))


def ec2_policy(
    *,
    account: Annotated[str, Parameter(help="Its number; else any.")] = "*",
    region: Annotated[str, Parameter(help="Of AWS; else any.")] = "*",
) -> int:
    """Print the rights that `cluster ec2` needs, as a policy for IAM."""
    print_json(policy.render(account, region))
    return 0
