"""What a change of a package rebuilds."""

from __future__ import annotations

from factories import package, past, plan

from cluster.master.estimate import UNKNOWN_S
from cluster.master.impact import impact
from cluster.model import Cpv, Dependency, Kind

ZLIB, PNG, CRUSH, SED, DEMO, TOOL = (Cpv(f"c/{name}-1") for name in ("zlib", "png", "crush", "sed", "demo", "tool"))
GCC, BASH = Cpv("s/gcc-12"), Cpv("s/bash-5")
BUILD, RUN = (Kind.BUILD,), (Kind.RUN,)
PLAN = plan(
    package(ZLIB, dependencies=(Dependency(GCC, BUILD, ("s/gcc",)),)),
    package(SED),
    package(TOOL, dependencies=(Dependency(BASH, RUN, ("s/bash",)),)),
    package(PNG, ZLIB, TOOL),
    package(CRUSH, PNG),
    package(DEMO, dependencies=(Dependency(ZLIB, RUN, ("c/zlib",)),)),
)


def test_what_is_built_with_it_and_what_is_built_with_that() -> None:
    found = impact(PLAN, ZLIB, [*past(ZLIB, 1.0), *past(PNG, 20.0), *past(CRUSH, 300.0)])
    assert [(one.cpv, one.direct) for one in found.rebuilds] == [(CRUSH, False), (PNG, True), (ZLIB, False)]
    assert [one.cpv for one in found.critical_path] == [ZLIB, PNG, CRUSH]
    assert (found.work_s, found.critical_s, found.unknown, found.packages) == (321.0, 321.0, (), 6)


def test_what_needs_it_to_run_alone_is_not_rebuilt() -> None:
    assert DEMO not in {one.cpv for one in impact(PLAN, ZLIB, []).rebuilds}


def test_times_without_a_record_are_counted() -> None:
    found = impact(PLAN, ZLIB, [*past(PNG, 20.0), *past(SED, 40.0)])
    assert {one.cpv: one.estimate.seconds for one in found.unknown} == {ZLIB: 30.0, CRUSH: 30.0}
    assert impact(PLAN, SED, []).work_s == UNKNOWN_S


def test_a_package_of_the_stage_is_in_a_node_by_itself_or_with_what_needs_it_to_run() -> None:
    assert {one.cpv for one in impact(PLAN, GCC, []).rebuilds} == {ZLIB, PNG, CRUSH}
    found = impact(PLAN, BASH, [])
    assert {(one.cpv, one.direct) for one in found.rebuilds} == {(PNG, True), (CRUSH, False)}
    assert not found.planned
