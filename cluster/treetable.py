"""What `cluster tree` shows a person."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cluster.master.trees import Status

_SHORT = 12  # digits of a commit
_WIDEST = 1000  # columns


def status(console: Console, found: Sequence[Status]) -> None:
    """A table of the trees and their state."""
    table = _table("name", "kind", "revision", "pinned", "last sync")
    for name in ("ebuilds", "fresh", "stale", "missing"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("directory", no_wrap=True)
    for one in found:
        metadata = one.metadata
        counts = (metadata.ebuilds, metadata.fresh, metadata.stale, metadata.missing) if metadata else ("",) * 4
        pinned = "yes" if one.tree.commit else ""
        row = (one.tree.name, one.tree.sync, _revision(one), pinned, _when(one), *map(str, counts))
        table.add_row(*map(escape, (*row, str(one.tree.location))))
    _print(console, table)


def synced(console: Console, found: Sequence[Status]) -> None:
    """A table of what a sync did."""
    table = _table("name", "kind", "revision")
    for name in ("sync s", "ebuilds", "generated", "broken", "metadata s"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found:
        metadata = one.metadata
        counts = (metadata.ebuilds, metadata.generated, len(metadata.broken)) if metadata else ("",) * 3
        seconds = f"{one.metadata_seconds:.1f}" if metadata else ""
        row = (one.tree.name, one.tree.sync, _revision(one), f"{one.seconds:.1f}", *map(str, counts), seconds)
        table.add_row(*map(escape, row))
    _print(console, table)


def _table(*names: str) -> Table:
    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for name in names:
        table.add_column(name, no_wrap=True)
    return table


def _print(console: Console, table: Table) -> None:
    # A narrow terminal wraps the lines; rich would cut the names.
    table.width = console.measure(table, options=console.options.update(width=_WIDEST)).maximum
    console.print(table, soft_wrap=True)


def _revision(one: Status) -> str:
    """The revision with a commit's hash cut short."""
    if not one.revision:
        return "failed" if one.problem else "not synced yet"
    return re.sub("^[0-9a-f]{40,}", lambda commit: commit[0][:_SHORT], one.revision)


def _when(one: Status) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(one.synced)) if one.synced else ""
