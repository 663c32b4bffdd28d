"""The journal."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from cluster.errors import MachineError
from cluster.master.journal import Journal
from cluster.model import Compiles, Cpv, Outcome, Verdict

BUILT = Outcome(
    Cpv("c/a-1"),
    Verdict.BUILT,
    node="node-1",
    attempt=2,
    phases=(("boot", 7.5), ("compile", 20.0)),
    seconds=31.5,
    compiles=Compiles(5, 1, 2),
    log=Path("/logs/a"),
    reason="",
)


def test_the_latest_successful_build_of_each_package_is_remembered(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "deep" / "journal.sqlite")
    for seconds, verdict in ((50.0, Verdict.BUILT), (31.5, Verdict.BUILT), (2.0, Verdict.FAILED), (9.0, Verdict.LOST)):
        journal.record("arm64", Outcome(Cpv("c/a-1"), verdict, seconds=seconds))
    journal.record("riscv64", Outcome(Cpv("c/a-1"), Verdict.BUILT, seconds=99.0))
    journal.record("arm64", Outcome(Cpv("c/b-1"), Verdict.FAILED, seconds=3.0))
    assert journal.seconds("arm64") == {"c/a-1": 31.5}


def test_it_survives_its_process_and_keeps_the_whole_outcome(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    Journal(path).record("arm64", BUILT)
    assert Journal(path).seconds("arm64") == {"c/a-1": 31.5}
    with sqlite3.connect(path) as connection:
        row = connection.execute(
            "SELECT target, cpv, verdict, node, attempt, phases, remote, local, failed, log, reason FROM outcome"
        ).fetchone()
    phases = '[["boot", 7.5], ["compile", 20.0]]'
    assert row == ("arm64", "c/a-1", "built", "node-1", 2, phases, 5, 1, 2, "/logs/a", "")


def test_a_file_that_is_no_journal_is_named_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"my diary, " * 200)
    with pytest.raises(MachineError, match=f"{path} cannot be used.*move it away"):
        Journal(path)
    assert path.read_bytes().startswith(b"my diary")
