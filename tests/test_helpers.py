"""Hosts without nodes: who compiles, and what is said when one does not any more."""

from __future__ import annotations

import pytest

from cluster.master.engines.engine import Came, Change, Draining, Resumed, Went
from cluster.master.engines.helpers import Helpers
from cluster.master.schedule.hosts import Host

SMITHY = Came(Host("smithy", ()))


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def helpers(said: list[str]) -> Helpers:
    return Helpers(said.append)


@pytest.mark.parametrize(
    "change", [Came(Host("farm", ("farm:1",))), Went("farm", "broken"), Draining("farm", "asked"), Resumed("farm")]
)
def test_what_becomes_of_others_is_the_runs(helpers: Helpers, said: list[str], change: Change) -> None:
    assert not helpers.heard(change)
    assert (helpers.ready(), said) == (frozenset(), [])


def test_one_compiles_until_it_is_drained_and_again_when_it_is_resumed(helpers: Helpers, said: list[str]) -> None:
    assert helpers.heard(SMITHY)
    assert helpers.ready() == {"smithy"}
    for _ in range(2):  # it is told again and again
        assert helpers.heard(Draining("smithy", "asked"))
    assert helpers.ready() == frozenset()
    assert helpers.heard(Resumed("smithy"))
    assert helpers.ready() == {"smithy"}
    assert helpers.heard(Went("smithy", "broken"))
    assert helpers.ready() == frozenset()
    assert said == [f"smithy compiles no more for the others: {reason}" for reason in ("asked", "broken")]


def test_one_that_is_drained_and_goes_is_told_of_once(helpers: Helpers, said: list[str]) -> None:
    for change in (SMITHY, Draining("smithy", "asked"), Went("smithy", "broken")):
        assert helpers.heard(change)
    assert len(said) == 1


def test_at_the_end_they_leave_in_silence(helpers: Helpers, said: list[str]) -> None:
    helpers.heard(SMITHY)
    helpers.close()
    assert helpers.heard(Went("smithy", "the run is over"))
    assert said == []
