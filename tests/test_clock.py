"""Times as a person says them."""

from __future__ import annotations

import time

import pytest

from cluster.clock import clock

NOON = time.mktime((2026, 5, 4, 12, 0, 0, 0, 0, -1))  # a Monday


@pytest.mark.parametrize(
    ("hours", "said"),
    [(0, "12:00"), (11.5, "23:30"), (13, "Tue 01:00"), (-24, "Sun 12:00"), (-240, "2026-04-24 12:00")],
)
def test_a_time_says_as_much_of_its_day_as_is_needed(hours: float, said: str) -> None:
    assert clock(NOON + hours * 3600, NOON) == said
