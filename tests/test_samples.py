"""Medians, spreads and ratios of builds."""

from __future__ import annotations

import pytest

from cluster.bench.samples import PARTS, ratios, sample, summarize

PHASES = (
    ("boot", 7.0),
    ("setup", 0.5),
    ("unpack", 1.0),
    ("prepare", 2.0),
    ("configure", 30.0),
    ("compile", 10.0),
    ("test", 100.0),
    ("install", 4.0),
    ("package", 8.0),
)


def test_the_total_is_the_ebuilds_own_phases_and_the_wall_clock_is_all() -> None:
    one = sample(PHASES, 70.0)
    assert (one.extract_s, one.configure_s, one.compile_s, one.install_s) == (1.0, 32.0, 10.0, 4.0)
    assert one.total_s == 47.0
    assert one.wall_s == 70.0


def test_a_sample_in_words() -> None:
    text = "extract 1, configure 32, compile 10, install 4, total 47, wall 70 seconds"
    assert sample(PHASES, 70.0).in_words == text


def test_a_package_that_configures_nothing() -> None:
    assert sample((("compile", 3.0),), 5.0).configure_s == 0.0


def test_medians_are_of_each_part_and_spreads_from_least_to_greatest() -> None:
    builds = [sample((("configure", first), ("compile", then)), 99) for first, then in ((1, 9), (3, 5), (2, 8))]
    summary = summarize(builds)
    assert summary.median.configure_s == 2
    assert summary.median.compile_s == 8
    assert summary.spread["configure_s"] == (1, 3)
    assert summary.spread["total_s"] == (8, 10)


@pytest.mark.parametrize(("part", "ratio"), [("total_s", 10.0), ("compile_s", 5.0)])
def test_ratios_are_to_native(part: str, ratio: float) -> None:
    native = summarize([sample((("configure", 5), ("compile", 5)), 10)])
    slow = summarize([sample((("configure", 75), ("compile", 25)), 100)])
    assert ratios({"native": native, "slow": slow}, part) == {"native": 1.0, "slow": ratio}


def test_nothing_is_divided_by_a_native_time_that_is_not_there() -> None:
    slow = summarize([sample((("compile", 75),), 100)])
    assert ratios({"slow": slow}) == {}
    assert ratios({"native": slow}, PARTS[0]) == {}
