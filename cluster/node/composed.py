"""The prerequisites of a job, composed by the host: a directory of what a compiler needs of them."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tarfile import TarFile, TarInfo

from cluster.master import gpkg
from cluster.node.layout import Tree, lay_out

_FORMAT = 1  # of the image; a change makes all of them anew
_PROGRAMS = ("usr/bin", "usr/sbin", "usr/libexec", "usr/games")
_MERGED = "usr"


def key(binpkgs: Sequence[Path], provides: Iterable[str] = ()) -> str:
    """What names the composition of these files in this order over a stage that `provides` these packages."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((_FORMAT, sorted(provides), len(binpkgs))).encode())
    for binpkg in binpkgs:
        with binpkg.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, hashlib.blake2b).digest())
    return digest.hexdigest()


def unpack(binpkgs: Sequence[Path], directory: Path) -> None:
    """Unpack what `binpkgs` have below /usr, but not their programs, to the new `directory`.

    Headers, libraries, .pc files and data end where a merged-usr root has them: `lib/` is
    `usr/lib/`. Everything belongs to who runs this; symbolic links are as they are in the
    package, and may lead anywhere. Nothing is written outside of `directory`, whatever the
    archives say: links are made last, so that no path leads through one. Raises UnsafeArchive,
    Unfit, gpkg.GpkgError.
    """
    with _all_opened(binpkgs) as packages:
        tree = {path: placed for path, placed in _tree(packages).items() if _is_for_compilers(path)}
        directory.mkdir(parents=True)
        for path, placed in sorted(tree.items(), key=lambda item: (item[1].member.issym(), item[0])):
            _unpack(packages[placed.package].image, placed.member, directory / path)


def _is_for_compilers(path: str) -> bool:
    return path.split("/")[0] == _MERGED and not any(path == name or path.startswith(f"{name}/") for name in _PROGRAMS)


def _unpack(image: TarFile, member: TarInfo, place: Path) -> None:
    if member.isdir():
        place.mkdir(mode=0o755)
        return
    if member.issym():
        place.symlink_to(member.linkname)
        return
    source = image.extractfile(member)  # of a hard link: the file itself
    assert source is not None
    with place.open("xb") as stream:
        shutil.copyfileobj(source, stream)
    place.chmod(member.mode & 0o755 | 0o600)
    os.utime(place, (member.mtime, member.mtime))


@contextmanager
def _all_opened(binpkgs: Sequence[Path]) -> Iterator[tuple[gpkg.Opened, ...]]:
    with ExitStack() as stack:
        yield tuple(stack.enter_context(gpkg.opened(binpkg)) for binpkg in binpkgs)


def _tree(packages: Sequence[gpkg.Opened]) -> Tree:
    return lay_out([package.image.getmembers() for package in packages])
