"""A binhost's copy in a bucket of S3, to which several masters may add.

s3://BUCKET/PREFIX/
    Packages                    Portage's index, replaced only as it was read: nothing that another master put is lost
    CATEGORY/PF-SHA1.gpkg.tar   packages; never written twice, so that whoever has read an index finds all it names
"""

from __future__ import annotations

import hashlib
import logging
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

import tenacity

from cluster.errors import ClusterError, InputError, MachineError
from cluster.master import backup
from cluster.master.binhost import Binhost
from cluster.master.progress import Reporter
from cluster.master.s3 import Bucket, Changed, Place, place
from cluster.master.session import Session
from cluster.model import Cpv

log = logging.getLogger(__name__)

_INDEX = "Packages"
_AT_ONCE = 8
_SHA1 = re.compile("[0-9a-f]{40}")
_CPV = re.compile(r"[A-Za-z0-9_][\w+.-]*/[A-Za-z0-9_][\w+.-]*", re.ASCII)  # PMS 3.1; no ".." among them

Fields = Mapping[str, str]
"""An entry of the index, by its keys."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What was copied."""

    packages: tuple[Cpv, ...]
    size: int
    """Bytes."""
    there: int
    """How many packages the other side has now."""

    def __str__(self) -> str:
        count = len(self.packages)
        return f"{count} package{'' if count == 1 else 's'} ({self.size / 1e6:.1f} MB)"


def entries(index: str) -> dict[str, Fields]:
    """The packages of the text of an index, by CPV."""
    _, *parts = index.strip("\n").split("\n\n")
    found = [dict(line.split(": ", 1) for line in part.splitlines() if ": " in line) for part in parts]
    return {fields["CPV"]: fields for fields in found if _whole(fields)}


def _whole(fields: Fields) -> bool:
    """Whether an entry has what is read of it; Portage's have."""
    numbers = fields.get("SIZE", ""), fields.get("BUILD_TIME", "0")
    named = _CPV.fullmatch(fields.get("CPV", "")) and _SHA1.fullmatch(fields.get("SHA1", ""))
    return bool(named) and all(number.isdecimal() for number in numbers)


def chost(index: str) -> str:
    """For which machines the packages of the text of an index are; "" if it does not say."""
    found = re.search(r"(?m)^CHOST: (.*)$", index.partition("\n\n")[0])
    return found[1] if found else ""


def newer(some: Mapping[str, Fields], others: Mapping[str, Fields]) -> dict[str, Fields]:
    """Those of `some` that `others` lack, or have as they were built earlier."""
    return {cpv: one for cpv, one in some.items() if cpv not in others or _built(one) > _built(others[cpv])}


def _built(fields: Fields) -> int:
    return int(fields.get("BUILD_TIME", 0))


def render(found: Mapping[str, Fields], chost: str, when: float) -> str:
    """The text of an index; clients see by `when`, seconds since 1970, that it is another."""
    header = f"CHOST: {chost}\nPACKAGES: {len(found)}\nTIMESTAMP: {int(when)}\nVERSION: 0\n"
    parts = ("".join(f"{key}: {value}\n" for key, value in fields.items()) for _, fields in sorted(found.items()))
    return "\n".join((header, *parts)) + "\n"


def name_of(fields: Fields) -> str:
    """The object of a package: by its content, and without +, which some clients of S3 send for a space."""
    return f"{fields['CPV']}-{fields['SHA1'][:12]}.gpkg.tar".replace("+", "_")


def push(binhost: Binhost, bucket: Bucket) -> Moved:
    """Copy to `bucket` what it lacks of `binhost` or has as it was built earlier.

    Whoever else pushes meanwhile loses nothing. A file that is not what the index says is left out, with a warning.
    """
    mine = entries(binhost.index())
    theirs, _ = _read(bucket, binhost.chost)
    there = bucket.sizes()
    absent = [one for one in newer(mine, theirs).values() if name_of(one) not in there]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        uploaded = list(pool.map(lambda one: _uploaded(binhost, bucket, one), absent))
    sent = [one for one, good in zip(absent, uploaded, strict=True) if good]
    there |= {name_of(one): _size(one) for one in sent}
    stored = {cpv: {**one, "PATH": name_of(one)} for cpv, one in mine.items() if name_of(one) in there}
    return _moved(sent, _enter(bucket, stored, binhost.chost))


