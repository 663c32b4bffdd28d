"""Files of past builds: our own as JSON lines or CSV, and the CSV of pkgsrc's bulk builder bob."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cluster import paths
from cluster.errors import InputError
from cluster.master import packed
from cluster.master.history import RAN, Build
from cluster.model import Verdict

_COLUMNS = tuple(field.name for field in fields(Build))
_PKGSRC = ("timestamp", "pkgpath", "pkgname", "outcome", "make_jobs", "duration", "disk_usage")
_OUTCOMES = MappingProxyType({"success": Verdict.BUILT, "failed": Verdict.FAILED})
_CPU = "cpu:"
_UNKNOWN = "-"
_PACK: Mapping[str, Callable[[bytes], bytes]] = MappingProxyType({".xz": lzma.compress, ".gz": gzip.compress})
_MEND = "mend that line, or leave it out"
_BUILD = TypeAdapter(Build)


def read(path: Path, target: str | None = None) -> tuple[Build, ...]:
    """The builds in the file `path`, in its order; as those of `target` if that is given.

    Whether it is packed (xz, gzip), and in which of the formats it is, is told by its content. A build whose file
    does not say its target has "". Raises InputError, which names the line.
    """
    text = packed.text(path)
    try:
        builds = _reader(text)(text)
        return tuple(build if target is None else replace(build, target=target) for build in builds)
    except InputError as error:
        raise InputError(f"{path}, {error.what}", error.mend) from error


def _reader(text: str) -> Callable[[str], Iterator[Build]]:
    if text.lstrip().startswith("{"):
        return json_lines
    columns = text.partition("\n")[0].strip().split(",")
    return pkgsrc if "pkgpath" in columns else ours


def json_lines(text: str) -> Iterator[Build]:
    """The builds of our own format with a JSON object on each line, whose keys are the fields of `Build`."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield _parsed(number, _of_json, line)


def _of_json(line: str) -> dict[str, Any]:
    values = json.loads(line)
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")
    return values


def ours(text: str) -> Iterator[Build]:
    """The builds of our own CSV, whose columns are the fields of `Build`; of `phases` in JSON. Empty is unknown."""
    for number, row in _rows(text, ("cpv", "ended", "verdict", "seconds")):
        yield _parsed(number, _of_ours, row)


def _of_ours(row: Mapping[str, str]) -> dict[str, Any]:
    known = {column: text for column, text in row.items() if text}
    return {**known, "phases": json.loads(known.get("phases", "[]"))}


def pkgsrc(text: str) -> Iterator[Build]:
    """The builds of bob's CSV (github.com/jperkin/bob), in which no target is named.

    A cpv is the pkgpath's category and the pkgname. Seconds are the duration, of which the phases are the stages; CPU
    time is that of all stages.
    """
    for number, row in _rows(text, _PKGSRC):
        yield _parsed(number, _of_pkgsrc, row)


def _of_pkgsrc(row: Mapping[str, str]) -> dict[str, Any]:
    outcome = row["outcome"]
    if outcome not in _OUTCOMES:
        raise ValueError(f"outcome {outcome!r} is none of {', '.join(_OUTCOMES)}")
    duration = _number(row, "duration")
    if duration is None:
        raise ValueError("duration is missing")
    stages = [column.removeprefix(_CPU) for column in row if column.startswith(_CPU)]
    spent = {stage: _number(row, stage) for stage in stages if stage in row}
    cpu = [ms for stage in stages if (ms := _number(row, _CPU + stage)) is not None]
    disk = _number(row, "disk_usage")
    return {
        "cpv": f"{row['pkgpath'].partition('/')[0]}/{row['pkgname']}",
        "ended": row["timestamp"],
        "verdict": _OUTCOMES[outcome],
        "seconds": duration / 1000,
        "cpu_s": sum(cpu) / 1000 if cpu else None,
        "disk_mib": None if disk is None else disk / (1 << 20),
        "phases": [(stage, ms / 1000) for stage, ms in spent.items() if ms is not None],
        "jobs": _number(row, "make_jobs"),
    }


def _number(row: Mapping[str, str], column: str) -> int | None:
    """The whole number in `column`; None for a dash. Raises ValueError."""
    text = row[column]
    if text == _UNKNOWN:
        return None
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"{column} {text!r} is no number")
    return int(text)


def _rows(text: str, needed: Iterable[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV by their columns, each with the number of its line."""
    reader = csv.reader(io.StringIO(text))
    columns = next(reader, [])
    missing = [column for column in needed if column not in columns]
    if missing:
        what = f"line 1: neither our CSV or JSON lines nor bob's history, which have {', '.join(missing)}"
        raise InputError(what, "name another file")
    try:
        for row in reader:
            if len(row) != len(columns):
                what = f"line {reader.line_num}: {len(row)} columns, not {len(columns)}"
                raise InputError(what, _MEND)
            yield reader.line_num, dict(zip(columns, row, strict=True))
    except csv.Error as error:
        raise InputError(f"line {reader.line_num}: {error}", _MEND) from error


def _parsed(number: int, convert: Callable[[Any], dict[str, Any]], source: object) -> Build:
    """The build that line `number` is. Raises InputError."""
    try:
        values = convert(source)
        return _sound(_BUILD.validate_python({"target": "", **values}))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        what = f"{key} is missing" if first["type"] == "missing" else f"{key} = {first['input']!r}: {first['msg']}"
        raise InputError(f"line {number}: {what}", _MEND) from error
    except ValueError as error:  # json's own, too
        raise InputError(f"line {number}: {error}", _MEND) from error


def _sound(build: Build) -> Build:
    """`build` if it can be. Raises ValueError."""
    numbers = (build.ended, build.seconds, build.cpu_s, build.memory_mib, build.disk_mib, build.source_bytes)
    if not all(number is None or (math.isfinite(number) and number >= 0) for number in numbers):
        raise ValueError("a number is below 0 or not finite")
    if not (math.isfinite(build.speed) and build.speed > 0):
        raise ValueError(f"speed {build.speed:g} is not above 0")
    category, _, rest = build.cpv.partition("/")
    if not (category and "-" in rest):
        raise ValueError(f"{build.cpv!r} is not CATEGORY/NAME-VERSION")
    if build.verdict not in RAN:
        raise ValueError(f"what is {build.verdict.value} never ran")
    return build


def write(path: Path, builds: Iterable[Build]) -> None:
    """Write `builds` into the file `path` in our own format.

    Its suffix says which: `.jsonl` or `.csv`, packed with `.xz` or `.gz` after it. Raises InputError for another.
    """
    pack = _PACK.get(path.suffix)
    form = path.with_suffix("").suffix if pack else path.suffix
    if form not in _FORMATS:
        mend = f"end it in {' or '.join(_FORMATS)}, with {' or '.join(_PACK)} after it to pack it"
        raise InputError(f"{path.name} does not say its format", mend)
    data = _FORMATS[form](builds).encode()
    try:
        paths.publish(path, lambda temporary: temporary.write_bytes(pack(data) if pack else data))
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror})", "name another file") from error


def _as_json_lines(builds: Iterable[Build]) -> str:
    return "".join(f"{json.dumps(asdict(build))}\n" for build in builds)


def _as_csv(builds: Iterable[Build]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({**asdict(build), "phases": json.dumps(build.phases)} for build in builds)
    return stream.getvalue()


_FORMATS: Mapping[str, Callable[[Iterable[Build]], str]] = MappingProxyType({".jsonl": _as_json_lines, ".csv": _as_csv})
