"""How the time of graph, why and impact grows with the plan; run by hand, asserted nowhere.

PYTHONPATH=. python tests/bench_graph.py [PACKAGES...]
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable

from factories import package, past, plan

from cluster.drawing import formats
from cluster.drawing.formats import Format
from cluster.master import chains, impact
from cluster.master import shape as shapes
from cluster.model import Cpv, Dependency, Kind, Plan

_NEEDS = 10  # dependencies of each package


def generated(count: int) -> Plan:
    """A plan in which each package needs ten others: nine before it, mostly near, and one anywhere to run."""
    chance = random.Random(count)
    names = [Cpv(f"cat/package{number}-1") for number in range(count)]
    packages = []
    for number, name in enumerate(names):
        near = (
            {max(0, number - 1 - int(chance.expovariate(20 / count))) for _ in range(_NEEDS - 1)} if number else set()
        )
        build = [Dependency(names[one], (Kind.BUILD, Kind.RUN), ("cat/it:=",)) for one in sorted(near)]
        run = Dependency(names[chance.randrange(count)], (Kind.RUN,), ("cat/it",))
        asked = {"requested": True, "arguments": ("@all",)} if number > count - 10 else {}
        requires = (need.cpv for need in build)
        packages.append(package(name, *requires, dependencies=(*build, run), **asked))
    return plan(*packages)


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def main(counts: list[int]) -> None:
    """Print a line of seconds for each size."""
    print(f"{'packages':>9} {'edges':>8} {'shape':>7} {'why':>7} {'impact':>7} {'json':>7} {'graphml':>8} {'svg':>8}")
    for count in counts:
        made = generated(count)
        builds = [build for one in made.packages[::2] for build in past(one.cpv, 1.0)]
        first = made.packages[0].cpv
        shape = shapes.shape(made, builds)
        works: list[Callable[[], object]] = [
            lambda made=made, builds=builds: shapes.shape(made, builds),
            lambda made=made, first=first: chains.why(made, first, 5),
            lambda made=made, first=first, builds=builds: impact.impact(made, first, builds),
            lambda shape=shape: formats.render(shape, Format.JSON, ""),
            lambda shape=shape: formats.render(shape, Format.GRAPHML, ""),
        ]
        if count <= 1000:
            works.append(lambda shape=shape: formats.render(shape, Format.SVG, ""))
        print(f"{count:>9} {len(shape.edges):>8}", *(f"{seconds(work):>7.2f}" for work in works), flush=True)


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [1000, 2000, 5000, 10_000, 20_000])
