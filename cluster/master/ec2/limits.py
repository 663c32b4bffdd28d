"""What a rental may cost: decided before anything is started, from the most that each instance can cost."""

from __future__ import annotations

import math
from collections.abc import Mapping

from cluster.errors import InputError
from cluster.master.ec2.rental import Limits

_MINUTES_H = 60


def rate(instances: Mapping[str, int], usd_h: Mapping[str, float]) -> float:
    """USD for an hour of `instances`, how many of each type, where one costs `usd_h` at most."""
    return sum(count * usd_h[type_] for type_, count in instances.items())


def hours(instances: Mapping[str, int], usd_h: Mapping[str, float], limits: Limits) -> float:
    """For how many hours `instances` can be rented: what was asked for, else whole minutes until the budget is spent.

    Raises InputError if one of `limits` would be exceeded.
    """
    count, price = sum(instances.values()), rate(instances, usd_h)
    if count > limits.hosts:
        raise InputError(f"{count} instances are more than --max-hosts {limits.hosts}", "wish for fewer, or allow more")
    if price > limits.usd_h:
        what = f"{count} instances cost up to {price:.3f} USD an hour, more than --max-price {limits.usd_h:g}"
        raise InputError(what, "wish for fewer or cheaper ones, or allow more")
    if price > limits.budget_usd:
        what = f"a budget of {limits.budget_usd:g} USD is too small for one hour of these instances"
        raise InputError(what, f"an hour costs up to {price:.3f} USD: --budget")
    if limits.hours is None:
        return math.floor(limits.budget_usd / price * _MINUTES_H) / _MINUTES_H
    if limits.hours * price > limits.budget_usd:
        what = f"{limits.hours:g} hours cost up to {limits.hours * price:.2f} USD, more than --budget"
        raise InputError(f"{what} {limits.budget_usd:g}", f"at most {limits.budget_usd / price:.2f} hours: --hours")
    return limits.hours


def check(limits: Limits) -> None:
    """Raise InputError for limits that no rental could keep."""
    for option, value in (
        ("--max-hosts", limits.hosts),
        ("--max-price", limits.usd_h),
        ("--budget", limits.budget_usd),
    ):
        if not 0 < value < math.inf:
            raise InputError(f"{option} {value:g} lets nothing be rented", "use a number above 0")
    if limits.hours is not None and not 1 <= limits.hours < math.inf:
        raise InputError(f"--hours {limits.hours:g} is too short", "use at least 1")
