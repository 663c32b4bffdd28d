"""A run as an SVG chart: a row for each node, a bar for each package on it, what the end waited for in red."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from cluster.drawing import templates
from cluster.master.estimate import duration
from cluster.master.schedule import critical
from cluster.master.schedule.hosts import Host
from cluster.master.schedule.simulation import Stay
from cluster.master.trial import Trial
from cluster.model import Verdict

_WIDTH = 1200.0  # of the time axis
_HEIGHT = 1300.0  # of all rows, as far as that goes
_ROW = (2.0, 20.0)  # the least and the greatest height of one
_NAMED = 9.0  # a row of less height has no room for its name
_FRAMED = 3.0  # a bar of less width would be frame alone
_LETTER = 5.6  # a letter's width, on the wide side
_LINE = 24.0  # between groups of nodes, for their heading
_TICKS = 12  # at most
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_STEPS = (
    *(1, 2, 5, 10, 15, 30),
    *(number * _MINUTE for number in (1, 2, 5, 10, 15, 30)),
    *(number * _HOUR for number in (1, 2, 3, 6, 12)),
    *(number * _DAY for number in (1, 2, 7)),
)


@dataclass(frozen=True, slots=True)
class _Bar:
    """What the template draws of a package on a node."""

    x: float
    width: float
    name: str
    title: str
    classes: str


@dataclass(frozen=True, slots=True)
class _Row:
    """What it draws of a node."""

    y: float
    name: str
    bars: tuple[_Bar, ...]
    gone_x: float | None
    """From where on its host is not there."""


@dataclass(frozen=True, slots=True)
class _Group:
    """What it draws of the nodes of one speed."""

    y: float
    heading: str
    rows: tuple[_Row, ...]


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark of the time axis."""

    at: float
    """Seconds."""
    label: str


def ticks(end: float) -> tuple[Tick, ...]:
    """Marks from 0 to `end` seconds, in steps that a person counts in."""
    step = next((step for step in _STEPS if end <= step * _TICKS), None)
    step = step or _STEPS[-1] * math.ceil(end / (_STEPS[-1] * _TICKS))
    unit, size = next(
        (unit, size) for unit, size in (("d", _DAY), ("h", _HOUR), ("min", _MINUTE), ("s", 1)) if step >= size
    )
    return tuple(Tick(at, f"{at // size:g} {unit}" if at else "0") for at in range(0, math.floor(end) + 1, step))


def svg(trial: Trial, hosts: Sequence[Host], title: str) -> str:
    """The chart of `trial`, which was run on `hosts`, as an SVG document."""
    count = sum(len(host.nodes) for host in hosts)
    row = min(max(_HEIGHT / count, _ROW[0]), _ROW[1])
    end = max(trial.makespan_s, trial.lower_bound_s)
    scale = _WIDTH / end if end else 0.0
    groups = tuple(_groups(trial, hosts, row, scale))
    return templates.svg("gantt.svg.jinja").render(
        title=title,
        subtitles=_subtitles(trial),
        width=_WIDTH,
        height=len(groups) * _LINE + count * row,
        row=row,
        named=row >= _NAMED,
        groups=groups,
        ticks=[(tick.at * scale, tick.label) for tick in ticks(end)],
        bound_x=trial.lower_bound_s * scale,
        lost=trial.lost > 0,
        gone=bool(trial.gone),
    )


def _subtitles(trial: Trial) -> tuple[str, ...]:
    chain = critical.chain(trial.trace)
    built = sum(stay.until - stay.since for stay in chain if stay.verdict is Verdict.BUILT)
    lost = f"; {trial.lost} times a package lost its node" if trial.lost else ""
    return (
        f"done in {duration(trial.makespan_s)}, {trial.ratio:.3f} of the {duration(trial.lower_bound_s)} "
        f"that any schedule takes at least{lost}",
        f"the end waited for {len(chain)} builds one after another, {duration(built)} of work",
    )


def _groups(trial: Trial, hosts: Sequence[Host], row: float, scale: float) -> Iterator[_Group]:
    """The nodes of each speed, the fastest first."""
    stays: dict[str, list[Stay]] = {}
    for stay in trial.trace.stays:
        stays.setdefault(stay.node, []).append(stay)
    chain = frozenset(critical.chain(trial.trace))
    y = 0.0
    for speed, some in groupby(sorted(hosts, key=lambda host: -host.speed), lambda host: host.speed):
        nodes = [(node, trial.gone.get(host.name)) for host in some for node in host.nodes]
        busy = sum(stay.until - stay.since for node, _ in nodes for stay in stays.get(node, ()))
        share = busy / (len(nodes) * trial.makespan_s) if trial.makespan_s else 0.0
        heading = f"speed {speed:g}: {len(nodes)} node{'s' * (len(nodes) > 1)}, busy {share:.0%} of the time"
        rows = tuple(
            _Row(
                y + _LINE + number * row,
                node,
                tuple(_bar(stay, stay in chain, scale) for stay in stays.get(node, ())),
                None if left is None or left >= trial.makespan_s else left * scale,
            )
            for number, (node, left) in enumerate(nodes)
        )
        yield _Group(y, heading, rows)
        y += _LINE + len(nodes) * row


def _bar(stay: Stay, chained: bool, scale: float) -> _Bar:
    x, width = stay.since * scale, (stay.until - stay.since) * scale
    lost = stay.verdict is Verdict.LOST
    marks = {"chained": chained, "lost": lost, "framed": width >= _FRAMED}
    lines = (
        str(stay.cpv),
        f"{'lost its node' if lost else 'built'} after {duration(stay.until - stay.since)}, on {stay.node}",
        f"from {duration(stay.since)} to {duration(stay.until)}",
    )
    name = stay.cpv.rpartition("/")[2]
    classes = " ".join(["bar", *(mark for mark, holds in marks.items() if holds)])
    return _Bar(x, width, name if len(name) * _LETTER < width else "", "\n".join(lines), classes)
