"""Backups of the journal in a bucket of S3.

s3://BUCKET/PREFIX/journal/NAME-MASTER-DATE.sqlite      NAME of the target or variant, MASTER of the machine

Binhosts are beside them, not above: who lets everybody read those does not publish where and when they were built.
"""

from __future__ import annotations

import platform
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cluster.errors import InputError
from cluster.master.journal import Journal
from cluster.master.s3 import Bucket, Place
from cluster.master.session import Session

_JOURNALS = "journal"


@dataclass(frozen=True, slots=True)
class Restored:
    """What came out of backups of journals."""

    backups: tuple[str, ...]
    added: int
    """Builds."""
    known: int


def make(session: Session, where: Place) -> None:
    """Copy the journal to `where`, a mirror's place: one object for each master and day."""
    name = f"{session.name or session.target.name}-{platform.node()}-{datetime.now(UTC):%Y-%m-%d}.sqlite"
    with tempfile.TemporaryDirectory(prefix="portage-cluster-") as scratch:
        copy = Path(scratch) / name
        Journal(session.journal).back_up(copy)
        Bucket(where.below(_JOURNALS)).upload(copy, name)


def restore(journal: Journal, where: Place) -> Restored:
    """Add to `journal` the builds of every backup at `where` that it lacks. Raises InputError for none there."""
    bucket = Bucket(where.below(_JOURNALS))
    names = sorted(name for name in bucket.sizes() if name.endswith(".sqlite"))
    if not names:
        raise InputError(f"there is no backup of a journal at {bucket.place}", "a build with binhost.mirror makes one")
    added = known = 0
    with tempfile.TemporaryDirectory(prefix="portage-cluster-") as scratch:
        for name in names:
            copy = Path(scratch) / "journal.sqlite"
            bucket.download(name, copy)
            builds = Journal(copy).builds()
            new = journal.add(builds)
            added, known = added + new, known + len(builds) - new
    return Restored(tuple(names), added, known)
