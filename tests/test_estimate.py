"""What a build will take."""

from __future__ import annotations

import math

import pytest
from factories import past
from hypothesis import given
from hypothesis import strategies as st

from cluster.master.estimate import UNKNOWN_S, Basis, Estimate, duration, errors, forecast
from cluster.master.history import Build
from cluster.model import Cpv, Verdict

ZLIB, PNG, SED = Cpv("c/zlib-1.3"), Cpv("c/png-1"), Cpv("s/sed-4")


def one(cpv: str, builds: list[Build], size: int | None = None) -> Estimate:
    (estimate,) = forecast({Cpv(cpv): size}, builds).values()
    return estimate


def test_builds_of_the_very_version_count_before_any_other() -> None:
    builds = past(ZLIB, 10.0, 14.0, memory_mib=300.0, disk_mib=20.0, cpu_s=18.0) + past("c/zlib-1.4", 99.0)
    assert one(ZLIB, builds) == Estimate(12.0, Basis.BUILT, 300.0, 20.0, pytest.approx((1.8 + 18 / 14) / 2))


@pytest.mark.parametrize(
    ("wanted", "seconds"),
    [
        ("13.3.1", 133.0),  # of the next lower and the next higher one, the one with 13 in common
        ("13.1.1", 133.0),
        ("12.9", 123.0),
        ("1.0", 123.0),
        ("99", 142.0),
        ("14.1_rc1", 142.0),
        ("13", 123.0),  # which has nothing in common with either, the lower
    ],
)
def test_of_other_versions_the_nearest_counts(wanted: str, seconds: float) -> None:
    builds = past("c/gcc-14.2", 142.0) + past("c/gcc-13.2-r1", 133.0) + past("c/gcc-12.3", 123.0)
    if wanted == "13":
        builds = [build for build in builds if build.cpv != "c/gcc-13.2-r1"]
    assert one(f"c/gcc-{wanted}", builds) == Estimate(seconds, Basis.VERSION)


def test_of_versions_that_portage_cannot_order_the_one_built_last_counts() -> None:
    builds = past("chat/zenirc-2.112nb4", 10.0, ended=200.0) + past("chat/zenirc-2.112nb5", 20.0, ended=100.0)
    assert one("chat/zenirc-2.112nb6", builds) == Estimate(10.0, Basis.VERSION)


@pytest.mark.parametrize(("size", "seconds"), [(1500, 15.0), (9000, 20.0), (10, 5.0), (None, 10.0), (0, 10.0)])
def test_another_version_is_scaled_by_the_size_of_its_sources_within_reason(size: int | None, seconds: float) -> None:
    builds = past("c/zlib-1.2", 10.0, source_bytes=1000, memory_mib=100.0, disk_mib=40.0)
    assert one(ZLIB, builds, size) == Estimate(seconds, Basis.VERSION, 100.0, 4 * seconds)


def test_a_package_never_built_takes_what_sources_of_its_size_take() -> None:
    """Here as many seconds as the root of the bytes."""
    builds = [
        build
        for number in range(1, 21)
        for build in past(f"c{number}/p-1", 10.0 * number, source_bytes=100 * number**2, memory_mib=float(number))
    ]
    found = one("new/p-1", builds, 90000)
    assert found == Estimate(pytest.approx(300.0), Basis.SIZE, memory_mib=10.5)
    assert one("new/p-1", builds).basis is Basis.ASSUMED
    assert one("new/p-1", builds[:19], 90000).basis is Basis.ASSUMED  # too few to lay a line through


def test_without_a_size_it_takes_the_median_of_its_category_each_package_counting_once() -> None:
    builds = past("c/a-1", 10.0, cpu_s=10.0) + past("c/b-1", 20.0, cpu_s=40.0) + past("c/b-2", 40.0, ended=2e3)
    assert one("c/new-1", builds).basis is Basis.ASSUMED  # of two packages there is no saying
    builds += past("c/d-1", 30.0) + past("s/sed-4", 500.0)
    assert one("c/new-1", builds) == Estimate(30.0, Basis.CATEGORY, parallelism=1.0)


def test_where_nothing_is_like_it_it_takes_the_median_of_all() -> None:
    assert one("x/new-1", past(ZLIB, 10.0) + past(PNG, 30.0)) == Estimate(20.0, Basis.ASSUMED)
    assert one("x/new-1", []) == Estimate(UNKNOWN_S, Basis.ASSUMED)


def test_what_failed_teaches_nothing() -> None:
    assert one(ZLIB, past(ZLIB, 5.0, verdict=Verdict.FAILED)) == Estimate(UNKNOWN_S, Basis.ASSUMED)


def test_a_slow_nodes_builds_count_as_those_of_the_reference() -> None:
    assert one(ZLIB, past(ZLIB, 100.0, speed=0.25)).seconds == 25.0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a/x-1", "a/x-2", "a/y-1", "b/z-1nb2", "b/z-2"]), st.floats(0, 1e7), st.integers(0, 10**10)
        )
    ),
    st.sampled_from(["a/x-1", "a/x-3", "a/new-1", "b/z-3", "c/new-1"]),
    st.none() | st.integers(0, 10**10),
)
def test_there_is_an_estimate_whatever_the_past(
    builds: list[tuple[str, float, int]], wanted: str, size: int | None
) -> None:
    known = [build for cpv, seconds, size in builds for build in past(cpv, seconds, source_bytes=size)]
    found = one(wanted, known, size)
    assert math.isfinite(found.seconds)
    assert found.seconds >= 0


def test_each_basis_is_asked_about_what_it_does_not_know() -> None:
    builds = past("c/a-1", 10.0, 20.0) + past("c/a-2", 5.0) + past("c/b-1", 10.0) + past("c/d-1", 10.0)
    found = errors(builds + past("c/e-1", 10.0))
    assert found[Basis.BUILT] == [2.0]  # 10 for 20
    assert found[Basis.VERSION] == pytest.approx([3.0, 4.0])  # 15 for 5; 5 for 20
    assert found[Basis.SIZE] == []
    assert len(found[Basis.CATEGORY]) == len(found[Basis.ASSUMED]) == 5


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "0 s"), (99.4, "99 s"), (100, "1.7 min"), (5969, "99.5 min"), (5400 * 2, "3.0 h")]
)
def test_a_duration_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_an_estimate_says_what_it_rests_on() -> None:
    assert [str(Estimate(60.0, basis)) for basis in Basis] == ["60 s", "~60 s", "≈60 s", "*60 s", "?60 s"]
