"""The prerequisites of a job, composed by the host: what lies over the stage, or what a compiler needs.

prerequisites/
    KEY.squashfs    what `emerge --usepkgonly` of these packages, in this order, would add to the stage
    KEY.layer/      the same as a directory, for roots on this machine's own kernel
    KEY.tar         the same for other machines
    lock

In each `usr/` is for overlayfs over /usr, `installed/` over /var/db/pkg, and `other/` has what
goes elsewhere; job/build puts them there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from tarfile import CHRTYPE, DIRTYPE, PAX_FORMAT, REGTYPE, TarFile, TarInfo
from typing import IO

from cluster import paths
from cluster.master import gpkg
from cluster.model import Cpv
from cluster.node import disk
from cluster.node.layout import Placed, Tree, Unfit, contents, lay_out
from cluster.process import find_program, run

_FORMAT = 1  # of the image; a change makes all of them anew
_KEPT = 50  # of each kind in the cache
_DEADLINE_S = 600.0
_INSTALL_PHASES = frozenset({"setup", "preinst", "postinst"})
_PROGRAMS = ("usr/bin", "usr/sbin", "usr/libexec", "usr/games")
_INSTALLED = "installed"
_OTHER = "other"
# Of a directory: overlayfs shows nothing of the layers below (Documentation/filesystems/overlayfs.rst).
_OPAQUE = {"SCHILY.xattr.trusted.overlay.opaque": "y"}
_USER_OPAQUE = "user.overlay.opaque"  # what takes its place in a namespace (mount option userxattr)
# An emulated processor would decompress; and images are small, and in the host's page cache.
_RAW = "-noI -noId -noD -noF -noX"
_SQFSTAR = f"sqfstar {_RAW} -root-mode 755 -root-uid 0 -root-gid 0 -exit-on-error -no-progress -quiet"

Item = tuple[TarInfo, IO[bytes] | None]
"""An object of the image, and what is in it if it is a file."""


def key(binpkgs: Sequence[Path], provides: Iterable[str] = ()) -> str:
    """What names the composition of these files, in this order, over a stage that `provides` these packages."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((_FORMAT, sorted(provides), len(binpkgs))).encode())
    for binpkg in binpkgs:
        with binpkg.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, hashlib.blake2b).digest())
    return digest.hexdigest()


def image(binpkgs: Sequence[Path], provides: Sequence[str], cache: Path) -> Path:
    """The image of `binpkgs`, made if `cache` has none; one at a time, published by rename.

    `provides` are the stage's own packages, as its recipe has them: those of the same name and
    slot are replaced. The file is a squashfs, extended to `disk.DATA_BYTES`. Raises Unfit for
    packages that only Portage in the node can install, UnsafeArchive and gpkg.GpkgError.
    """
    return _kept(binpkgs, provides, cache, ".squashfs", _make_image)


def layer(binpkgs: Sequence[Path], provides: Sequence[str], cache: Path) -> Path:
    """The same as a directory, in which everything belongs to who runs this. `paths.used` keeps it in the cache."""
    return _kept(binpkgs, provides, cache, ".layer", _make_layer)


def archive(binpkgs: Sequence[Path], provides: Sequence[str], cache: Path) -> Path:
    """The same as a tar file, with owners, devices and extended attributes."""
    return _kept(binpkgs, provides, cache, ".tar", _make_archive)


def _kept(
    binpkgs: Sequence[Path],
    provides: Sequence[str],
    cache: Path,
    kind: str,
    make: Callable[[Iterable[Item], Path], Path],
) -> Path:
    directory = cache / "prerequisites"
    path = directory / f"{key(binpkgs, provides)}{kind}"
    with paths.locked(directory / "lock"):
        if path.exists():
            os.utime(path)  # the newest are kept
            return path
        for leftover in directory.glob(".new-*"):
            shutil.rmtree(leftover)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=directory) as scratch, _all_opened(binpkgs) as packages:
            _require_no_phases(packages)
            need = 2 * sum(member.size for package in packages for member in package.image.getmembers())
            paths.require_space(directory, (need >> 20) + 64, "what is made of a job's prerequisites")
            make(_items(packages, provides), Path(scratch)).rename(path)
        os.utime(path)
        _prune(directory, kind)
    return path


