"""The files that the shape of a plan can be written to."""

from __future__ import annotations

import enum
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import jinja2

from cluster import paths
from cluster.drawing import picture
from cluster.errors import InputError
from cluster.master.estimate import Estimate
from cluster.master.graph import graphml
from cluster.master.shape import Edge, Shape, Vertex
from cluster.model import Cpv, Kind


class Format(enum.StrEnum):
    """A file format, called as its file name's suffix."""

    SVG = "svg"
    DOT = "dot"
    GRAPHML = "graphml"
    JSON = "json"


_STYLES = {Kind.BUILD: "solid", Kind.RUN: "dashed", Kind.POST: "dotted"}


def by_suffix(path: Path) -> Format:
    """The format of a file called `path`. Raises InputError."""
    suffix = path.suffix.removeprefix(".").lower()
    if suffix not in list(Format):
        known = ", ".join(f".{one}" for one in Format)
        raise InputError(f"--output {path} does not say its format", f"end it with one of {known}, or give --format")
    return Format(suffix)


def write(path: Path, text: str, option: str = "--output") -> None:
    """Write `text` to `path`, given by `option`, which a reader sees whole or not at all. Raises InputError."""
    try:
        paths.publish(path, lambda temporary: temporary.write_text(text))
    except OSError as error:
        raise InputError(f"{option} {path} cannot be written ({error.strerror})", "name another file") from error


def render(shape: Shape, chosen: Format, title: str) -> str:
    """`shape` as a document of the chosen format."""
    match chosen:
        case Format.SVG:
            return picture.svg(shape, title)
        case Format.DOT:
            return _dot(shape)
        case Format.GRAPHML:
            return _graphml(shape)
        case Format.JSON:
            return json.dumps(as_json(shape), indent=1) + "\n"


def as_json(shape: Shape) -> dict[str, Any]:
    """The contract of `cluster graph --json`; every time is in seconds."""
    estimates = {vertex.package.cpv: vertex.estimate for vertex in shape.vertices}
    return {
        "target": shape.target,
        "packages": [vertex_json(vertex) for vertex in shape.vertices],
        "edges": [
            {"package": edge.package, "needs": edge.needs, "kinds": list(edge.kinds), "atoms": list(edge.atoms)}
            for edge in shape.edges
        ],
        "levels": list(shape.levels),
        "circles": [list(circle) for circle in shape.circles],
        "critical_path": [timed_json(cpv, estimates[cpv]) for cpv in shape.critical_path],
        "critical_s": round(shape.critical_s, 2),
        "work_s": round(shape.work_s, 2),
        "left_s": round(shape.left_s, 2),
        "parallelism": round(shape.parallelism, 2),
    }


def timed_json(cpv: Cpv, estimate: Estimate) -> dict[str, Any]:
    """A package and how long it takes; `basis` says how that is known."""
    return {"cpv": cpv, "seconds": round(estimate.seconds, 2), "basis": estimate.basis.value}


def vertex_json(vertex: Vertex) -> dict[str, Any]:
    """What is known of a package of the graph."""
    package = vertex.package
    return {
        **timed_json(package.cpv, vertex.estimate),
        "slot": package.slot,
        "use": list(package.use),
        "action": package.action.value,
        "requested": package.requested,
        "level": vertex.level,
        "component": vertex.component,
        "circular": vertex.circular,
        "critical": vertex.critical,
    }


def _graphml(shape: Shape) -> str:
    nodes = {vertex.package.cpv: _flat(vertex_json(vertex)) for vertex in shape.vertices}
    return graphml(nodes, ((edge.needs, edge.package, _edge_attributes(edge)) for edge in shape.edges))


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """GraphML knows no lists."""
    return {key: " ".join(value) if isinstance(value, list) else value for key, value in values.items()}


def _edge_attributes(edge: Edge) -> dict[str, str]:
    return {"kinds": " ".join(edge.kinds), "atoms": " ".join(edge.atoms)}


def _dot(shape: Shape) -> str:
    environment = jinja2.Environment(  # DOT is no markup: `quoted` is what makes its strings safe
        loader=jinja2.PackageLoader("cluster", "drawing"), trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["quoted"] = _quoted
    ranks: dict[int, list[Cpv]] = {}
    for vertex in shape.vertices:
        ranks.setdefault(vertex.level, []).append(vertex.package.cpv)
    return environment.get_template("picture.dot.jinja").render(
        shape=shape,
        ranks=list(ranks.values()),
        styles=_STYLES,
        critical=dict.fromkeys(pairwise(shape.critical_path)),
        direct={(edge.needs, edge.package) for edge in shape.edges},
    )


def _quoted(text: str) -> str:
    """`text` as a string of DOT."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
