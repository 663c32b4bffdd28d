"""What a rental has cost, and which package how much of it: an estimate from what an hour was to cost at most.

AWS bills an instance by the second while it runs, the first minute whole
(https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/concepts.html, "Pricing for Amazon EC2").
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cluster.master.ec2.rental import Instance, Span

LEAST_S = 60.0
_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Bill:
    """An estimate in USD."""

    total: float
    packages: Mapping[str, float]
    idle: float
    """Of instances that built none of the packages: with `packages` it comes to `total`."""


def seconds(instance: Instance, now: float) -> float:
    """For how long it is paid at `now`, seconds since the epoch."""
    return max(LEAST_S, (now if instance.until is None else instance.until) - instance.since)


def cost(instance: Instance, now: float) -> float:
    """USD of one instance until `now`."""
    return instance.usd_h * seconds(instance, now) / _HOUR_S


def total(instances: Iterable[Instance], now: float) -> float:
    """USD of all until `now`."""
    return sum(cost(one, now) for one in instances)


def bill(instances: Sequence[Instance], spans: Iterable[Span], now: float) -> Bill:
    """What each package cost: of each host all that it costs, in proportion to its nodes' seconds with each package."""
    nodes: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for span in spans:
        nodes[span.host][span.package] += span.seconds
    packages: defaultdict[str, float] = defaultdict(float)
    idle = 0.0
    for instance in instances:
        usd = cost(instance, now)
        built: Mapping[str, float] = nodes.get(instance.name, {})
        worked = sum(built.values())
        if not worked:
            idle += usd
            continue
        for package, took in built.items():
            packages[package] += usd * took / worked
    return Bill(total(instances, now), dict(packages), idle)
