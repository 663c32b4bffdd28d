"""What `cluster ec2 up`, `status` and `reap` show a person, and the same for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console

from cluster import widetable
from cluster.clock import clock
from cluster.master.ec2 import bill
from cluster.master.ec2.quote import Quote
from cluster.master.ec2.reaper import Leftover
from cluster.master.ec2.rental import Rental, Span
from cluster.master.estimate import duration

_DEAREST = 10  # packages


def quoted(console: Console, quote: Quote) -> None:
    """What a wish comes to."""
    table = widetable.table("type", numbers=("instances", "vCPUs", "USD/h at most"))
    for part in quote.wish.parts:
        kind = quote.kinds[part.type]
        name = _type(part.type, compiles_only=part.compiles_only)
        table.add_row(name, str(part.count), str(kind.vcpus * part.count), f"{kind.usd_h * part.count:.3f}")
    widetable.show(console, table)
    text = f"{quote.wish.market} in {quote.wish.region}: at most {quote.usd_h:.3f} USD an hour, {quote.hours:.1f} hours"
    console.print(f"{text}, {quote.usd_h * quote.hours:.2f} USD in all", highlight=False)


def quote_json(quote: Quote) -> dict[str, Any]:
    """The same for programs."""
    return {
        "region": quote.wish.region,
        "market": str(quote.wish.market),
        "instances": dict(quote.wish.instances),
        "compiling": dict(quote.wish.compiling),
        "images": {arch: image.id for arch, image in quote.images.items()},
        "usd_h": quote.usd_h,
        "hours": quote.hours,
        "usd": quote.usd_h * quote.hours,
    }


def rental(console: Console, one: Rental, spans: Sequence[Span], now: float) -> None:
    """How a rental stands, what it has cost, and its instances."""
    made = bill.bill(one.instances, spans, now)
    begun = f"{one.run}: {one.state} since {clock(one.began, now)}, {one.market} in {one.region}"
    limits = f"--max-hosts {one.limits.hosts} --max-price {one.limits.usd_h:g} --budget {one.limits.budget_usd:g}"
    limits += " --grow" if one.grows else ""
    console.print(
        f"{begun}; about {made.total:.2f} USD so far; {limits}, {one.hours:.1f} h", highlight=False, soft_wrap=True
    )
    table = widetable.table("host", "instance", "type", "address", "state", numbers=("age", "USD"))
    for each in one.instances:
        age = duration((each.until or now) - each.since)
        type_ = _type(each.type, compiles_only=each.compiles_only)
        row = (each.name, each.id, type_, each.address, _state(one, each.until, each.joined, each.why))
        table.add_row(*row, age, f"{bill.cost(each, now):.2f}")
    if one.instances:
        widetable.show(console, table)
    for missing in one.missing:
        console.print(f"not to be had: {missing}", highlight=False, markup=False)
    for package, usd in sorted(made.packages.items(), key=lambda item: -item[1])[:_DEAREST]:
        console.print(f"  {usd:.3f} USD  {package}", highlight=False, markup=False)


def _type(name: str, *, compiles_only: bool) -> str:
    return f"{name} to compile" if compiles_only else name


def _state(one: Rental, until: float | None, joined: bool, why: str) -> str:
    if until is not None:
        return f"gone: {why}" if why else "gone"
    return "joined" if joined else str(one.state)


def rental_json(one: Rental, spans: Sequence[Span], now: float) -> dict[str, Any]:
    """The same for programs."""
    made = bill.bill(one.instances, spans, now)
    costs = [{"name": each.name, "cost_usd": bill.cost(each, now), **asdict(each)} for each in one.instances]
    return {**asdict(one), "instances": costs, "bill": asdict(made)}


def leftovers(console: Console, found: Sequence[tuple[str, Leftover]], verb: str) -> None:
    """What is left, or what was removed: each with its region."""
    for region, one in found:
        console.print(f"{verb} {one.kind} {one.id} of {one.run} in {region}", highlight=False, markup=False)
    if not found:
        console.print(f"nothing {verb}", highlight=False)


def leftover_json(region: str, one: Leftover) -> dict[str, Any]:
    """The same for programs."""
    return {"region": region, **asdict(one)}
