"""Where the boxes and lines of a layered graph go.

Sugiyama's method ("Methods for visual understanding of hierarchical system structures", IEEE SMC
11(2), 1981) with the levels given: order by barycentres, then place. Two things are of our own,
which no library has without Graphviz: a level of many boxes takes several columns, and all lines
that leave a box share one trunk, from which each branches off at its end. Without that, 300
packages with 900 dependencies are 7,000 lines side by side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt

GAP_X, GAP_Y = 46.0, 9.0
_LANE_Y = 5.0  # of a trunk on its way through a column
_GAP_LEVEL = 14.0  # more between levels than between the columns of one
_FEWEST_ROWS = 12
_SWEEPS = 24


@dataclass(frozen=True, slots=True)
class Box:
    """Something to place."""

    level: int
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Place:
    """Where a box goes: its upper left corner and its size."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Band:
    """The columns of a level."""

    level: int
    x: float
    width: float


Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Line:
    """A way through points: curved from the first to the second, straight to the third, and so on.

    Two points with the same x are joined by a bow to the right.
    """

    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """A drawing. No two boxes overlap; the smallest coordinate is 0."""

    boxes: tuple[Place, ...]
    lines: tuple[Line, ...]
    """In the order they were given, each from its start to its end."""
    bands: tuple[Band, ...]
    width: float
    height: float


@dataclass(slots=True)
class _Item:
    """A box or a lane in a column; `y` is its middle."""

    height: float
    y: float = 0.0


@dataclass(frozen=True, slots=True)
class _Column:
    level: int
    boxes: tuple[int, ...]


def place(boxes: Sequence[Box], lines: Sequence[tuple[int, int]]) -> Layout:
    """A place for each of `boxes`, and a way for each line from one box to another.

    Levels are columns from left to right. n log n in boxes, lines and the lengths of the trunks in columns.
    """
    columns = _columns(boxes, lines)
    column_of = {box: number for number, column in enumerate(columns) for box in column.boxes}
    items = {(box, column_of[box]): _Item(boxes[box].height) for column in columns for box in column.boxes}
    items.update((lane, _Item(_LANE_Y)) for lane in _lanes(lines, column_of))
    _arrange(items, _steps(lines, column_of), len(columns))
    top = min((item.y - item.height / 2 for item in items.values()), default=0.0)
    for item in items.values():
        item.y -= top
    xs, widths = _widths(columns, boxes)
    places = []
    for number, box in enumerate(boxes):
        column = column_of[number]
        places.append(Place(xs[column], items[number, column].y - box.height / 2, widths[column], box.height))
    return Layout(
        tuple(places),
        tuple(_line(line, column_of, items, xs, widths) for line in lines),
        tuple(_bands(columns, xs, widths)),
        xs[-1] + widths[-1] if columns else 0.0,
        max((item.y + item.height / 2 for item in items.values()), default=0.0),
    )


# Which column.


def _columns(boxes: Sequence[Box], lines: Sequence[tuple[int, int]]) -> list[_Column]:
    """The boxes of each level in columns of a bearable height.

    First come those that no line of their level ends at, so that lines inside a level go to the right too.
    The least connected are furthest from the next level, where their trunks would be longest.
    """
    rows = max(_FEWEST_ROWS, round(1.7 * sqrt(len(boxes))))
    inside = [(start, end) for start, end in lines if boxes[start].level == boxes[end].level]
    late = {end for _, end in inside}
    count = Counter(end for line in lines for end in line)
    groups: dict[tuple[int, bool], list[int]] = {}
    for number in sorted(range(len(boxes)), key=lambda number: (count[number], number)):
        groups.setdefault((boxes[number].level, number in late), []).append(number)
    return [
        _Column(level, tuple(part)) for (level, _), members in sorted(groups.items()) for part in _even(members, rows)
    ]


