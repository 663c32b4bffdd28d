"""The journal's file."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from factories import failure, past

from cluster.errors import MachineError
from cluster.master.history import Build
from cluster.master.journal import Journal
from cluster.model import Cpv, Outcome, Verdict

ZLIB = Cpv("sys-libs/zlib-1.3.1")
SED = Cpv("sys-apps/sed-4.9")


def built(cpv: Cpv, seconds: float) -> Outcome:
    return Outcome(cpv, Verdict.BUILT, node="node-1", attempt=1, seconds=seconds)


def seconds(journal: Journal, target: str) -> dict[Cpv, float]:
    """What the latest build of each package took."""
    return {build.cpv: build.seconds for build in journal.builds(target) if build.verdict is Verdict.BUILT}


def test_the_latest_build_time_counts(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    assert seconds(journal, "arm64") == {}
    for took in (90.0, 30.0):
        journal.record("arm64", built(ZLIB, took))
    journal.record("arm64", built(SED, 200.5))
    assert seconds(journal, "arm64") == {ZLIB: 30.0, SED: 200.5}


def test_builds_come_in_their_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    for cpv in (ZLIB, SED, ZLIB):
        journal.record("arm64", built(cpv, 1.0))
    assert [build.cpv for build in journal.builds("arm64")] == [ZLIB, SED, ZLIB]


@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if verdict is not Verdict.BUILT])
def test_only_what_was_built_tells_a_build_time(tmp_path: Path, verdict: Verdict) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    journal.record("arm64", built(ZLIB, 90.0))
    journal.record("arm64", Outcome(ZLIB, verdict, seconds=2.0))
    journal.record("arm64", Outcome(SED, verdict, seconds=2.0))
    assert seconds(journal, "arm64") == {ZLIB: 90.0}


def test_targets_do_not_mix(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    journal.record("arm64", built(ZLIB, 90.0))
    assert seconds(journal, "riscv64") == {}


def test_it_outlives_its_master(tmp_path: Path) -> None:
    path = tmp_path / "state" / "deep" / "journal.sqlite"
    Journal(path).record("arm64", built(ZLIB, 90.0))
    again = Journal(path)
    again.record("arm64", built(SED, 5.0))
    assert seconds(again, "arm64") == {ZLIB: 90.0, SED: 5.0}


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
        "cpu_s": 60.5,
        "memory_mib": 700.0,
        "disk_mib": 250.5,
        "jobs": 2,
        "speed": 1.0,
        "source_bytes": 80000,
    }


def test_what_a_build_took_comes_out_as_it_went_in(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    journal.record("arm64", failure(ZLIB))
    journal.record("arm64", Outcome(SED, Verdict.BLOCKED, reason="needs zlib"))  # which ran nowhere
    (build,) = journal.builds("arm64")
    assert build == Build(
        target="arm64",
        cpv=ZLIB,
        ended=build.ended,
        verdict=Verdict.FAILED,
        seconds=41.5,
        cpu_s=60.5,
        memory_mib=700.0,
        disk_mib=250.5,
        phases=(("boot", 7.0), ("configure", 30.0)),
        jobs=2,
        source_bytes=80000,
        remote=3,
        local=1,
    )
    assert build.remote_share == 0.75


def test_builds_from_elsewhere_are_added_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    builds = past(ZLIB, 90.0, 30.0, jobs=4, phases=(("configure", 2.5),)) + past(SED, 5.0, target="arm", cpu_s=1.5)
    assert journal.add(builds) == 3
    assert journal.add(builds) == 0
    assert journal.add([]) == 0
    assert set(journal.builds()) == set(builds)
    assert journal.builds("arm") == (builds[2],)


def test_the_latest_build_is_the_one_that_ended_last_whenever_it_was_added(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    journal.record("arm64", built(ZLIB, 90.0))
    journal.add(past(ZLIB, 30.0))
    assert seconds(journal, "arm64") == {ZLIB: 90.0}


OLD = """
CREATE TABLE outcome (
    id INTEGER PRIMARY KEY, target TEXT NOT NULL, cpv TEXT NOT NULL, verdict TEXT NOT NULL, ended REAL NOT NULL,
    node TEXT NOT NULL, attempt INTEGER NOT NULL, seconds REAL NOT NULL, phases TEXT NOT NULL,
    remote INTEGER NOT NULL, local INTEGER NOT NULL, failed INTEGER NOT NULL, log TEXT NOT NULL, reason TEXT NOT NULL
);
CREATE INDEX outcome_by_package ON outcome (target, cpv);
INSERT INTO outcome VALUES
    (NULL, 'arm64', 'sys-libs/zlib-1.3.1', 'built', 7.0, 'node-1', 1, 30.0, '[["boot", 2.0]]', 9, 1, 0, '', '');
"""
"""A journal of before it had a version."""


def test_an_old_journal_goes_on_with_what_it_knows(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript(OLD)
    connection.close()
    Journal(path).record("arm64", failure(SED))
    old, new = Journal(path).builds("arm64")
    assert [old] == past(ZLIB, 30.0, ended=7.0, phases=(("boot", 2.0),), remote=9, local=1)
    assert new.cpu_s == 60.5


def test_a_journal_from_the_future_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(MachineError, match="is of a newer version of this program: use that one"):
        Journal(path)


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