def _prune(directory: Path, kind: str) -> None:
    """Remove all but the newest of a kind. A node that runs from an image keeps its open file."""
    made = sorted(directory.glob(f"*{kind}"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in made[_KEPT:]:
        if path.is_dir():
            paths.discard(path)
        else:
            path.unlink()


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


def replaced(provides: Iterable[str], packages: Iterable[tuple[Cpv, str]]) -> tuple[Cpv, ...]:
    """Which of the stage's `provides` (CATEGORY/NAME-VERSION[:SLOT[/SUBSLOT]]) packages (cpv, slot) replace."""
    new = {(gpkg.package_name(cpv), slot.partition("/")[0]): cpv for cpv, slot in packages}
    found = []
    for entry in provides:
        name, _, slot = entry.partition(":")
        cpv = Cpv(name)
        if new.get((gpkg.package_name(cpv), slot.partition("/")[0] or "0"), cpv) != cpv:
            found.append(cpv)
    return tuple(found)


def _is_for_compilers(path: str) -> bool:
    return path.split("/")[0] == "usr" and not any(path == name or path.startswith(f"{name}/") for name in _PROGRAMS)


def _unpack(archive: TarFile, member: TarInfo, place: Path) -> None:
    if member.isdir():
        place.mkdir(mode=0o755)
    elif member.issym():
        place.symlink_to(member.linkname)
    else:
        with place.open("xb") as stream:
            shutil.copyfileobj(_content(archive, member), stream)
        place.chmod(member.mode & 0o755 | 0o600)
        os.utime(place, (member.mtime, member.mtime))


def _content(archive: TarFile, member: TarInfo) -> IO[bytes]:
    """What is in a regular file, or in the file that a hard link is another name of."""
    stream = archive.extractfile(member)
    assert stream is not None  # it is for directories and devices
    return stream


@contextmanager
def _all_opened(binpkgs: Sequence[Path]) -> Iterator[tuple[gpkg.Opened, ...]]:
    with ExitStack() as stack:
        yield tuple(stack.enter_context(gpkg.opened(binpkg)) for binpkg in binpkgs)


def _tree(packages: Sequence[gpkg.Opened]) -> Tree:
    return lay_out([package.image.getmembers() for package in packages])


def _make_archive(items: Iterable[Item], scratch: Path) -> Path:
    made = scratch / "tree.tar"
    with TarFile.open(made, "w", format=PAX_FORMAT) as tar:
        for member, content in items:
            tar.addfile(member, content)
    return made


def _make_image(items: Iterable[Item], scratch: Path) -> Path:
    """A tar file goes before it, for owners that are not ours."""
    made = scratch / "image"
    find_program("sqfstar", "squashfs-tools")
    words: list[str | Path] = ["sh", "-c", f'exec {_SQFSTAR} "$1" < "$2"', "sh", made, _make_archive(items, scratch)]
    run(words, deadline_s=_DEADLINE_S)
    return disk.extend(made)


def _make_layer(items: Iterable[Item], scratch: Path) -> Path:
    """Links are made last, so that no path leads through one, and directories closed after all that is in them."""
    made = scratch / "layer"
    made.mkdir()
    links, directories = [], []
    for member, content in items:
        place = made / member.name
        if member.issym():
            links.append((member, place))
        elif member.isdir():
            place.mkdir(mode=0o700)
            directories.append((member, place))
        else:
            _lay_file(member, content, place, made)
    for member, place in links:
        place.symlink_to(member.linkname)
        os.utime(place, (member.mtime, member.mtime), follow_symlinks=False)
    for member, place in reversed(directories):
        if member.pax_headers:
            os.setxattr(place, _USER_OPAQUE, b"y")
        place.chmod(member.mode)
        os.utime(place, (member.mtime, member.mtime))
    return made


def _lay_file(member: TarInfo, content: IO[bytes] | None, place: Path, layer: Path) -> None:
    if member.ischr():  # a whiteout, which any user may make (Linux 5.8)
        os.mknod(place, stat.S_IFCHR, os.makedev(0, 0))
    elif member.islnk():
        place.hardlink_to(layer / member.linkname)
    else:
        assert content is not None
        with place.open("xb") as stream:
            shutil.copyfileobj(content, stream)
        place.chmod(member.mode)
        os.utime(place, (member.mtime, member.mtime))


def _require_no_phases(packages: Iterable[gpkg.Opened]) -> None:
    """Raise Unfit if a package has a phase that is to run on the target when it is installed."""
    for package in packages:
        phases = _INSTALL_PHASES.intersection(package.value("DEFINED_PHASES").split())
        if phases:
            raise Unfit(f"{package.cpv} has {', '.join(f'pkg_{name}' for name in sorted(phases))}")


def _items(packages: Sequence[gpkg.Opened], provides: Sequence[str]) -> Iterator[Item]:
    """Everything in the image, parents before what is in them, and hard links after their files."""
    tree = _tree(packages)
    directories = {_INSTALLED, *(f"{_INSTALLED}/{package.value('CATEGORY')}" for package in packages)}
    if "usr" not in tree:
        directories.add("usr")
    if not all(map(_is_usr, tree)):
        directories.add(_OTHER)
    for path in sorted(directories):
        yield _new(path, DIRTYPE, 0o755), None
    for path, placed in sorted(tree.items(), key=lambda item: (item[1].member.islnk(), item[0])):
        yield _item(tree, path, placed, packages[placed.package].image)
    for number, package in enumerate(packages, start=len(provides) + 1):
        yield from _installed(package, number)
    for cpv in replaced(provides, [(package.cpv, package.value("SLOT")) for package in packages]):
        yield _new(f"{_INSTALLED}/{cpv}", CHRTYPE, 0o000), None  # device 0, 0: overlayfs's whiteout


def _is_usr(path: str) -> bool:
    return path == "usr" or path.startswith("usr/")


def _place(path: str) -> str:
    return path if _is_usr(path) else f"{_OTHER}/{path}"


def _item(tree: Tree, path: str, placed: Placed, archive: TarFile) -> Item:
    old = placed.member
    new = _new(_place(path), old.type, old.mode, old.mtime)
    new.uid, new.gid = old.uid, old.gid
    if old.isdir() or old.issym():
        new.linkname = old.linkname
        return new, None
    if old.islnk() and tree[placed.target].package == placed.package:
        new.linkname = _place(placed.target)
        return new, None
    # Also a hard link whose file has been replaced by a later package's.
    new.type, new.size = REGTYPE, archive.getmember(old.linkname).size if old.islnk() else old.size
    return new, _content(archive, old)


def _installed(package: gpkg.Opened, counter: int) -> Iterator[Item]:
    """The package's entry of the installed database, as old as the package."""
    built = int(package.value("BUILD_TIME") or 0)
    members = package.image.getmembers()
    digests = {
        member.name: _md5(_content(package.image, member)) for member in members if member.isreg() or member.islnk()
    }
    directory = f"{_INSTALLED}/{package.cpv}"
    entry = _new(directory, DIRTYPE, 0o755, built)
    entry.pax_headers = dict(_OPAQUE)
    yield entry, None
    files = gpkg.installed_entry(package, contents(members, digests), counter, built)
    for name, text in sorted(files.items()):
        file = _new(f"{directory}/{name}", REGTYPE, 0o644, built)
        file.size = len(text)
        yield file, BytesIO(text)


def _md5(stream: IO[bytes]) -> str:
    digest = hashlib.md5()
    while chunk := stream.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def _new(path: str, kind: bytes, mode: int, mtime: float = 0) -> TarInfo:
    """A member of root's."""
    member = TarInfo(path)
    member.type, member.mode, member.mtime = kind, mode, max(0, int(mtime))
    return member
