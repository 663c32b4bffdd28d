"""Past builds, and what they come to."""

from __future__ import annotations

from dataclasses import replace

import pytest
from factories import past
from hypothesis import given
from hypothesis import strategies as st

from cluster.master.history import CHANGED, course, courses, surprises
from cluster.model import Verdict

SECONDS = st.floats(0.1, 1e6)


def test_the_latest_build_weighs_half() -> None:
    builds = past("c/x-1", 100.0, 120.0, 80.0)
    assert course(builds).seconds == 95.0
    assert course(builds).spread == 1.5
    assert course(builds[:1]).spread is None


@given(SECONDS, SECONDS)
def test_equal_builds_converge(first: float, then: float) -> None:
    assert course(past("c/x-1", first, *[then] * 30)).seconds == pytest.approx(then, rel=1e-6)


def test_more_than_twice_or_less_than_half_is_another_thing_and_starts_anew() -> None:
    found = course(past("c/x-1", 100.0, 200.0, 301.0, 100.0))  # 150 is expected of the third, 301 of the fourth
    assert found.seconds == 100.0
    assert [(one.build.seconds, one.expected_s) for one in found.surprises] == [(301.0, 150.0), (100.0, 301.0)]
    assert found.spread is None


@given(st.lists(SECONDS, min_size=1, max_size=8))
def test_every_build_is_near_what_was_expected_or_a_surprise(seconds: list[float]) -> None:
    builds = past("c/x-1", *seconds)
    surprising = {one.build for one in course(builds).surprises}
    for number, build in enumerate(builds[1:], 1):
        expected = course(builds[:number]).seconds
        assert (build in surprising) == (not expected / CHANGED <= build.seconds <= expected * CHANGED)


def test_what_is_taken_beside_time_is_smoothed_over_what_is_known_since_the_last_surprise() -> None:
    old, *since = past("c/x-1", 10.0, 100.0, 100.0, 100.0)
    first, second, third = since
    found = course(
        [
            replace(old, memory_mib=9999.0),
            replace(first, memory_mib=400.0, cpu_s=150.0),
            replace(second, disk_mib=50.0),
            replace(third, memory_mib=200.0, cpu_s=50.0),
        ]
    )
    assert (found.memory_mib, found.disk_mib, found.parallelism) == (300.0, 50.0, 1.0)


def test_seconds_are_those_of_a_node_of_speed_1() -> None:
    slow, fast = past("c/x-1", 60.0, speed=0.5)[0], past("c/x-1", 15.0, speed=2.0, ended=2000.0)[0]
    assert course([slow, fast]).seconds == 30.0
    assert course([slow, fast]).surprises == ()


def test_courses_are_of_what_was_built_in_the_order_of_the_last_builds() -> None:
    builds = past("c/x-1", 5.0, 6.0, ended=100.0) + past("c/y-1", 7.0, ended=50.0)
    builds += past("c/y-1", 1.0, ended=200.0, verdict=Verdict.FAILED)
    assert list(courses(builds)) == ["c/y-1", "c/x-1"]
    assert list(courses(reversed(builds))) == ["c/y-1", "c/x-1"]


def test_surprises_of_all_packages_come_in_the_order_of_time() -> None:
    builds = past("c/x-1", 5.0, 50.0, ended=100.0) + past("c/y-1", 5.0, 50.0, ended=50.0)
    assert [one.build.cpv for one in surprises(courses(builds).values())] == ["c/y-1", "c/x-1"]


@pytest.mark.parametrize(
    ("cpv", "name", "version"),
    [
        ("sys-libs/zlib-1.3.1-r1", "sys-libs/zlib", "1.3.1-r1"),
        ("dev-cpp/gtk+-3-2.0_rc1", "dev-cpp/gtk+-3", "2.0_rc1"),
        ("chat/zenirc-2.112nb4", "chat/zenirc", "2.112nb4"),
    ],
)
def test_name_and_version(cpv: str, name: str, version: str) -> None:
    (build,) = past(cpv, 1.0)
    assert (build.name, build.version) == (name, version)


def test_what_is_not_known_makes_no_parallelism_and_no_share() -> None:
    (build,) = past("c/x-1", 10.0)
    assert (build.parallelism, build.remote_share) == (None, None)
    assert replace(build, cpu_s=15.0).parallelism == 1.5
    assert replace(build, cpu_s=15.0, seconds=0.0).parallelism is None
