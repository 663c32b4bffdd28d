"""How long a build will take."""

from __future__ import annotations

import pytest

from cluster.master.estimate import UNKNOWN_S, Basis, Estimate, duration, estimates
from cluster.model import Cpv

ZLIB, PNG, SED = Cpv("c/zlib-1.3"), Cpv("c/png-1"), Cpv("c/sed-4")


def test_a_build_of_the_very_version_counts_before_one_of_another() -> None:
    past = {ZLIB: 10.0, Cpv("c/zlib-1.4"): 99.0, Cpv("c/png-0.9-r2"): 20.0, Cpv("c/png-2_rc1"): 40.0}
    found = estimates([ZLIB, PNG], past)
    assert found == {ZLIB: Estimate(10.0, Basis.BUILT), PNG: Estimate(40.0, Basis.VERSION)}  # the latest build


def test_a_package_never_built_takes_the_median_of_the_known_ones_that_are_asked_about() -> None:
    past = {ZLIB: 10.0, PNG: 30.0, Cpv("c/other-1"): 9000.0}
    assert estimates([SED, ZLIB, PNG], past)[SED] == Estimate(20.0, Basis.ASSUMED)
    assert estimates([SED], past) == {SED: Estimate(UNKNOWN_S, Basis.ASSUMED)}


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "0 s"), (99.4, "99 s"), (100, "1.7 min"), (5969, "99.5 min"), (5400 * 2, "3.0 h")]
)
def test_a_duration_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_an_estimate_says_what_it_rests_on() -> None:
    assert [str(Estimate(60.0, basis)) for basis in Basis] == ["60 s", "~60 s", "?60 s"]
