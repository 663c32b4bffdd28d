"""What `graph`, `why` and `impact` print."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from cluster.drawing.formats import timed_json
from cluster.master.chains import Link, Parent, Why
from cluster.master.estimate import SIGNS, UNKNOWN_S, Basis, Estimate, duration
from cluster.master.impact import Impact, Rebuild
from cluster.master.shape import Shape
from cluster.model import Cpv, Kind, Package

_KINDS = {Kind.BUILD: "to build", Kind.RUN: "to run", Kind.POST: "some time after"}
_BASES = {
    Basis.VERSION: "what another version took",
    Basis.SIZE: "what other packages took for as many bytes of sources",
    Basis.CATEGORY: "the median of the category",
}
_SHOWN = 4  # members of a circle that are named
_BAR = 24  # columns
_USE_SHOWN = 24  # letters


def graph_summary(console: Console, shape: Shape, written: Path | None = None) -> None:
    """The shape of a plan for a person, and the file it was written to."""
    levels = shape.levels
    widest = max(levels, default=0)
    lines = [
        ("packages", str(len(shape.vertices))),
        ("dependencies", str(len(shape.edges))),
        ("levels", f"{len(levels)}; the widest is level {levels.index(widest)} with {_packages(widest)}"),
        *(("circle", f"{_packages(len(circle))} that need each other: {_some(circle)}") for circle in shape.circles),
        ("work", _work(shape)),
        ("critical path", f"{_packages(len(shape.critical_path))}, {duration(shape.critical_s)}"),
        ("parallelism", f"at most {shape.parallelism:.1f} builds at once on average (work / critical path)"),
        *([("written to", str(written))] if written else []),
    ]
    estimates = {vertex.package.cpv: vertex.estimate for vertex in shape.vertices}
    _path(console, [(cpv, estimates[cpv]) for cpv in shape.critical_path])
    _lines(console, lines)
    _caveats(console, (vertex.estimate for vertex in shape.vertices))


def _work(shape: Shape) -> str:
    spared = len([vertex for vertex in shape.vertices if not vertex.package.action.builds])
    if not spared:
        return duration(shape.work_s)
    return f"{duration(shape.work_s)}, of which {duration(shape.left_s)} is left: the binhost has {spared} already"


def _some(cpvs: tuple[Cpv, ...]) -> str:
    rest = len(cpvs) - _SHOWN
    return ", ".join(cpvs[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _packages(count: int) -> str:
    return f"{count} package{'' if count == 1 else 's'}"


def _lines(console: Console, lines: Iterable[tuple[str, str]]) -> None:
    for name, words in lines:
        console.print(f"[bold]{name:<14}[/]{escape(words)}", highlight=False, soft_wrap=True)


def _path(console: Console, steps: Sequence[tuple[Cpv, Estimate]]) -> None:
    """The critical path with a bar for the time of each build."""
    longest = max((estimate.seconds for _, estimate in steps), default=0.0) or 1.0
    width = max((len(cpv) for cpv, _ in steps), default=0)
    console.print("[bold]critical path[/]")
    for cpv, estimate in steps:
        bar = "█" * max(1, round(_BAR * estimate.seconds / longest))
        time = str(estimate)
        console.print(f"  {cpv:<{width}}  {time:>8}  [red]{bar}[/]", highlight=False, soft_wrap=True)


def _caveats(console: Console, estimates: Iterable[Estimate]) -> None:
    """What the times rest on, where that is not a build of the very version."""
    found = list(estimates)
    for basis, words in _BASES.items():
        if other := sum(estimate.basis is basis for estimate in found):
            line = f"{SIGNS[basis]}: {words}, for {_packages(other)}"
            console.print(line, highlight=False, soft_wrap=True)
    assumed = [estimate for estimate in found if estimate.basis is Basis.ASSUMED]
    if assumed:
        seconds = assumed[0].seconds
        known = len(assumed) < len(found) or seconds != UNKNOWN_S
        why = ", the median of what is known" if known else ""
        words = f"?: {duration(seconds)} assumed for {_packages(len(assumed))} never built{why}"
        console.print(words, highlight=False, soft_wrap=True)


# Why.


def why_json(answer: Why) -> dict[str, Any]:
    """The contract of `cluster why --json`."""
    return {
        "cpv": answer.cpv,
        "planned": answer.planned,
        "arguments": list(answer.arguments),
        "parents": [
            {"cpv": one.cpv, "kinds": list(one.kinds), "atoms": list(one.atoms), "chain": one.chain}
            for one in answer.parents
        ],
        "chains": [
            [{"cpv": link.cpv, "kinds": list(link.kinds), "atoms": list(link.atoms)} for link in chain]
            for chain in answer.chains
        ],
    }


def why_tree(console: Console, answer: Why) -> None:
    """The chains as trees, one for each argument, and the parents."""
    console.print(f"[bold]{answer.cpv}[/]{'' if answer.planned else ' (the stage has it)'}", highlight=False)
    for tree in _trees(answer):
        console.print(tree, highlight=False)
    if answer.parents:
        console.print(f"needed by {_packages(len(answer.parents))}:", highlight=False)
    width = max((len(parent.cpv) for parent in answer.parents), default=0)
    for parent in answer.parents:
        console.print(f"  {escape(_parent(parent, width))}", highlight=False, soft_wrap=True)


def _trees(answer: Why) -> list[Tree]:
    """The chains, those with the same beginning joined."""
    roots: dict[str, Tree] = {}
    branches: dict[tuple[Cpv, ...], Tree] = {}
    for chain in answer.chains:
        for depth, link in enumerate(chain):
            way = tuple(one.cpv for one in chain[: depth + 1])
            if way in branches:
                continue
            if depth:
                above = branches[way[:-1]]
            else:
                name = ", ".join(link.atoms) or "the request"
                above = roots.setdefault(name, Tree(f"[bold]{escape(name)}[/]", guide_style="dim"))
            branches[way] = above.add(_link(link, answer.cpv))
    return list(roots.values())


def _link(link: Link, subject: Cpv) -> str:
    name = f"[bold green]{link.cpv}[/]" if link.cpv == subject else link.cpv
    return f"{name} [dim]{escape(_how(link.kinds, tuple(map(_short, link.atoms))))}[/]" if link.kinds else name


def _how(kinds: tuple[Kind, ...], atoms: tuple[str, ...]) -> str:
    return f"{' and '.join(_KINDS[kind] for kind in kinds)}: {', '.join(atoms)}"


def _short(atom: str) -> str:
    """`atom` without a USE part that would fill the line; the list of parents has it."""
    name, bracket, use = atom.partition("[")
    return f"{name}[…]" if bracket and len(use) > _USE_SHOWN else atom


def _parent(parent: Parent, width: int) -> str:
    return f"{parent.cpv:<{width}}  {_how(parent.kinds, parent.atoms)}"


# Impact.


def impact_json(answer: Impact) -> dict[str, Any]:
    """The contract of `cluster impact --json`; every time is in seconds."""
    return {
        "cpv": answer.cpv,
        "planned": answer.planned,
        "rebuilds": [{**_rebuild_json(one), "direct": one.direct} for one in answer.rebuilds],
        "critical_path": [_rebuild_json(one) for one in answer.critical_path],
        "critical_s": round(answer.critical_s, 2),
        "work_s": round(answer.work_s, 2),
        "unknown": [one.cpv for one in answer.unknown],
        "packages": answer.packages,
    }


def _rebuild_json(one: Rebuild) -> dict[str, Any]:
    return timed_json(one.cpv, one.estimate)


def impact_table(console: Console, answer: Impact) -> None:
    """What would be rebuilt, the dearest first, and its cost."""
    if answer.rebuilds:
        table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("package", no_wrap=True)
        table.add_column("time", justify="right", no_wrap=True)
        table.add_column("because", no_wrap=True)
        for one in answer.rebuilds:
            table.add_row(one.cpv, str(one.estimate), _because(one, answer.cpv))
        console.print(table, highlight=False)
    if len(answer.critical_path) > 1:
        _path(console, [(one.cpv, one.estimate) for one in answer.critical_path])
    where = "" if answer.planned else ", which the stage has,"
    count = len(answer.rebuilds)
    console.print(
        f"A change of [bold]{answer.cpv}[/]{where} rebuilds {count} of {_packages(answer.packages)}: "
        f"{duration(answer.work_s)} of work, {duration(answer.critical_s)} on enough nodes",
        highlight=False,
        soft_wrap=True,
    )
    _caveats(console, (one.estimate for one in answer.rebuilds))


def _because(one: Rebuild, cpv: Cpv) -> str:
    if one.cpv == cpv:
        return "it changes"
    return "built with it" if one.direct else "built with one of these"


def title(packages: Iterable[Package], target: str) -> str:
    """What a picture of a plan is called: what was asked for."""
    asked = list(dict.fromkeys(argument for package in packages for argument in package.arguments))
    return f"{_some_words(asked)} for {target}"


def _some_words(words: list[str]) -> str:
    shown = words[:3]
    return ", ".join(shown) + (f" and {len(words) - 3} more" if len(words) > 3 else "") or "plan"
