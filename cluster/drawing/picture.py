"""The shape of a plan as an SVG picture: levels from left to right, the critical path in red."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from cluster.drawing import layers, templates
from cluster.drawing.layers import Line, Place
from cluster.master.estimate import SIGNS, Basis, duration
from cluster.master.shape import Shape, Vertex
from cluster.model import Cpv, Kind

_HEIGHT = 34.0
_NAME_X, _SMALL_X = 7.4, 5.9  # a letter's width in the two sizes, on the wide side
_PADDING = 16.0
_WORDS = {Kind.BUILD: "needs for its build", Kind.RUN: "needs to run", Kind.POST: "needs some time after"}
_BASES = {
    Basis.VERSION: "as another version took",
    Basis.SIZE: "by the size of its sources",
    Basis.CATEGORY: "as its category takes",
    Basis.ASSUMED: "assumed, never built",
}
# Tints of Okabe and Ito's colours, which nobody confuses.
_TINTS = ("#d6ebf8", "#fdeccb", "#cdeee3", "#f3dceb", "#fbf7c4")


@dataclass(frozen=True, slots=True)
class _Node:
    """What the template draws of a package."""

    number: int
    place: Place
    name: str
    small: str
    title: str
    tint: str
    classes: str


@dataclass(frozen=True, slots=True)
class _Path:
    """What the template draws of a dependency."""

    start: int
    end: int
    curve: str
    title: str
    classes: str


def svg(shape: Shape, title: str) -> str:
    """The picture of `shape` as an SVG document."""
    labels = [_label(vertex) for vertex in shape.vertices]
    number_of = {vertex.package.cpv: number for number, vertex in enumerate(shape.vertices)}
    edges = [(number_of[edge.needs], number_of[edge.package]) for edge in shape.edges]
    critical = [(number_of[first], number_of[after]) for first, after in pairwise(shape.critical_path)]
    boxes = [
        layers.Box(vertex.level, max(_NAME_X * len(name), _SMALL_X * len(small)) + _PADDING, _HEIGHT)
        for vertex, (name, small) in zip(shape.vertices, labels, strict=True)
    ]
    layout = layers.place(boxes, [*edges, *critical])
    bases = {vertex.estimate.basis for vertex in shape.vertices}
    titles = [_edge_title(shape, number) for number in range(len(edges))]
    kinds = [str(edge.kinds[0]) for edge in shape.edges]
    ends = [*edges, *critical]
    texts = [*titles, *(_link_title(*link) for link in pairwise(shape.critical_path))]
    classes = [*kinds, *("critical" for _ in critical)]
    paths = [
        _Path(*ends[number], _curve(line), texts[number], classes[number]) for number, line in enumerate(layout.lines)
    ]
    return templates.svg("picture.svg.jinja").render(
        title=title,
        subtitles=list(_subtitles(shape)),
        layout=layout,
        nodes=[
            _node(number, vertex, layout.boxes[number], labels[number]) for number, vertex in enumerate(shape.vertices)
        ],
        # Weak ones first: where they share a trunk the strongest is seen.
        paths=sorted(paths, key=lambda path: _STRENGTH[path.classes]),
        circles=[(_tint(number), len(circle)) for number, circle in enumerate(shape.circles, 1)][: len(_TINTS)],
        levels=shape.levels,
        bases=[(SIGNS[basis], words) for basis, words in _BASES.items() if basis in bases],
        skipped=any(not vertex.package.action.builds for vertex in shape.vertices),
    )


_STRENGTH = {"post": 0, "run": 1, "build": 2, "critical": 3}


def _subtitles(shape: Shape) -> Iterator[str]:
    levels = shape.levels
    widest = max(levels, default=0)
    yield (
        f"{len(shape.vertices)} packages, {len(shape.edges)} dependencies, {len(levels)} levels, "
        f"at most {widest} packages on one"
    )
    yield (
        f"critical path: {len(shape.critical_path)} packages, {duration(shape.critical_s)} "
        f"of {duration(shape.work_s)} of work, so at most {shape.parallelism:.1f} builds at once on average"
    )


def _label(vertex: Vertex) -> tuple[str, str]:
    """The two lines in a box."""
    category, pf = vertex.package.category, vertex.package.pf
    return pf, f"{category} · {vertex.estimate}"


def _tint(component: int) -> str:
    return _TINTS[(component - 1) % len(_TINTS)]


def _node(number: int, vertex: Vertex, place: Place, label: tuple[str, str]) -> _Node:
    package = vertex.package
    lines = [
        f"{package.cpv}:{package.slot}",
        f"USE: {' '.join(package.use) or 'none'}",
        f"{package.action.value} ({package.reason})" if package.reason else package.action.value,
        f"level {vertex.level}, {vertex.estimate} ({vertex.estimate.basis.value})",
    ]
    if vertex.circular:
        lines.append(f"in circle {vertex.component}")
    marks = {"critical": vertex.critical, "skip": not package.action.builds, "requested": package.requested}
    classes = " ".join(["node", *(mark for mark, holds in marks.items() if holds)])
    tint = _tint(vertex.component) if vertex.circular else "#ffffff"
    return _Node(number, place, *label, "\n".join(lines), tint, classes)


def _edge_title(shape: Shape, number: int) -> str:
    edge = shape.edges[number]
    how = " and ".join(_WORDS[kind] for kind in edge.kinds)
    return f"{edge.package} {how} {edge.needs}\n{' '.join(edge.atoms)}"


def _link_title(first: Cpv, after: Cpv) -> str:
    return f"critical path: {after} waits for {first}"


def _curve(line: Line) -> str:
    """The `d` of a path: curves between columns, straight through them."""
    points = line.points
    (x, y), *_ = points
    parts = [f"M{x:.1f} {y:.1f}"]
    for number, ((x1, y1), (x2, y2)) in enumerate(pairwise(points)):
        if x1 == x2:
            bow = x1 + min(layers.GAP_X * 0.75, 10 + abs(y2 - y1) / 8)
            parts.append(f"C{bow:.1f} {y1:.1f} {bow:.1f} {y2:.1f} {x2:.1f} {y2:.1f}")
        elif number % 2:
            parts.append(f"H{x2:.1f}")
        else:
            middle = (x1 + x2) / 2
            parts.append(f"C{middle:.1f} {y1:.1f} {middle:.1f} {y2:.1f} {x2:.1f} {y2:.1f}")
    return "".join(parts)
