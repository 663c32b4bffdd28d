"""What `cluster ec2 plan` and `cluster ec2 catalogue` tell a person, and the same for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from cluster import widetable
from cluster.master.ec2.catalogue import Catalogue, Offer
from cluster.master.ec2.mixes import Fleet, Mix, Proposal
from cluster.master.estimate import UNKNOWN_S, duration

_BAR = 20  # columns


@dataclass(frozen=True, slots=True)
class Answer:
    """All that was asked, and what came out."""

    target: str
    catalogue: Catalogue
    proposal: Proposal
    packages: int
    unknown: int
    """Packages of which no build is known."""


def json(answer: Answer) -> dict[str, Any]:
    """The contract of `cluster ec2 plan --json`."""
    return {
        "target": answer.target,
        "region": answer.catalogue.region,
        "dated": answer.catalogue.dated.isoformat(),
        "packages": answer.packages,
        "unknown": answer.unknown,
        "mixes": [_json(mix) for mix in answer.proposal.mixes],
        "lower_bound_s": round(answer.proposal.lower_bound_s, 3),
    }


def _json(mix: Mix) -> dict[str, Any]:
    compiling = mix.fleet.compiling
    return {
        "instances": _instances(mix.fleet),
        "market": mix.market,
        "finish_s": round(mix.finish_s, 3),
        "cost_usd": round(mix.cost_usd, 4),
        "compiling": {compiling[0].type: compiling[1]} if compiling else {},
        "nodes": mix.fleet.nodes,
        "usd_h": round(mix.usd_h, 4),
        "lower_bound_s": round(mix.bound_s, 3),
    }


def _instances(fleet: Fleet) -> dict[str, int]:
    found: dict[str, int] = {}
    for offer, count in fleet.all:
        found[offer.type] = found.get(offer.type, 0) + count
    return found


def named(fleet: Fleet) -> str:
    """`fleet` in words."""
    building = " + ".join(f"{count} {offer.type}" for offer, count in fleet.building)
    if fleet.compiling is None:
        return building
    offer, count = fleet.compiling
    return f"{building}, {count} {offer.type} to compile"


def show(console: Console, answer: Answer) -> None:
    """A line for each mix, a bar for its time, then what that rests on in a sentence each."""
    mixes = answer.proposal.mixes
    slowest = max(mix.finish_s for mix in mixes)
    table = widetable.table("market", "instances", numbers=("nodes", "USD/h", "ends in", "USD"))
    table.add_column("")
    for mix in mixes:
        bar = "█" * max(1, round(_BAR * mix.finish_s / slowest))
        numbers = (str(mix.fleet.nodes), f"{mix.usd_h:.2f}", duration(mix.finish_s), f"{mix.cost_usd:.2f}")
        table.add_row(mix.market, named(mix.fleet), *numbers, bar)
    widetable.show(console, table)
    for line in _sentences(answer):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _sentences(answer: Answer) -> Iterator[str]:
    bound = duration(answer.proposal.lower_bound_s)
    yield f"{answer.packages} packages for {answer.target}; within these limits nothing ends before {bound}."
    if answer.unknown:
        yield f"Of {answer.unknown} no build is known: they are taken to need {UNKNOWN_S:g} s."
    offers = [offer for mix in answer.proposal.mixes for offer, _ in mix.fleet.building]
    yield f"Prices are those of {answer.catalogue.region} on {answer.catalogue.dated}; {_speeds(offers)}."


def _speeds(offers: Sequence[Offer]) -> str:
    estimated = sorted({offer.type for offer in offers if not offer.measured})
    return f"speeds are estimates until measured: {', '.join(estimated)}" if estimated else "speeds were measured"


def catalogue_json(catalogue: Catalogue, offers: Sequence[Offer]) -> dict[str, Any]:
    """The contract of `cluster ec2 catalogue --json`."""
    return {
        "dated": catalogue.dated.isoformat(),
        "region": catalogue.region,
        "types": [
            {
                "type": offer.type,
                "arch": offer.arch,
                **catalogue.types[offer.type].model_dump(),
                "driver": offer.driver,
                "nodes": offer.nodes,
                "speed": offer.speed,
                "measured": offer.measured,
            }
            for offer in offers
        ],
    }


def show_catalogue(console: Console, catalogue: Catalogue, offers: Sequence[Offer], target: str) -> None:
    """A line for each type."""
    numbers = ("vCPUs", "GiB", "Gbit/s", "USD/h", "spot", "nodes", "speed")
    table = widetable.table("type", "arch", numbers=numbers)
    table.add_column("nodes are")
    for offer in offers:
        one = catalogue.types[offer.type]
        sizes = (str(one.vcpus), f"{one.memory_gib:g}", f"{one.network_gbps:g}")
        prices = (f"{one.usd_h:.4f}", f"{one.spot_usd_h:.4f}")
        speed = f"{offer.speed:.2f}" if offer.measured else f"~{offer.speed:.2f}"
        table.add_row(offer.type, offer.arch, *sizes, *prices, str(offer.nodes), speed, offer.driver)
    widetable.show(console, table)
    words = f"Prices of {catalogue.region} on {catalogue.dated}; nodes for {target}, ~ where the speed is an estimate."
    console.print(words, highlight=False, markup=False, soft_wrap=True)
