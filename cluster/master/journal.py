"""The journal: one SQLite file with every outcome, from which the next builds are estimated."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from cluster.errors import MachineError
from cluster.master.history import RAN, Build
from cluster.model import Outcome, Verdict

_VERSIONS = (
    """
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
""",
    """
ALTER TABLE outcome ADD cpu_s REAL;          -- NULL here and below where it is not known
ALTER TABLE outcome ADD memory_mib REAL;
ALTER TABLE outcome ADD disk_mib REAL;
ALTER TABLE outcome ADD jobs INTEGER;
ALTER TABLE outcome ADD speed REAL NOT NULL DEFAULT 1.0;
ALTER TABLE outcome ADD source_bytes INTEGER;
""",
)
"""What makes the schema of one version out of that of the version before; `PRAGMA user_version` counts them."""
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
            self._bring_up_to_date(connection)

    def _bring_up_to_date(self, connection: sqlite3.Connection) -> None:
        if _version(connection) == len(_VERSIONS):
            return
        connection.execute("BEGIN IMMEDIATE")  # of two masters one does it, the other waits and finds it done
        version = _version(connection)
        if version > len(_VERSIONS):
            what = f"the journal {self._path} is of a newer version of this program"
            raise MachineError(what, "use that one, or another --state")
        for script in _VERSIONS[version:]:
            for statement in script.split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(_VERSIONS)}")

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
        usage = outcome.usage
        row = {
            "target": target,
            "cpv": outcome.cpv,
            "verdict": outcome.verdict.value,
            "ended": time.time(),
            "node": outcome.node,
            "attempt": outcome.attempt,
            "seconds": outcome.seconds,
            "phases": json.dumps(outcome.phases),
            "remote": outcome.compiles.host + outcome.compiles.away + outcome.compiles.remote,
            "local": outcome.compiles.local,
            "failed": outcome.compiles.failed,
            "log": str(outcome.log or ""),
            "reason": outcome.reason,
            "cpu_s": usage.cpu_s,
            "memory_mib": usage.memory_mib,
            "disk_mib": usage.disk_mib,
            "jobs": outcome.jobs,
            "speed": outcome.speed,
            "source_bytes": outcome.source_bytes,
        }
        with self._connect() as connection:
            connection.execute(f"INSERT INTO outcome ({', '.join(row)}) VALUES (:{', :'.join(row)})", row)

    def add(self, builds: Iterable[Build]) -> int:
        """Add builds from elsewhere; returns how many were not there yet."""
        unknown = {"node": "", "attempt": 1, "failed": 0, "log": "", "reason": ""}
        rows = [{**asdict(build), **unknown, "phases": json.dumps(build.phases)} for build in builds]
        if not rows:
            return 0
        insert = (
            f"INSERT INTO outcome ({', '.join(rows[0])}) SELECT :{', :'.join(rows[0])} WHERE NOT EXISTS "
            "(SELECT 1 FROM outcome WHERE target = :target AND cpv = :cpv AND ended = :ended AND verdict = :verdict)"
        )
        with self._connect() as connection:
            return connection.executemany(insert, rows).rowcount

    def back_up(self, copy: Path) -> None:
        """Write the journal as it is now to the new file `copy`, whoever else writes to it."""
        with self._connect() as connection, closing(sqlite3.connect(copy)) as other:
            connection.backup(other)

    def builds(self, target: str | None = None) -> tuple[Build, ...]:
        """Every build for `target`, or for all targets, that ran on a node; the latest last."""
        names = ", ".join(field.name for field in fields(Build))
        query = (
            f"SELECT {names} FROM outcome WHERE verdict IN ({', '.join('?' * len(RAN))}) "
            "AND (? IS NULL OR target = ?) ORDER BY ended, id"
        )
        with self._connect() as connection:
            rows = connection.execute(query, (*RAN, target, target))
            return tuple(_build(dict(zip(names.split(", "), row, strict=True))) for row in rows)


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _build(row: dict[str, Any]) -> Build:
    phases = tuple((str(phase), float(seconds)) for phase, seconds in json.loads(row["phases"]))
    return Build(**{**row, "verdict": Verdict(row["verdict"]), "phases": phases})
