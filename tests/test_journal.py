"""The journal's file."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from factories import failure

from cluster.errors import MachineError
from cluster.master.journal import Journal
from cluster.model import Cpv, Outcome, Verdict

ZLIB = Cpv("sys-libs/zlib-1.3.1")
SED = Cpv("sys-apps/sed-4.9")


def built(cpv: Cpv, seconds: float) -> Outcome:
    return Outcome(cpv, Verdict.BUILT, node="node-1", attempt=1, seconds=seconds)


def test_the_latest_build_time_counts(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    assert journal.seconds("arm64") == {}
    for seconds in (90.0, 30.0):
        journal.record("arm64", built(ZLIB, seconds))
    journal.record("arm64", built(SED, 200.5))
    assert journal.seconds("arm64") == {ZLIB: 30.0, SED: 200.5}


def test_build_times_come_in_the_order_of_the_latest_builds(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    for cpv in (ZLIB, SED, ZLIB):
        journal.record("arm64", built(cpv, 1.0))
    assert list(journal.seconds("arm64")) == [SED, ZLIB]


@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if verdict is not Verdict.BUILT])
def test_only_what_was_built_tells_a_build_time(tmp_path: Path, verdict: Verdict) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    journal.record("arm64", built(ZLIB, 90.0))
    journal.record("arm64", Outcome(ZLIB, verdict, seconds=2.0))
    journal.record("arm64", Outcome(SED, verdict, seconds=2.0))
    assert journal.seconds("arm64") == {ZLIB: 90.0}


def test_targets_do_not_mix(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    journal.record("arm64", built(ZLIB, 90.0))
    assert journal.seconds("riscv64") == {}


def test_it_outlives_its_master(tmp_path: Path) -> None:
    path = tmp_path / "state" / "deep" / "journal.sqlite"
    Journal(path).record("arm64", built(ZLIB, 90.0))
    again = Journal(path)
    again.record("arm64", built(SED, 5.0))
    assert again.seconds("arm64") == {ZLIB: 90.0, SED: 5.0}


def test_the_whole_outcome_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    outcome = failure(ZLIB, attempt=3, reason="compile failed: 'quoted' \N{SNOWMAN}")
    Journal(path).record("arm64", outcome)
    with sqlite3.connect(path) as connection:
        connection.row_factory = sqlite3.Row
        (row,) = connection.execute("SELECT * FROM outcome")
    connection.close()
    kept = dict(row)
    assert json.loads(kept.pop("phases")) == [["boot", 7.0], ["configure", 30.0]]
    assert kept.pop("ended") > 0
    del kept["id"]
    assert kept == {
        "target": "arm64",
        "cpv": ZLIB,
        "verdict": "failed",
        "node": "node-1",
        "attempt": 3,
        "seconds": 41.5,
        "remote": 3,
        "local": 1,
        "failed": 2,
        "log": "/logs/b.log",
        "reason": outcome.reason,
    }


def test_a_damaged_file_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_text("this is no database, but it may be dear to someone\n" * 40)
    before = path.read_bytes()
    with pytest.raises(MachineError, match=r"journal\.sqlite cannot be used.*: move it away"):
        Journal(path)
    assert path.read_bytes() == before


def test_a_state_directory_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(MachineError, match=r"journal\.sqlite"):
        Journal(tmp_path / "state" / "journal.sqlite")
