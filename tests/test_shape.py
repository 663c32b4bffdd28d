"""The shape of a plan: levels, circles, the critical path."""

from __future__ import annotations

from factories import package, past, plan

from cluster.master.shape import Edge, longest_chain, shape
from cluster.model import Action, Cpv, Dependency, Kind

ZLIB, PNG, CRUSH, SED = (Cpv(f"c/{name}-1") for name in ("zlib", "png", "crush", "sed"))
BUILD, RUN = (Kind.BUILD,), (Kind.RUN,)
SMALL = plan(
    package(ZLIB, dependencies=(Dependency(SED, RUN, ("c/sed",)),)),
    package(SED, dependencies=(Dependency(ZLIB, RUN, ("c/zlib",)), Dependency(Cpv("s/gcc-12"), BUILD, ("s/gcc",)))),
    package(PNG, ZLIB, dependencies=(Dependency(ZLIB, (*BUILD, *RUN), (">=c/zlib-1",)),)),
    package(CRUSH, ZLIB, PNG, dependencies=(Dependency(PNG, BUILD, ("c/png",)),), action=Action.SKIP),
)
PAST = [*past(ZLIB, 1.0), *past(PNG, 20.0), *past(CRUSH, 300.0), *past(SED, 107.0)]


def test_levels_and_circles_of_each_package() -> None:
    found = shape(SMALL, PAST)
    placed = {v.package.cpv: (v.level, v.component, v.circular, v.critical) for v in found.vertices}
    assert placed == {
        ZLIB: (0, 1, True, True),
        SED: (0, 1, True, False),
        PNG: (1, 2, False, True),
        CRUSH: (2, 3, False, True),
    }
    assert found.circles == ((ZLIB, SED),)
    assert found.levels == (2, 1, 1)


def test_edges_are_those_inside_the_plan_with_their_words() -> None:
    assert shape(SMALL, PAST).edges == (
        Edge(ZLIB, SED, RUN, ("c/sed",)),
        Edge(SED, ZLIB, RUN, ("c/zlib",)),
        Edge(PNG, ZLIB, (*BUILD, *RUN), (">=c/zlib-1",)),
        Edge(CRUSH, PNG, BUILD, ("c/png",)),
    )


def test_the_most_parallelism_is_work_over_the_critical_path() -> None:
    found = shape(SMALL, PAST)
    assert found.critical_path == (ZLIB, PNG, CRUSH)
    assert (found.critical_s, found.work_s, found.left_s) == (321.0, 428.0, 128.0)
    assert found.parallelism == 428 / 321


def test_the_longest_chain_is_by_time_not_by_number() -> None:
    seconds = {ZLIB: 1.0, SED: 1000.0, PNG: 1.0, CRUSH: 1.0}
    assert longest_chain(SMALL.packages, seconds) == (SED,)
    assert longest_chain(SMALL.packages[2:], seconds) == (PNG, CRUSH)
    assert longest_chain((), {}) == ()


def test_an_empty_plan_has_a_shape() -> None:
    found = shape(plan(), [])
    assert (found.levels, found.critical_path, found.work_s, found.parallelism) == ((), (), 0, 1.0)
