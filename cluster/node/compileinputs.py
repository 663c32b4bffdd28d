"""Which files a compiler could read for a request: asked for until the answer is complete.

The answer may be too large and never too small, so that the compiler finds in the sandbox all
that it finds in the node, and nothing else. Headers are `includes.closure`'s subject; here they
are looked for in a node's build tree and in a sealed root, and libraries and objects beside them.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

from cluster.node import includes
from cluster.node.buildtree import KnownFile, Unusable, View, absolute, is_built
from cluster.node.commandline import Kind, Language, Request
from cluster.node.includes import ABSENT, Includes, Listing
from cluster.node.sysroot import Root

_OBJECT_MAGIC = (b"\x7fELF", b"!<arch>\n")


@dataclass(frozen=True, slots=True)
class Needs:
    """What a request names, absolute."""

    request: Request
    cwd: PurePosixPath
    search: tuple[str, ...]
    """Every directory in which a header may be, as written."""
    objects: tuple[PurePosixPath, ...]
    linker_files: tuple[PurePosixPath, ...]
    library_dirs: tuple[PurePosixPath, ...]
    """Those of the build tree first, then the sealed ones."""
    outputs: tuple[PurePosixPath, ...]

    @classmethod
    def of(cls, request: Request, root: Root) -> Self:
        """From a parsed command line. Raises Unusable for paths outside of the build tree."""
        cwd = request.cwd
        language = "c++" if any(source.language is Language.CXX for source in request.sources) else "c"
        own = tuple(map(str, root.include[language]))
        written = [path for path in request.outputs if path != "/dev/null"]
        outputs = tuple(absolute(path, cwd) for path in (*written, *filter(None, [request.dependency_file])))
        sources = [absolute(source.path, cwd) for source in request.sources if source.path != "/dev/null"]
        if not all(map(is_built, (cwd, *sources, *outputs))):
            raise Unusable("a path outside of the build tree")
        return cls(
            request=request,
            cwd=cwd,
            search=(*request.include_dirs, *own),
            objects=tuple(absolute(path, cwd) for path in request.objects),
            linker_files=tuple(absolute(path, cwd) for path in request.linker_files),
            library_dirs=(*(absolute(path, cwd) for path in request.library_dirs), *root.libraries),
            outputs=outputs,
        )

    @property
    def habit(self) -> object:
        """The same for requests that are likely to need the same headers."""
        return self.cwd, self.search, self.request.kind is Kind.LINK


@dataclass(frozen=True, slots=True)
class Inputs:
    """All that a compiler could read of the build tree, and what it could read besides."""

    files: frozenset[PurePosixPath]
    directories: frozenset[PurePosixPath]
    asked: tuple[PurePosixPath, ...]
    """What the node had to be asked for."""
    beyond_stage: bool
    """Whether it could read something that the stage alone has not."""
    volatile: bool
    """Whether the result depends on the clock."""
    unkept: bool
    """Whether a pragma may not survive the preprocessor."""
    unsure: bool
    """Whether messages may quote a file that only the node has."""


@dataclass(frozen=True, slots=True)
class Missing:
    """What the node must be asked before the answer can be given."""

    paths: tuple[PurePosixPath, ...]


class Sealed:
    """What is known of sealed roots' headers: it does not change."""

    def __init__(self) -> None:
        self._scans: dict[object, Includes] = {}
        self._roots: dict[tuple[str, str], SealedRoot] = {}

    def root(self, root: Root) -> SealedRoot:
        """The memory for `root`."""
        return self._roots.setdefault((root.stage, root.prerequisites), SealedRoot(root, self))

    def scan(self, identity: object, path: Path) -> Includes:
        """What a file includes; `identity` tells its content from others."""
        found = self._scans.get(identity)
        if found is None:
            found = self._scans[identity] = includes.scan(path.read_bytes())
        return found


class SealedRoot:
    """One root's directories and headers."""

    def __init__(self, root: Root, sealed: Sealed) -> None:
        self._root = root
        self._sealed = sealed
        self.reached = includes.Sealed()
        self.listing = functools.cache(self._listing)
        self.includes = functools.cache(self._includes)
        self.added_names = frozenset(_below(root))

    def _listing(self, directory: str) -> Listing:
        place = self._root.sandbox.host_path(PurePosixPath(directory))
        if place is None or not place.is_dir():
            return ABSENT
        with os.scandir(place) as entries:
            kinds = {entry.name: entry.is_dir() for entry in entries}
        return Listing.of((name for name, is_dir in kinds.items() if not is_dir), filter(kinds.get, kinds))

    def _includes(self, path: str) -> Includes:
        place = self._root.sandbox.host_path(PurePosixPath(path))
        if place is None or not place.is_file():
            return Includes(opaque="a header that cannot be read")
        stat = place.stat()  # roots share files
        return self._sealed.scan((stat.st_dev, stat.st_ino, stat.st_mtime_ns), place)


