"""Files by their content, on a host: each is fetched once, from whoever has it, and checked."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cluster import paths
from cluster.errors import MachineError, NodeLost
from cluster.host import archive

log = logging.getLogger(__name__)

_SHA256 = re.compile("[0-9a-f]{64}")
_TRIES = 5
"""Of one source whose transfer breaks off, though it goes on each time."""
_IN_HAND_S = 600.0
"""What was used within that time may be about to be used, and is not pruned."""


@dataclass(frozen=True, slots=True)
class Blob:
    """What a file holds, wherever it lies."""

    sha256: str
    """Hexadecimal."""
    size: int
    """Bytes."""


def blob_of(path: Path) -> Blob:
    """The blob that the file `path` is."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return Blob(digest, os.fstat(stream.fileno()).st_size)


class TransferFailed(Exception):
    """A source did not give a file, or not all of it; says why."""


class Client(Protocol):
    """What gets files from a source (cluster.host.blobs)."""

    def download(self, source: str, blob: Blob, part: Path) -> None:
        """Add to the file `part` what it has not yet of `blob`. Raises TransferFailed; what came is then kept."""

    def best(self, sources: Sequence[str]) -> Sequence[str]:
        """The same sources, those first that are likely to answer."""


class Store:
    """The files that a host has.

    DIRECTORY/          of mode 0700
        blobs/SHA256    whole and checked
        trees/SHA256/   a blob that is a directory's archive, unpacked
        parts/SHA256    what has come of one so far
        locks/SHA256    held by whoever fetches or unpacks it

    May be used by several threads and processes. Files are not to be written to: link or copy them.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in ("blobs", "trees", "parts", "locks"):
            (directory / name).mkdir(exist_ok=True)

    def find(self, sha256: str) -> Path | None:
        """The file of that content, None if there is none."""
        return self._used("blobs", sha256) if _SHA256.fullmatch(sha256) else None

    def path(self, blob: Blob) -> Path | None:
        """The file of `blob`, None if it is not here."""
        return self.find(blob.sha256)

    def add(self, file: Path) -> Blob:
        """Keep a copy of `file`."""
        with self._writing(), tempfile.TemporaryDirectory(dir=self._directory) as scratch:
            copy = Path(scratch) / file.name
            shutil.copyfile(file, copy)
            blob = blob_of(copy)
            copy.replace(self._directory / "blobs" / blob.sha256)
        return blob

    def fetch(self, blob: Blob, sources: Sequence[str], client: Client) -> Path:
        """The file of `blob`, from the first of `sources` (URLs) that gives it as it is to be.

        Of several that ask for the same at once one fetches, the others wait for it. Raises NodeLost, which says
        what each source had to say; a source that gave something else is named in the log too.
        """
        with self._writing(), paths.locked(self._directory / "locks" / blob.sha256):
            return self.path(blob) or self._fetched(blob, client.best(sources), client)

    def tree(self, blob: Blob, sources: Sequence[str], client: Client) -> Path:
        """The directory that `blob` is an archive of, fetched and unpacked if it is not here."""
        found = self._used("trees", blob.sha256)
        if found is not None:
            return found
        packed = self.fetch(blob, sources, client)
        with self._writing(), paths.locked(self._directory / "locks" / blob.sha256):
            return self._used("trees", blob.sha256) or self._unpacked(packed)

    def prune(self, limit_bytes: int) -> int:
        """Remove what was not used for longest until the rest has `limit_bytes` at most; returns the bytes freed.

        What was used in the last minutes stays.
        """
        files = [entry for name in ("blobs", "trees", "parts") for entry in (self._directory / name).iterdir()]
        used = sorted((_last_used(entry), _bytes(entry), entry) for entry in files)
        excess = sum(size for _, size, _ in used) - limit_bytes
        freed = 0
        for when, size, entry in used:
            if freed >= excess or when > time.time() - _IN_HAND_S:
                break
            self._remove(entry)
            freed += size
        return freed

    def _remove(self, entry: Path) -> None:
        """Take `entry` away at once: nobody is to find half a tree."""
        with tempfile.TemporaryDirectory(dir=self._directory) as scratch:
            entry.rename(Path(scratch) / entry.name)

    def _used(self, kind: str, name: str) -> Path | None:
        path = self._directory / kind / name
        try:
            os.utime(path)
        except FileNotFoundError:
            return None
        return path

    def _fetched(self, blob: Blob, sources: Sequence[str], client: Client) -> Path:
        part = self._directory / "parts" / blob.sha256
        said = []
        for source in sources:
            try:
                _fill(part, blob, source, client)
            except TransferFailed as error:
                said.append(f"{source}: {error}")
                continue
            place = self._directory / "blobs" / blob.sha256
            part.replace(place)
            return place
        raise NodeLost(f"{blob.sha256[:12]} ({blob.size} bytes) cannot be had", "; ".join(said) or "nobody has it")

    def _unpacked(self, packed: Path) -> Path:
        with tempfile.TemporaryDirectory(dir=self._directory) as scratch:
            tree = Path(scratch) / packed.name
            archive.unpack(packed, tree)
            os.utime(tree)  # used now, whenever it was made
            return tree.rename(self._directory / "trees" / packed.name)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            what = f"cannot write in {self._directory} ({error.strerror or error})"
            raise MachineError(what, "free some space or mend its permissions") from error


def _fill(part: Path, blob: Blob, source: str, client: Client) -> None:
    """Make `part` the file of `blob`; one that is not is thrown away. Raises TransferFailed."""
    others = part.exists()
    _download(part, blob, source, client)
    if others and blob_of(part) != blob:  # who gave the beginning may be the one to blame
        part.unlink()
        _download(part, blob, source, client)
    if blob_of(part) != blob:
        part.unlink()
        log.warning("%s gave something else for %s: thrown away", source, blob.sha256)
        raise TransferFailed("what it gave has another SHA-256")


def _download(part: Path, blob: Blob, source: str, client: Client) -> None:
    """All of `part`, taking up again what breaks off, as long as it gets on."""
    for left in reversed(range(_TRIES)):
        before = _size(part)
        try:
            client.download(source, blob, part)
        except TransferFailed as error:
            if not left or _size(part) <= before:
                raise
            log.info("%s: %s; going on at byte %d", source, error, _size(part))
        else:
            return


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _last_used(entry: Path) -> float:
    return entry.stat().st_mtime


def _bytes(entry: Path) -> int:
    """What `entry` takes on the disk."""
    inner = entry.rglob("*") if entry.is_dir() else (entry,)
    return sum(path.lstat().st_blocks * 512 for path in inner)