def _uploaded(binhost: Binhost, bucket: Bucket, fields: Fields) -> bool:
    """Whether the package is in `bucket` now: its file has to be what the index says."""
    file = binhost.path(Cpv(fields["CPV"]))
    if not _is(file, fields):
        log.warning("%s is not what its index says: not pushed", file)
        return False
    bucket.upload(file, name_of(fields))
    return True


def _given_up(state: tenacity.RetryCallState) -> NoReturn:
    raise MachineError(f"the index at {state.args[0].place} changes all the time", "try again")


@tenacity.retry(
    retry=tenacity.retry_if_exception_type(Changed),
    wait=tenacity.wait_random_exponential(multiplier=0.1, max=5),
    stop=tenacity.stop_after_attempt(20),
    retry_error_callback=_given_up,
)
def _enter(bucket: Bucket, stored: Mapping[str, Fields], chost: str) -> int:
    """Put into the index what of `stored` is newer; read again if another master was faster. How many it has then."""
    theirs, etag = _read(bucket, chost)
    merged = {**theirs, **newer(stored, theirs)}
    if merged != theirs:
        bucket.replace(_INDEX, render(merged, chost, time.time()).encode(), etag)
    return len(merged)


def pull(bucket: Bucket, binhost: Binhost) -> Moved:
    """Copy to `binhost` what it lacks of `bucket` or has as it was built earlier. Raises InputError for none there.

    Each file is checked against the index and as a GPKG before it is admitted.
    """
    theirs, etag = _read(bucket, binhost.chost)
    if etag is None:
        raise InputError(f"there is no binhost at {bucket.place}", "`cluster binhost push` makes one")
    wanted = list(newer(theirs, entries(binhost.index())).values())
    with (
        tempfile.TemporaryDirectory(prefix=".pull-", dir=binhost.directory) as scratch,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        files = [Path(scratch) / f"{number}.gpkg.tar" for number in range(len(wanted))]
        for one, file, _ in zip(wanted, files, pool.map(partial(_download, bucket), wanted, files), strict=True):
            binhost.bring(file, Cpv(one["CPV"]))
            file.unlink()
    return _moved(wanted, len(entries(binhost.index())))


def _download(bucket: Bucket, fields: Fields, file: Path) -> None:
    bucket.download(fields.get("PATH") or name_of(fields), file)
    if not _is(file, fields):
        mend = "push it again from where it was built"
        raise MachineError(f"{fields['CPV']} in {bucket.place} is not what its index says", mend)


def _moved(packages: Sequence[Fields], there: int) -> Moved:
    return Moved(tuple(Cpv(one["CPV"]) for one in packages), sum(map(_size, packages)), there)


def _size(fields: Fields) -> int:
    return int(fields["SIZE"])


def _is(file: Path, fields: Fields) -> bool:
    """Whether `file` is the package of an entry."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha1").hexdigest() == fields["SHA1"]
    except FileNotFoundError:
        return False


def _read(bucket: Bucket, ours: str) -> tuple[dict[str, Fields], str | None]:
    """The packages of the index in `bucket`, and what it is replaced by; None where there is none yet.

    Raises InputError where it is not for the CHOST `ours`.
    """
    found = bucket.read(_INDEX)
    if found is None:
        return {}, None
    text = found[0].decode(errors="replace")
    if chost(text) != ours:
        raise InputError(f"{bucket.place} is a binhost for CHOST {chost(text)}, not {ours}", "name another place")
    return entries(text), found[1]


def place_of(session: Session) -> Place | None:
    """Where the binhost of `session` is mirrored, by its configuration; None if it is not."""
    mirror = session.config.binhost.mirror
    return place(mirror).below(session.name or session.target.name) if mirror else None


@contextmanager
def kept(session: Session, binhost: Binhost, reporter: Reporter) -> Iterator[None]:
    """Bring what a build has made to its mirror, and the journal with it, when the context ends well.

    A mirror that cannot be used is an error before the build; after it, a warning: what was built is in the binhost.
    """
    where = place_of(session)
    if where is None:
        yield
        return
    bucket = Bucket(where)
    _read(bucket, binhost.chost)
    yield
    try:
        moved = push(binhost, bucket)
        backup.make(session, place(session.config.binhost.mirror))
        reporter.step(f"{moved} and the journal copied to {where}, which has {moved.there} now")
    except (ClusterError, OSError) as error:
        reporter.warn(f"not mirrored, `cluster binhost push` does it later: {error}")