def _even(members: Sequence[int], most: int) -> Iterator[Sequence[int]]:
    """`members` in as few parts of at most `most` as can be, all about equal."""
    parts = -(-len(members) // most)
    for part in range(parts):
        yield members[part * len(members) // parts : (part + 1) * len(members) // parts]


def _ends(line: tuple[int, int], column_of: Mapping[int, int]) -> tuple[int, int]:
    """The left and the right end of a line."""
    start, end = line
    return (start, end) if column_of[start] <= column_of[end] else (end, start)


def _lanes(lines: Iterable[tuple[int, int]], column_of: Mapping[int, int]) -> Iterator[tuple[int, int]]:
    """The trunks of the boxes: box and each column that its trunk passes."""
    reach: dict[int, int] = {}
    for line in lines:
        left, right = _ends(line, column_of)
        reach[left] = max(reach.get(left, 0), column_of[right])
    for box, last in reach.items():
        yield from ((box, column) for column in range(column_of[box] + 1, last))


def _steps(
    lines: Iterable[tuple[int, int]], column_of: Mapping[int, int]
) -> set[tuple[tuple[int, int], tuple[int, int]]]:
    """What is joined from one column to the next, trunks once."""
    steps = set()
    for line in lines:
        left, right = _ends(line, column_of)
        first, last = column_of[left], column_of[right]
        if first < last:
            steps.add(((left, last - 1), (right, last)))
    for box, column in _lanes(lines, column_of):
        steps.add(((box, column - 1), (box, column)))
    return steps


# Which row.


def _arrange(
    items: Mapping[tuple[int, int], _Item],
    steps: Iterable[tuple[tuple[int, int], tuple[int, int]]],
    count: int,
) -> None:
    """Give every item a `y`: each sweep orders and places a column by what it is joined to on one side."""
    inward: dict[tuple[int, int], list[_Item]] = {}
    outward: dict[tuple[int, int], list[_Item]] = {}
    for left, right in sorted(steps):
        inward.setdefault(right, []).append(items[left])
        outward.setdefault(left, []).append(items[right])
    columns: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    for key in items:
        columns[key[1]].append(key)
    for column in columns:
        _settle([items[key] for key in column])
    for sweep in range(_SWEEPS):
        forth = sweep % 2 == 0
        for column in columns if forth else reversed(columns):
            middle = sum(items[key].y for key in column) / len(column)
            wanted = {key: _wanted(inward.get(key, []), outward.get(key, []), middle, forth) for key in column}
            column.sort(key=lambda key: wanted[key])  # stable: what wants the same stays in order
            for key in column:
                items[key].y = wanted[key]
            _settle([items[key] for key in column])


def _wanted(inward: Sequence[_Item], outward: Sequence[_Item], middle: float, forth: bool) -> float:
    """The barycentre of the neighbours on the side the sweep comes from, of the others, or the column's middle."""
    near = (inward or outward) if forth else (outward or inward)
    return sum(other.y for other in near) / len(near) if near else middle


def _settle(items: Sequence[_Item]) -> None:
    """Move items, in their order, as little as possible so that none overlap.

    The least sum of squares, by pooling adjacent violators (Barlow and others, "Statistical
    Inference under Order Restrictions", 1972). Linear.
    """
    offsets = [0.0]
    for above, below in pairwise(items):
        gap = GAP_Y if max(above.height, below.height) > _LANE_Y else 0.0
        offsets.append(offsets[-1] + (above.height + below.height) / 2 + gap)
    pools: list[tuple[float, int]] = []  # mean and number
    for item, offset in zip(items, offsets, strict=False):
        mean, size = item.y - offset, 1
        while pools and pools[-1][0] >= mean:
            other, number = pools.pop()
            mean, size = (mean * size + other * number) / (size + number), size + number
        pools.append((mean, size))
    means = (mean for mean, size in pools for _ in range(size))
    for item, offset, mean in zip(items, offsets, means, strict=False):
        item.y = mean + offset


# Coordinates.


def _widths(columns: Sequence[_Column], boxes: Sequence[Box]) -> tuple[list[float], list[float]]:
    """The left edge and the width of each column."""
    xs: list[float] = []
    widths = [max(boxes[box].width for box in column.boxes) for column in columns]
    x = 0.0
    for number, column in enumerate(columns):
        if number and column.level != columns[number - 1].level:
            x += _GAP_LEVEL
        xs.append(x)
        x += widths[number] + GAP_X
    return xs, widths


def _bands(columns: Sequence[_Column], xs: Sequence[float], widths: Sequence[float]) -> Iterator[Band]:
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for number, column in enumerate(columns):
        first.setdefault(column.level, number)
        last[column.level] = number
    for level, number in first.items():
        yield Band(level, xs[number], xs[last[level]] + widths[last[level]] - xs[number])


def _line(
    line: tuple[int, int],
    column_of: Mapping[int, int],
    items: Mapping[tuple[int, int], _Item],
    xs: Sequence[float],
    widths: Sequence[float],
) -> Line:
    left, right = _ends(line, column_of)
    first, last = column_of[left], column_of[right]
    points = [(xs[first] + widths[first], items[left, first].y)]
    if first == last:
        points.append((xs[last] + widths[last], items[right, last].y))
    else:
        for column in range(first + 1, last):
            y = items[left, column].y
            points += [(xs[column], y), (xs[column] + widths[column], y)]
        points.append((xs[last], items[right, last].y))
    return Line(tuple(points if left == line[0] else reversed(points)))
