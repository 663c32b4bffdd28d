"""Records of rentals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cluster.errors import ClusterError, InputError
from cluster.master.ec2.rental import Instance, Limits, Market, Rental, Rentals, Span, State, new_run

LIMITS = Limits(hosts=4, usd_h=5.0, budget_usd=20.0)
RENTAL = Rental(
    run="20260101-000000-abcd", region="us-east-1", market=Market.SPOT, wished={"c7g.4xlarge": 2}, limits=LIMITS,
    hours=2.0, silence_min=30, source="192.0.2.1/32", began=1000.0,
)  # fmt: skip


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    rentals = Rentals(tmp_path)
    up = replace(RENTAL, state=State.UP, instances=(Instance("i-1", "c7g.4xlarge", 0.3, 1.0),), missing=("one",))
    rentals.save(RENTAL)
    rentals.save(up)
    assert rentals.get(RENTAL.run) == up
    assert rentals.all() == (up,)
    assert rentals.place(RENTAL.run).stat().st_mode & 0o077 == 0


def test_an_unknown_rental_is_named_with_those_that_are_known(tmp_path: Path) -> None:
    rentals = Rentals(tmp_path)
    rentals.save(RENTAL)
    with pytest.raises(InputError, match=f"'other'.*{RENTAL.run}"):
        rentals.get("other")


def test_a_broken_record_is_named(tmp_path: Path) -> None:
    rentals = Rentals(tmp_path)
    rentals.save(RENTAL)
    (rentals.place(RENTAL.run) / "rental.json").write_text("{}")
    with pytest.raises(ClusterError, match=r"rental\.json is not a record"):
        rentals.all()


def test_a_rental_is_changed_by_one_process_at_a_time(tmp_path: Path) -> None:
    rentals = Rentals(tmp_path)
    with rentals.held(RENTAL.run), pytest.raises(InputError, match="another process"), rentals.held(RENTAL.run):
        pass
    with rentals.held(RENTAL.run):
        pass


def test_an_instance_ends_once() -> None:
    up = RENTAL.known(Instance("i-1", "t", 0.3, 1.0)).known(Instance("i-2", "t", 0.3, 1.0))
    half = up.gone(frozenset({"i-1"}), 50.0, "silent")
    assert [one.id for one in half.living] == ["i-2"]
    ended = half.gone(frozenset({"i-1", "i-2"}), 99.0)
    assert {one.id: (one.until, one.why) for one in ended.instances} == {"i-1": (50.0, "silent"), "i-2": (99.0, "")}


def test_runs_have_names_of_their_own_that_sort_by_time() -> None:
    assert new_run(0.0) != new_run(0.0)
    assert sorted([new_run(2e9), new_run(1e9)])[0].startswith("2001")


def test_what_nodes_did_is_noted_with_the_rental_and_half_a_line_is_left_out(tmp_path: Path) -> None:
    rentals = Rentals(tmp_path)
    rentals.save(RENTAL)
    assert rentals.spans(RENTAL.run) == ()
    one, two = Span("a/b-1", "ec2-1", 1.0, 2.0), Span("a/c-1", "ec2-1", 2.0, 5.0)
    rentals.note(RENTAL.run, [one])
    rentals.note(RENTAL.run, [two])
    with (rentals.place(RENTAL.run) / "spans.jsonl").open("a") as stream:
        stream.write('{"package": "a/')
    assert rentals.spans(RENTAL.run) == (one, two)
