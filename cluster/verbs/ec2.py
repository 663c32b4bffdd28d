"""`cluster ec2`: hosts rented from Amazon EC2."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from cluster import mixtable, paths, report
from cluster.drawing import curve, formats
from cluster.errors import InputError
from cluster.master.ec2 import catalogue, mixes, speeds
from cluster.master.ec2 import refresh as amazon
from cluster.master.ec2.catalogue import Catalogue, Offer
from cluster.master.ec2.client import Cloud
from cluster.master.ec2.mixes import Limits, Proposal
from cluster.master.ec2.rental import Market
from cluster.master.estimate import duration
from cluster.options import Common, KeepGoing, What, console_for, open_one, print_json, seconds
from cluster.verbs.workloads import workload_of

Region = Annotated[str | None, Parameter(help="Of AWS; by default that of the catalogue.")]


def ec2_plan(
    *atoms: str,
    graph: Annotated[Path | None, Parameter(help="A -> B lines or a saved plan, in the place of ATOMS.")] = None,
    history: Annotated[Path | None, Parameter(help="Past builds, in the place of the journal's.")] = None,
    market: Annotated[Literal["on-demand", "spot", "both"], Parameter(help="How instances are rented.")] = "both",
    max_hosts: Annotated[int, Parameter(help="Instances at once, at most.")] = Limits().hosts,
    max_price: Annotated[float | None, Parameter(help="USD an hour of all instances, at most.")] = None,
    budget: Annotated[float | None, Parameter(help="USD in all, at most.")] = None,
    deadline: Annotated[str | None, Parameter(help="By when it is to end, as 90m or 5h.")] = None,
    types: Annotated[str | None, Parameter(help="Instance types that may be rented, with commas.")] = None,
    region: Region = None,
    chart: Annotated[Path | None, Parameter(help="Draw cost against time into this SVG file.")] = None,
    keep_going: KeepGoing = False,
    what: What | None = None,
    common: Common | None = None,
) -> int:
    """Propose mixes of instances to rent for building ATOMS, from the cheapest to the fastest. Asks AWS for nothing."""
    what, common = what or What(), common or Common()
    limits = Limits(max_hosts, max_price, budget, None if deadline is None else seconds(deadline, "--deadline"))
    markets = mixes.MARKETS if market == "both" else (Market(market),)
    target, known, offers = _offered(types, region, what, common)
    _check(limits, offers, known, markets)
    work = workload_of(atoms, graph, history, keep_going, what, common)
    found = mixes.propose(work.tasks, offers, known, limits, markets)
    if not found.mixes:
        raise InputError(*_nothing(found))
    answer = mixtable.Answer(target, known, found, len(work.tasks), work.unknown)
    if chart is not None:
        formats.write(chart, curve.svg(found, f"{len(work.tasks)} packages for {target} on Amazon EC2"), "--chart")
    if common.json:
        print_json(mixtable.json(answer))
    else:
        mixtable.show(console_for(common), answer)
    return 0


def ec2_catalogue(
    *,
    refresh: Annotated[bool, Parameter(negative="", help="Ask AWS for today's prices, which takes credentials.")] = (
        False
    ),
    types: Annotated[str | None, Parameter(help="Some of them, with commas.")] = None,
    region: Region = None,
    what: What | None = None,
    common: Common | None = None,
) -> int:
    """Show the instance types that are thought of, what they cost, and how fast their nodes are."""
    what, common = what or What(), common or Common()
    console = console_for(common)
    if refresh:
        with report.Reporter(console) as reporter:
            _refresh(region, common, reporter)
    target, known, offers = _offered(types, region, what, common)
    if common.json:
        print_json(mixtable.catalogue_json(known, offers))
    else:
        mixtable.show_catalogue(console, known, offers, target)
    return 0


def _refresh(region: str | None, common: Common, reporter: report.Reporter) -> None:
    shipped = catalogue.read(paths.data(*catalogue.SHIPPED))
    wanted = shipped.there(region or shipped.region)
    found = amazon.refreshed(wanted, Cloud(wanted.region), datetime.now(UTC), reporter.warn)
    catalogue.write(catalogue.refreshed_file(paths.directories(common.state), wanted.region), found)


def _offered(
    types: str | None, region: str | None, what: What, common: Common
) -> tuple[str, Catalogue, tuple[Offer, ...]]:
    """The target, the catalogue of the region, and what those of its types bring that are asked for."""
    target = open_one(what, common).target.name
    directories = paths.directories(common.state)
    known = catalogue.load(directories, region)
    if types is not None:
        known = known.only([name.strip() for name in types.split(",") if name.strip()])
    offers = catalogue.offers(known, target, speeds.read(speeds.file(directories)))
    if not offers:
        raise InputError(f"no node for {target} fits on {types or 'any type of the catalogue'}", "name larger --types")
    return target, known, offers


def _check(limits: Limits, offers: Sequence[Offer], known: Catalogue, markets: Sequence[Market]) -> None:
    """Raise InputError where not even one hour of the cheapest instance is allowed."""
    if limits.hosts < 1:
        raise InputError(f"--max-hosts {limits.hosts} lets nothing be rented", "use at least 1")
    price, name = min((offer.price(market), offer.type) for offer in offers for market in markets)
    price += known.billing.disk_usd_h
    for option, value in (("--max-price", limits.price), ("--budget", limits.budget)):
        if value is not None and value < price:
            what = f"{option} {value:g} is too little for one hour of the cheapest instance"
            raise InputError(what, f"{name} costs {price:.4f} USD an hour with its disk")


def _nothing(found: Proposal) -> tuple[str, str]:
    """That nothing is within budget and deadline, and what would be next to it."""
    if found.cheapest is None or found.soonest is None:
        return "no instance costs as little as --max-price", "allow more"
    cheapest, soonest = (
        f"{mixtable.named(mix.fleet)} ({mix.market}) in {duration(mix.finish_s)} for {mix.cost_usd:.2f} USD"
        for mix in (found.cheapest, found.soonest)
    )
    return "no mix keeps both budget and deadline", f"the cheapest is {cheapest}, the fastest {soonest}"
