"""What `cluster history` shows a person, and the same for programs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape

from cluster import widetable
from cluster.master.estimate import SIGNS, Quality, duration
from cluster.master.history import Course, Surprise, surprises

_NUMBERS = ("builds", "estimate", "longest/shortest", "CPU s", "memory MiB", "disk MiB", "processors", "surprises")


def packages(console: Console, found: Sequence[Course]) -> None:
    """A row for each version with what its builds come to, and a line for each surprise."""
    table = widetable.table("package", "target", "last build", numbers=_NUMBERS)
    for one in found:
        row = (
            one.last.cpv,
            one.last.target,
            _when(one.last.ended),
            str(len(one.builds)),
            duration(one.seconds),
            _figure(one.spread, "{:.2f}"),
            _figure(one.last.cpu_s, "{:.0f}"),
            _figure(one.memory_mib, "{:.0f}"),
            _figure(one.disk_mib, "{:.0f}"),
            _figure(one.parallelism, "{:.1f}"),
            str(len(one.surprises) or ""),
        )
        table.add_row(*map(escape, row))
    widetable.show(console, table)
    for surprise in surprises(found):
        console.print(f"[yellow]![/] {escape(_words(surprise))}", highlight=False, soft_wrap=True)


def _words(surprise: Surprise) -> str:
    build = surprise.build
    return (
        f"{build.cpv} ({build.target}) took {duration(build.reference_s)} on {_when(build.ended)} and not the "
        f"{duration(surprise.expected_s)} that were expected: the estimate starts anew"
    )


def _when(ended: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(ended))


def _figure(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def packages_json(found: Sequence[Course]) -> dict[str, Any]:
    """The contract of `cluster history show --json`; seconds are those of a node of speed 1, null is unknown."""
    return {"packages": list(map(_course_json, found)), "surprises": list(map(_surprise_json, surprises(found)))}


def _course_json(one: Course) -> dict[str, Any]:
    last = one.last
    return {
        "cpv": last.cpv,
        "target": last.target,
        "builds": len(one.builds),
        "last": last.ended,
        "seconds": round(one.seconds, 2),
        "spread": one.spread,
        "cpu_s": last.cpu_s,
        "memory_mib": one.memory_mib,
        "disk_mib": one.disk_mib,
        "parallelism": one.parallelism,
        "jobs": last.jobs,
        "source_bytes": last.source_bytes,
        "remote_share": last.remote_share,
        "surprises": len(one.surprises),
    }


def _surprise_json(one: Surprise) -> dict[str, Any]:
    build = one.build
    return {
        "cpv": build.cpv,
        "target": build.target,
        "ended": build.ended,
        "seconds": round(build.reference_s, 2),
        "expected_s": round(one.expected_s, 2),
    }


def errors(console: Console, found: Sequence[Quality]) -> None:
    """A row for each basis: how far its estimates are off."""
    table = widetable.table("basis", "sign", numbers=("versions", "half within a factor of", "nine of ten"))
    for one in found:
        table.add_row(one.basis, SIGNS[one.basis], str(one.versions), f"{one.median:.2f}", f"{one.ninth:.2f}")
    widetable.show(console, table)


def errors_json(found: Sequence[Quality]) -> list[dict[str, Any]]:
    """The contract of `cluster history errors --json`; `median` and `ninth` are factors."""
    return [asdict(one) for one in found]
