"""Mixes of instances as an SVG chart: what each costs against when it ends, numbered, with a list beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cluster import mixtable
from cluster.drawing import templates
from cluster.drawing.gantt import ticks
from cluster.master.ec2.mixes import MARKETS, Mix, Proposal
from cluster.master.ec2.rental import Market
from cluster.master.estimate import duration

_WIDTH, _HEIGHT = 640.0, 420.0  # of what is between the axes
_MARGIN = 1.06  # beyond the last point
_STEPS = (1, 2, 5)  # of a decade


@dataclass(frozen=True, slots=True)
class _Point:
    """What the template draws of a mix."""

    number: int
    x: float
    y: float
    title: str
    """In words, a line of the list."""
    figures: str


@dataclass(frozen=True, slots=True)
class _Curve:
    """What it draws of a market."""

    market: Market
    points: tuple[_Point, ...]


@dataclass(frozen=True, slots=True)
class _Axes:
    """Time from 0 to `end_s`, linear; USD from `low` to `high`, logarithmic, as they differ by tens of times."""

    end_s: float
    low: float
    high: float

    def x(self, seconds: float) -> float:
        return _WIDTH * seconds / self.end_s

    def y(self, usd: float) -> float:
        return _HEIGHT * (1 - math.log(usd / self.low) / math.log(self.high / self.low))


def svg(proposal: Proposal, title: str) -> str:
    """The chart of `proposal`, which has mixes, as an SVG document."""
    marks = _usd([mix.cost_usd for mix in proposal.mixes])
    axes = _Axes(max(mix.finish_s for mix in proposal.mixes) * _MARGIN, marks[0], marks[-1])
    return templates.svg("curve.svg.jinja").render(
        title=title,
        width=_WIDTH,
        height=_HEIGHT,
        curves=tuple(_curves(proposal.mixes, axes)),
        times=[(axes.x(tick.at), tick.label) for tick in ticks(axes.end_s)],
        costs=[(axes.y(usd), f"{usd:g} USD") for usd in marks],
        bound_x=axes.x(proposal.lower_bound_s),
    )


def _curves(mixes: Sequence[Mix], axes: _Axes) -> Iterator[_Curve]:
    numbered = tuple(enumerate(mixes, 1))
    for market in MARKETS:
        points = tuple(_point(number, mix, axes) for number, mix in numbered if mix.market == market)
        if points:
            yield _Curve(market, points)


def _point(number: int, mix: Mix, axes: _Axes) -> _Point:
    figures = f"{duration(mix.finish_s)}, {mix.cost_usd:.2f} USD"
    return _Point(number, axes.x(mix.finish_s), axes.y(mix.cost_usd), mixtable.named(mix.fleet), figures)


def _usd(costs: Sequence[float]) -> list[float]:
    """Marks of 1, 2 and 5 times powers of ten around `costs`, two at least."""
    first, last = (math.floor(math.log10(one)) for one in (min(costs), max(costs)))
    every = [float(f"{step}e{power}") for power in range(first, last + 2) for step in _STEPS]
    low = max(mark for mark in every if mark <= min(costs))
    high = min(mark for mark in every if mark > max(costs))
    return [mark for mark in every if low <= mark <= high]
