"""The journal: one SQLite file with every outcome, from which past build times are learned."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.errors import MachineError
from cluster.model import Cpv, Outcome, Verdict

_SCHEMA = """
CREATE TABLE IF NOT EXISTS outcome (
    id INTEGER PRIMARY KEY,
    target TEXT NOT NULL,
    cpv TEXT NOT NULL,
    verdict TEXT NOT NULL,
    ended REAL NOT NULL,          -- seconds since the epoch
    node TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    seconds REAL NOT NULL,
    phases TEXT NOT NULL,         -- JSON: [[phase, seconds], ...]
    remote INTEGER NOT NULL,
    local INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    log TEXT NOT NULL,
    reason TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS outcome_by_package ON outcome (target, cpv);
"""
_BUSY_S = 30.0


class Journal:
    """The journal at `path`, made if it is absent. May be used from one thread at a time."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"cannot make {path.parent} for {path.name} ({error.strerror})"
            raise MachineError(what, "mend --state") from error
        self._path = path
        with self._connect() as connection:
            connection.executescript(_SCHEMA)

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = sqlite3.connect(self._path, timeout=_BUSY_S)
            try:
                with connection:
                    yield connection
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise MachineError(f"the journal {self._path} cannot be used: {error}", "move it away") from error

    def record(self, target: str, outcome: Outcome) -> None:
        """Add an outcome."""
        row = (
            target,
            outcome.cpv,
            outcome.verdict.value,
            time.time(),
            outcome.node,
            outcome.attempt,
            outcome.seconds,
            json.dumps(outcome.phases),
            outcome.compiles.host + outcome.compiles.remote,
            outcome.compiles.local,
            outcome.compiles.failed,
            str(outcome.log or ""),
            outcome.reason,
        )
        with self._connect() as connection:
            connection.execute(f"INSERT INTO outcome VALUES (NULL{', ?' * len(row)})", row)

    def seconds(self, target: str) -> dict[Cpv, float]:
        """The latest build time of every package that was ever built for `target`, the latest build last."""
        # Beside MAX(id) SQLite takes the other columns from the row that has it.
        query = (
            "SELECT cpv, seconds, MAX(id) FROM outcome WHERE target = ? AND verdict = ? GROUP BY cpv ORDER BY MAX(id)"
        )
        with self._connect() as connection:
            return {Cpv(cpv): seconds for cpv, seconds, _ in connection.execute(query, (target, Verdict.BUILT.value))}
