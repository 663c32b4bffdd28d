"""What a simulation is given to build: a graph or a saved plan, with what past builds took."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cluster.errors import InputError
from cluster.master.estimate import UNKNOWN_S
from cluster.master.schedule import tasks
from cluster.master.schedule.tasks import Task, Tasks
from cluster.model import Action, Cpv

_PACKED = MappingProxyType({b"\xfd7zXZ\0": lzma.decompress, b"\x1f\x8b": gzip.decompress})
_ARROW = "->"
_COMMENT = "#"
_CPU = "cpu:"
_MIB = 1 << 20

Needs = Mapping[Cpv, tuple[Cpv, ...]]
"""Packages with what each needs."""


@dataclass(frozen=True, slots=True)
class Took:
    """What the last build of a package took that succeeded."""

    seconds: float
    disk_mib: float
    parallelism: float
    """CPU time over wall time."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Packages to build."""

    tasks: Tasks
    unknown: int = 0
    """Of so many no build is known; they are taken to need UNKNOWN_S."""


def read(graph: Path, history: Path | None = None) -> Workload:
    """The packages of the file `graph`, with their times from the file `history`; either may be packed (xz, gzip).

    `graph` has lines `A -> B` (B needs A), or is what `cluster plan --json` printed. Raises InputError.
    """
    text = _text(graph)
    needs = _plan(text, graph) if text.lstrip().startswith("{") else _lines(text, graph)
    return of(needs, _history(_text(history), history) if history else {})


def of(needs: Needs, took: Mapping[str, Took]) -> Workload:
    """The packages of `needs`; `took` has them by their names. Raises InputError where they need one another."""
    every = (_task(cpv, needed, took.get(cpv)) for cpv, needed in needs.items())
    return Workload(tasks.of(every), sum(cpv not in took for cpv in needs))


def _task(cpv: Cpv, needs: tuple[Cpv, ...], took: Took | None) -> Task:
    if took is None:
        return Task(cpv, UNKNOWN_S, needs)
    return Task(cpv, took.seconds, needs, disk_mib=took.disk_mib, parallelism=took.parallelism)


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read", str(error.strerror)) from error
    try:
        for magic, unpack in _PACKED.items():
            if data.startswith(magic):
                data = unpack(data)
        return data.decode()
    except (lzma.LZMAError, OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is damaged, or no text", str(error)) from error


# A graph.


def _lines(text: str, path: Path) -> Needs:
    needs: dict[Cpv, list[Cpv]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        match line.partition(_COMMENT)[0].split():
            case []:
                pass
            case [name] if name != _ARROW:
                needs.setdefault(Cpv(name), [])
            case [needed, arrow, name] if arrow == _ARROW and _ARROW not in (needed, name):
                needs.setdefault(Cpv(needed), [])
                needs.setdefault(Cpv(name), []).append(Cpv(needed))
            case _:
                raise InputError(
                    f"{path}, line {number}: {line.strip()!r} is neither `A -> B` (B needs A) nor a package alone",
                    "mend that line",
                )
    return {name: tuple(needed) for name, needed in needs.items()}


def _plan(text: str, path: Path) -> Needs:
    """What the plan builds; what it has already is there."""
    expected = "give what `cluster plan --json` printed for one target"
    try:
        plan: dict[str, Any] = json.loads(text)
        packages = [each for each in plan["packages"] if Action(each["action"]).builds]
        needs = {Cpv(str(each["cpv"])): tuple(Cpv(str(need)) for need in each["requires"]) for each in packages}
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: {error.msg}", expected) from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is no plan, {error!r}", expected) from error
    if "first" in plan:
        raise InputError(f"{path} has a plan of two rounds", "give one: what is under `first`, or all without it")
    return needs


# Past builds.


def _history(text: str, path: Path) -> dict[str, Took]:
    """What each package of a CSV by pkgsrc's bulk builder bob (github.com/jperkin/bob) took last.

    By its name, and by its cpv, which is the pkgpath's category and the name.
    """
    latest: dict[str, tuple[int, Took]] = {}
    for number, row in _rows(text, path):
        try:
            if row["outcome"] != "success":
                continue
            ended, took = int(row["timestamp"]), _took(row)
        except (TypeError, ValueError) as error:
            raise InputError(f"{path}, line {number}: {error}", "numbers are expected, or a dash for none") from error
        for name in (row["pkgname"], f"{row['pkgpath'].partition('/')[0]}/{row['pkgname']}"):
            if name not in latest or latest[name][0] <= ended:
                latest[name] = ended, took
    return {name: took for name, (_, took) in latest.items()}


def _rows(text: str, path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(io.StringIO(text), strict=True)
    needed = ("timestamp", "pkgpath", "pkgname", "outcome", "duration", "disk_usage")
    missing = [column for column in needed if column not in (reader.fieldnames or ())]
    if missing:
        raise InputError(f"{path}, line 1: there is no column {missing[0]}", f"a CSV has {', '.join(needed)}")
    try:
        for row in reader:
            if None in row or None in row.values():
                raise InputError(f"{path}, line {reader.line_num}: not as many columns as line 1 has", "mend that line")
            yield reader.line_num, row
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}", "mend that line") from error


def _took(row: Mapping[str, str]) -> Took:
    duration = int(row["duration"])
    if duration <= 0:
        raise ValueError(f"duration {duration} is not above 0")
    cpu = _sum(row[column] for column in row if column.startswith(_CPU))
    return Took(duration / 1000, _sum([row["disk_usage"]]) / _MIB, cpu / duration or 1.0)


def _sum(numbers: Iterable[str]) -> int:
    return sum(int(number) for number in numbers if number != "-")
