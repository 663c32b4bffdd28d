"""The master's files and directories by their content: what its hosts may ask for."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Collection, Hashable
from pathlib import Path

from cluster import paths
from cluster.host import archive
from cluster.host.store import Blob, blob_of


class Shelf:
    """Files stay where they are; of a directory an archive is made, once for each state of it.

    DIRECTORY/                  of mode 0700: a user's own settings are among it
        NAME-STATE.tar.zst      NAME for the directory, STATE for how it was; the latest alone is kept

    Content is read again only when a file's size, time or inode has changed. May be used by several threads.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = threading.Lock()
        self._packing = threading.Lock()
        self._blobs: dict[Hashable, Blob] = {}
        """Of a file in a certain state."""
        self._places: dict[str, tuple[Path, Hashable]] = {}
        """Where the content of a SHA-256 was, and the state that the file was in."""

    def file(self, path: Path) -> Blob:
        """The blob that `path` is."""
        state = _state(path)
        with self._lock:
            known = self._blobs.get(state)
        known = known or blob_of(path)
        with self._lock:
            self._blobs[state] = known
            self._places[known.sha256] = (path, state)
        return known

    def tree(self, directory: Path, leave_out: Collection[str] = ()) -> Blob:
        """The archive of `directory`, without anything named in `leave_out`."""
        name = _short(str(directory), sorted(leave_out))
        place = self._directory / f"{name}-{_short(archive.state(directory, leave_out))}.tar.zst"
        with self._packing:  # of two that make the same, the second would take the first's place under its reader
            if not place.exists():
                before = [path for path in self._directory.glob(f"{name}-*") if path != place]
                paths.publish(place, lambda temporary: archive.pack(directory, temporary, leave_out))
                for path in before:
                    path.unlink(missing_ok=True)
            return self.file(place)

    def find(self, sha256: str) -> Path | None:
        """The file that has that content, if it was on the shelf and is still as it was."""
        with self._lock:
            path, state = self._places.get(sha256, (None, None))
        try:
            return path if path and _state(path) == state else None
        except FileNotFoundError:
            return None


def _state(path: Path) -> Hashable:
    stat = path.stat()
    return str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino


def _short(*parts: object) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()
