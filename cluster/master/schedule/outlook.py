"""What is still to come of a run: the core that builds plays the rest of it, and what has finished says how far off.

A time that is expected is `now + left * median`: what is left until then by the scheduler's own times, times the
median of what finished packages took over what was expected of them. The tenth and the ninetieth percentile in the
place of the median give the range. With fewer than three finished packages the factor is 1 and there is no range.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import median, quantiles

from cluster.master.schedule import simulation
from cluster.master.schedule.simulation import Stay
from cluster.master.schedule.state import State
from cluster.model import Cpv

_ENOUGH = 3  # finished packages


@dataclass(frozen=True, slots=True)
class Outlook:
    """How a run goes on from `now` if all takes what the scheduler expects. Times are seconds since the run's start."""

    now: float
    end: float
    """When the last package ends; infinity where nothing more can happen."""
    stays: Mapping[Cpv, Stay]
    """Of every package that is still to end and can."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """What finished packages took over what was expected of them."""

    count: int
    low: float
    """A tenth of them took less."""
    median: float
    high: float
    """A tenth of them took more."""


@dataclass(frozen=True, slots=True)
class Eta:
    """When something ends, seen from the packages that have finished; seconds since the run's start."""

    at: float
    earliest: float
    latest: float


def outlook(state: State, now: float) -> Outlook:
    """The rest of a run. It takes a decision for each package that is left."""
    trace = simulation.run(state, simulation.expected(state), now=now)
    return Outlook(now, trace.end if trace.state.done else math.inf, {stay.cpv: stay for stay in trace.stays})


def carried(ahead: Outlook, state: State, now: float) -> Outlook:
    """`ahead` as it looks later, at `now`, when the run is at `state`: what has not come yet comes that much later."""
    stays: dict[Cpv, Stay] = {}
    for cpv, stay in ahead.stays.items():
        place = state.tasks.places[cpv]
        if running := state.running.get(place):
            stays[cpv] = Stay(running.node, cpv, running.since, running.expected(now), stay.verdict)
        elif place not in state.ended:
            since = max(now, stay.since)
            stays[cpv] = replace(stay, since=since, until=since + (stay.until - stay.since))
    return Outlook(now, max((ahead.end, *(stay.until for stay in stays.values()))), stays)


def accuracy(ratios: Iterable[float]) -> Accuracy | None:
    """Of the `ratios` of actual to expected seconds; None where there are too few to tell."""
    known = list(ratios)
    if len(known) < _ENOUGH:
        return None
    tenths, middle = quantiles(known, n=10, method="inclusive"), median(known)
    # Interpolated, so that of equal ratios a quantile may be off by the last digit.
    return Accuracy(len(known), min(tenths[0], middle), middle, max(tenths[-1], middle))


def eta(at: float, now: float, seen: Accuracy | None) -> Eta:
    """What becomes of `at`, a time that the scheduler expects, after what was `seen`."""
    if seen is None:
        return Eta(at, at, at)
    left = max(0.0, at - now)
    return Eta(now + left * seen.median, now + left * seen.low, now + left * seen.high)