def _below(root: Root) -> Iterator[str]:
    """The prerequisites' files as an #include would name them, from every directory of the search path."""
    for directory in {path for paths in root.include.values() for path in paths}:
        for path in root.added:
            if path.startswith(f"{directory}/"):
                yield path.removeprefix(f"{directory}/")


class _Tree:
    """`includes.Tree` over a view and a sealed root."""

    def __init__(self, view: View, root: SealedRoot, sealed: Sealed) -> None:
        self._view, self._root, self._sealed = view, root, sealed

    def sealed(self, path: str) -> bool:
        return not is_built(PurePosixPath(path))

    def listing(self, directory: str) -> Listing | None:
        path = PurePosixPath(directory)
        if not is_built(path):
            return self._root.listing(directory)
        return self._view.listing(path) if self._view.has(path) else None

    def includes(self, path: str) -> Includes | None:
        place = PurePosixPath(path)
        if not is_built(place):
            return self._root.includes(path)
        if not self._view.has(place):
            return None
        known = self._view.file(place)
        return Includes() if known is None else self._sealed.scan(known.digest, self._view.tree.blob(known.digest))


def inputs(needs: Needs, view: View, root: Root, sealed: Sealed) -> Inputs | Missing:
    """All that the compiler could read for `needs`, or what of the node must be known first.

    Raises Unusable for a request that depends on more than files that can be named.
    """
    own = sealed.root(root)
    tree = _Tree(view, own, sealed)
    sources = [source.path for source in needs.request.sources]
    headers = includes.closure(sources, needs.request.forced, needs.search, str(needs.cwd), tree, own.reached)
    linking = _Linking(needs, view, root)
    if needs.request.kind is Kind.LINK:
        linking.follow()
    match headers:
        case includes.Opaque(_, reason):
            raise Unusable(reason)
        case includes.Missing(directories, files):
            unknown = dict.fromkeys(PurePosixPath(path) for path in sorted(directories | files))
            return Missing(tuple(unknown | linking.missing))
    if linking.missing:
        return Missing(tuple(linking.missing))
    own_files = frozenset(PurePosixPath(path) for path in headers.files)
    own_directories = frozenset(PurePosixPath(path) for path in headers.directories)
    return Inputs(
        files=own_files | linking.files,
        directories=own_directories | linking.directories,
        asked=tuple(sorted(own_files | own_directories)),
        beyond_stage=linking.beyond_stage or not own.added_names.isdisjoint(headers.names),
        volatile=headers.volatile,
        unkept=headers.unkept,
        unsure=headers.unsure,
    )


class _Linking:
    """The objects and libraries of a link, as far as the view reaches."""

    def __init__(self, needs: Needs, view: View, root: Root) -> None:
        self._needs, self._view, self._root = needs, view, root
        self.missing: dict[PurePosixPath, None] = {}
        self.files: set[PurePosixPath] = set()
        self.directories: set[PurePosixPath] = set()
        self.beyond_stage = False

    def follow(self) -> None:
        for path in self._needs.objects:
            if is_built(path):
                self._parent(path)
                self._object(path)
            elif not self._is_sealed_file(path):
                raise Unusable("an object outside of the build tree")
        for path in self._needs.linker_files:
            self._parent(path)
            if self._file(path) is None and self._view.has(path):
                raise Unusable("a file for the linker that is not where it is looked for first")
        for directory in self._needs.library_dirs:
            if is_built(directory):
                listing = self._directory(directory)
                for name in listing.files.intersection(self._library_names()):
                    self._object(directory / name)
            else:
                for name in self._library_names():
                    self._is_sealed_file(directory / name)

    def _library_names(self) -> Iterator[str]:
        for name in self._needs.request.libraries:
            if name.startswith(":"):
                yield name[1:]
            else:
                yield from (f"lib{name}.so", f"lib{name}.a")

    def _known(self, path: PurePosixPath) -> bool:
        if not self._view.has(path):
            self.missing[path] = None
            return False
        return True

    def _parent(self, path: PurePosixPath) -> None:
        """Have the node tell whether the path to a file is free of links, as its working directory is."""
        if path.parent != self._needs.cwd:
            self._directory(path.parent)

    def _directory(self, path: PurePosixPath) -> Listing:
        if not self._known(path):
            return ABSENT
        listing = self._view.listing(path)
        if listing.exists:
            self.directories.add(path)
        return listing

    def _file(self, path: PurePosixPath) -> KnownFile | None:
        known = self._view.file(path) if self._known(path) else None
        if known is not None:
            self.files.add(path)
        return known

    def _object(self, path: PurePosixPath) -> None:
        known = self._file(path)
        if known is not None:
            with self._view.tree.blob(known.digest).open("rb") as stream:
                if not stream.read(8).startswith(_OBJECT_MAGIC):
                    raise Unusable("a linker script")

    def _is_sealed_file(self, path: PurePosixPath) -> bool:
        """Whether a sealed root has the file, of which it is noted whether the stage does."""
        host = self._root.sandbox.host_path(path)
        if host is None or not host.is_file():
            return False
        self.beyond_stage = self.beyond_stage or str(path) in self._root.added
        return True
