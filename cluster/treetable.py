"""What `cluster tree` shows a person."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from cluster import widetable
from cluster.master.trees import Status

_SHORT = 12  # digits of a commit


def status(console: Console, found: Sequence[Status]) -> None:
    """A table of the trees and their state."""
    table = widetable.table("name", "kind", "revision", "pinned", "last sync")
    for name in ("ebuilds", "fresh", "stale", "missing"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("directory", no_wrap=True)
    for one in found:
        metadata = one.metadata
        counts = (metadata.ebuilds, metadata.fresh, metadata.stale, metadata.missing) if metadata else ("",) * 4
        pinned = "yes" if one.tree.commit else ""
        row = (one.tree.name, one.tree.sync, _revision(one), pinned, _when(one), *map(str, counts))
        table.add_row(*map(escape, (*row, str(one.tree.location))))
    widetable.show(console, table)


def synced(console: Console, found: Sequence[Status]) -> None:
    """A table of what a sync did."""
    table = widetable.table("name", "kind", "revision")
    for name in ("sync s", "ebuilds", "generated", "broken", "metadata s"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found:
        metadata = one.metadata
        counts = (metadata.ebuilds, metadata.generated, len(metadata.broken)) if metadata else ("",) * 3
        seconds = f"{one.metadata_seconds:.1f}" if metadata else ""
        row = (one.tree.name, one.tree.sync, _revision(one), f"{one.seconds:.1f}", *map(str, counts), seconds)
        table.add_row(*map(escape, row))
    widetable.show(console, table)


def _revision(one: Status) -> str:
    """The revision with a commit's hash cut short."""
    if not one.revision:
        return "failed" if one.problem else "not synced yet"
    return re.sub("^[0-9a-f]{40,}", lambda commit: commit[0][:_SHORT], one.revision)


def _when(one: Status) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(one.synced)) if one.synced else ""
