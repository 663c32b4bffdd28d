"""What the compile server knows of a node's build tree: contents that the node sent, by path and stamp.

A node changes its files between two compiles, so that nothing known is used unless the node has
said, within the same request, that it is still so: that is a `View`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cluster.node import wire
from cluster.node.includes import ABSENT, Listing
from cluster.node.sandbox import BUILD_PLACES

_LONGEST = 4000
_BUILT = tuple(f"{place}/" for place in BUILD_PLACES)


class Unusable(Exception):
    """A path or a file that the server must not or cannot use: the client is to go on by itself."""


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file that the node has sent."""

    stamp: wire.Stamp
    digest: str
    executable: bool


@dataclass(frozen=True, slots=True)
class KnownDirectory:
    """A directory that the node has listed."""

    stamp: wire.Stamp
    listing: Listing


Known = KnownFile | KnownDirectory


def absolute(path: str, cwd: PurePosixPath) -> PurePosixPath:
    """`path` from `cwd`, without `.` and `..`. Raises Unusable for what no path can be."""
    if "\0" in path or len(path) > _LONGEST:
        raise Unusable("a path that is none")
    normal = os.path.normpath(cwd / path)
    return PurePosixPath("/" + normal.lstrip("/"))  # POSIX lets "//" stand for something else


def is_built(path: PurePosixPath) -> bool:
    """Whether `path` lies in a build tree."""
    return f"{path}/".startswith(_BUILT)  # asked a dozen times for each compile, and pathlib is slow


class BuildTree:
    """One job's build tree. Contents are kept in `directory`, by digest, and in no other place."""

    def __init__(self, directory: Path) -> None:
        self._blobs = directory / "blobs"
        self._blobs.mkdir(parents=True)
        self._known: dict[PurePosixPath, Known] = {}

    def known(self, path: PurePosixPath) -> Known | None:
        """What was last known of `path`."""
        return self._known.get(path)

    def stamp(self, path: PurePosixPath) -> wire.Stamp:
        """The stamp of what is known of `path`; none if nothing is."""
        known = self._known.get(path)
        return known.stamp if known else wire.NO_STAMP

    def blob(self, digest: str) -> Path:
        """The file with the content of that digest."""
        return self._blobs / digest

    def keep(self, path: PurePosixPath, stamp: wire.Stamp, content: bytes, executable: bool) -> KnownFile:
        """Remember that `path` has `content`."""
        digest = hashlib.blake2b(content, digest_size=20).hexdigest()
        blob = self.blob(digest)
        if not blob.exists():
            part = self._blobs / f".{digest}-{os.urandom(4).hex()}"
            part.write_bytes(content)
            part.rename(blob)
        known = KnownFile(stamp, digest, executable)
        self._known[path] = known
        return known

    def keep_directory(self, path: PurePosixPath, stamp: wire.Stamp, listing: Listing) -> KnownDirectory:
        """Remember what `path` has in it."""
        known = KnownDirectory(stamp, listing)
        self._known[path] = known
        return known

    def forget(self, path: PurePosixPath) -> None:
        """Remember nothing of `path`."""
        self._known.pop(path, None)


class View:
    """The build tree as it is during one request."""

    def __init__(self, tree: BuildTree) -> None:
        self.tree = tree
        self._now: dict[PurePosixPath, Known | None] = {}

    def has(self, path: PurePosixPath) -> bool:
        """Whether the node has said what `path` is."""
        return path in self._now

    def file(self, path: PurePosixPath) -> KnownFile | None:
        """The file `path`, None if there is none. Raises KeyError for a path not yet told."""
        now = self._now[path]
        return now if isinstance(now, KnownFile) else None

    def listing(self, path: PurePosixPath) -> Listing:
        """What is in the directory `path`, ABSENT if it is none. Raises KeyError likewise."""
        now = self._now[path]
        return now.listing if isinstance(now, KnownDirectory) else ABSENT

    def told(self, path: PurePosixPath, state: wire.State) -> None:
        """Take in what the node says of `path`. Raises Unusable."""
        match state:
            case wire.Absent():
                self.tree.forget(path)
                self._now[path] = None
            case wire.Same():
                known = self.tree.known(path)
                if known is None:
                    raise wire.WireError("the client says that an unknown file is the same")
                self._now[path] = known
            case wire.File(stamp, executable, content):
                self._now[path] = self.tree.keep(path, stamp, content, executable)
            case wire.Directory(stamp, files, directories):
                self._now[path] = self.tree.keep_directory(path, stamp, Listing.of(files, directories))
            case _:
                raise Unusable("a file that is not a plain one")


def lay_out(view: View, paths: Iterable[PurePosixPath], directories: Iterable[PurePosixPath], place: Path) -> None:
    """Make in the empty `place` a tree of exactly these files and directories of `view`, by hard links.

    Raises Unusable where one path is a file and a directory at once.
    """
    try:
        for directory in (*BUILD_PLACES, *directories):
            (place / directory.relative_to("/")).mkdir(parents=True, exist_ok=True)
        for path in paths:
            known = view.file(path)
            if known is None:
                continue
            target = place / path.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(view.tree.blob(known.digest), target)
    except OSError as error:
        raise Unusable("paths that do not make a tree") from error


def leftovers(place: Path, expected: Sequence[PurePosixPath]) -> list[str]:
    """Files in the laid out tree that are neither its own, which have more than one link, nor `expected`."""
    found = []
    wanted = {place / path.relative_to("/") for path in expected}
    for base, _, names in os.walk(place):
        for name in names:
            path = Path(base) / name
            if path not in wanted and (path.is_symlink() or path.stat().st_nlink == 1):
                found.append(f"/{path.relative_to(place)}")
    return found
