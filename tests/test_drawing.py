"""The plan as a picture, and as files for other programs."""

from __future__ import annotations

import io
import json
import random
import xml.etree.ElementTree as ElementTree
from itertools import combinations
from pathlib import Path

import networkx as nx
import pytest
from factories import package, past, plan

from cluster.drawing import formats, layers
from cluster.drawing.formats import Format
from cluster.errors import InputError
from cluster.master.shape import Shape, shape
from cluster.model import Action, Cpv, Dependency, Kind, Plan

SVG = "{http://www.w3.org/2000/svg}"


def generated(count: int, seed: int = 1) -> Plan:
    """A plan of `count` packages with some needs of every kind, also in circles."""
    chance = random.Random(seed)
    names = [Cpv(f"cat/package{number}-1.{number}") for number in range(count)]
    packages = []
    for number, name in enumerate(names):
        requires = sorted(chance.sample(range(number), min(number, chance.choice((0, 0, 1, 3)))))
        needs = [Dependency(names[one], (Kind.BUILD, Kind.RUN), (f"<cat/package{one}-2&",)) for one in requires]
        needs += [Dependency(names[one], (chance.choice(list(Kind)),), ("any",)) for one in {chance.randrange(count)}]
        action = chance.choice(list(Action))
        packages.append(package(name, *(names[one] for one in requires), dependencies=tuple(needs), action=action))
    return plan(*packages)


def drawn(count: int) -> tuple[Shape, ElementTree.Element]:
    found = shape(generated(count), [])
    return found, ElementTree.fromstring(formats.render(found, Format.SVG, 'all & "more"'))


def nodes(root: ElementTree.Element) -> list[ElementTree.Element]:
    return [group for group in root.iter(f"{SVG}g") if (group.get("class") or "").startswith("node")]


@pytest.mark.parametrize("count", [0, 1, 8, 60, 300])
def test_each_package_is_one_box_and_no_two_overlap(count: int) -> None:
    found, root = drawn(count)
    boxes = []
    for node in nodes(root):
        x, y = map(float, (node.get("transform") or "").removeprefix("translate(").removesuffix(")").split())
        rect = node.find(f"{SVG}rect")
        assert rect is not None
        boxes.append((x, y, x + float(rect.get("width", "")), y + float(rect.get("height", ""))))
    assert len(boxes) == len(found.vertices) == count
    for (left, top, right, bottom), (left2, top2, right2, bottom2) in combinations(boxes, 2):
        assert right <= left2 or right2 <= left or bottom <= top2 or bottom2 <= top


def test_levels_go_from_left_to_right_and_every_edge_is_drawn_with_its_atoms() -> None:
    found, root = drawn(60)
    at = {float((n.get("transform") or "(").partition("(")[2].split()[0]): 0 for n in nodes(root)}
    assert len(at) > 1
    places = [float((node.get("transform") or "").partition("(")[2].split()[0]) for node in nodes(root)]
    for vertex, x in zip(found.vertices, places, strict=True):
        assert all(x < other for v, other in zip(found.vertices, places, strict=True) if v.level > vertex.level)
    titles = [path.findtext(f"{SVG}title") or "" for path in root.iter(f"{SVG}path") if path.get("data-ends")]
    assert len(titles) == len(found.edges) + len(found.critical_path) - 1
    assert any("<cat/package" in title and "needs for its build and needs to run" in title for title in titles)


def test_lines_start_and_end_at_their_boxes() -> None:
    boxes = [layers.Box(level, 50, 20) for level in (0, 0, 1, 2, 2)]
    lines = [(0, 2), (0, 3), (4, 1), (2, 3), (3, 4)]
    layout = layers.place(boxes, lines)
    for (start, end), line in zip(lines, layout.lines, strict=True):
        for number, (x, y) in ((start, line.points[0]), (end, line.points[-1])):
            box = layout.boxes[number]
            assert x in (box.x, box.x + box.width)
            assert y == pytest.approx(box.y + box.height / 2)
    assert [band.level for band in layout.bands] == [0, 1, 2]


def test_a_level_of_many_boxes_takes_several_columns() -> None:
    layout = layers.place([layers.Box(0, 50, 20)] * 40, [])
    assert len({box.x for box in layout.boxes}) == 4
    assert len(layout.bands) == 1


def test_graphml_is_read_back_with_every_attribute() -> None:
    found = shape(generated(30), [])
    graph = nx.read_graphml(io.BytesIO(formats.render(found, Format.GRAPHML, "").encode()))
    assert set(graph) == {vertex.package.cpv for vertex in found.vertices}
    edge = found.edges[0]
    assert graph.edges[edge.needs, edge.package] == {"kinds": " ".join(edge.kinds), "atoms": " ".join(edge.atoms)}
    some = graph.nodes[edge.package]
    assert {"slot", "use", "action", "level", "component", "seconds", "critical"} <= set(some)


def test_dot_has_each_package_and_edge() -> None:
    found = shape(generated(30), [])
    text = formats.render(found, Format.DOT, "")
    for vertex in found.vertices:
        assert f'\n"{vertex.package.cpv}" [label=' in text
    for edge in found.edges:
        assert f'\n"{edge.needs}" -> "{edge.package}" [' in text


def test_json_says_each_time_and_how_it_is_known() -> None:
    found = shape(generated(3), past("cat/package0-1.0", 12.0))
    said = json.loads(formats.render(found, Format.JSON, ""))
    assert [(one["seconds"], one["basis"]) for one in said["packages"]] == [
        (12.0, "built"),
        (12.0, "assumed"),
        (12.0, "assumed"),
    ]
    assert said["work_s"] == 36.0


def test_the_format_is_the_suffix() -> None:
    assert formats.by_suffix(Path("a/plan.GraphML")) is Format.GRAPHML
    with pytest.raises(InputError, match=r"plan\.png does not say its format"):
        formats.by_suffix(Path("plan.png"))
