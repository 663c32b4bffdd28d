"""What a rental may cost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import InputError
from cluster.master.ec2 import limits
from cluster.master.ec2.rental import Limits

PRICES = {"c7g.4xlarge": 0.6, "c7a.8xlarge": 1.5}
ROOMY = Limits(hosts=10, usd_h=100, budget_usd=1000)
prices = st.floats(0.001, 50)


@pytest.mark.parametrize(
    ("narrow", "names"),
    [
        (Limits(hosts=2, usd_h=100, budget_usd=1000), "--max-hosts 2"),
        (Limits(hosts=3, usd_h=2.5, budget_usd=1000), "--max-price 2.5"),
        (Limits(hosts=3, usd_h=100, budget_usd=2.6), "too small for one hour"),
        (Limits(hosts=3, usd_h=100, budget_usd=10, hours=4), "more than --budget 10"),
    ],
)
def test_a_limit_that_would_be_exceeded_is_named(narrow: Limits, names: str) -> None:
    with pytest.raises(InputError, match=names):
        limits.hours({"c7g.4xlarge": 2, "c7a.8xlarge": 1}, PRICES, narrow)


def test_a_rental_lasts_as_long_as_its_budget_unless_hours_are_asked_for() -> None:
    assert limits.hours({"c7a.8xlarge": 1}, PRICES, Limits(1, 2, 3.0)) == 2.0
    assert limits.hours({"c7a.8xlarge": 1}, PRICES, Limits(1, 2, 3.0, hours=1.5)) == 1.5


@given(
    st.dictionaries(st.sampled_from(("a", "b", "c")), st.integers(1, 20), min_size=1),
    st.fixed_dictionaries({"a": prices, "b": prices, "c": prices}),
    st.builds(Limits, st.integers(1, 30), prices, prices, st.none() | st.floats(1, 20)),
)
def test_no_limit_is_ever_exceeded(instances: dict[str, int], usd_h: dict[str, float], allowed: Limits) -> None:
    rate, count = limits.rate(instances, usd_h), sum(instances.values())
    needed = (allowed.hours or 1) * rate
    try:
        hours = limits.hours(instances, usd_h, allowed)
    except InputError:
        assert count > allowed.hosts or rate > allowed.usd_h or needed > allowed.budget_usd
        return
    assert count <= allowed.hosts
    assert rate <= allowed.usd_h
    assert hours >= 1
    assert hours * rate <= allowed.budget_usd * (1 + 1e-9)


@pytest.mark.parametrize(
    "useless",
    [Limits(0, 1, 1), Limits(1, 0, 1), Limits(1, 1, -1), Limits(1, 1, float("inf")), Limits(1, 1, 1, hours=0.5)],
)
def test_limits_that_let_nothing_be_rented_are_refused(useless: Limits) -> None:
    with pytest.raises(InputError):
        limits.check(useless)
    limits.check(ROOMY)
