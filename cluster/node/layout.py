"""One tree from the images of several binary packages: what lies where. Decides, and touches no file.

The rules are those of Portage's merge (`dblink.mergeme`): packages come in order, a directory that
is there keeps its mode and owner, a file takes the place of a file, a path that leads through a
link to a directory is followed.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from tarfile import DIRTYPE, TarInfo

from cluster.errors import ClusterError

MERGED_USR: Mapping[str, str] = {
    name: f"usr/{name}" for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "libo32", "libn32")
}
"""The links of a merged-usr root: where it is, relative to the root, and what it leads to."""

_IMAGE = "image"  # the directory that holds everything in a GPKG's image (GLEP 78)
_LINKS = 40  # as many as Linux follows in one path


class UnsafeArchive(ClusterError):
    """An archive has a member that would lie outside of the tree, or that no package may have."""


class Unfit(ClusterError):
    """These packages cannot be put together without Portage in the node; `mend` says why."""


@dataclass(frozen=True, slots=True)
class Placed:
    """An object of the tree."""

    package: int
    """The number of the package that it is from, in the order given."""
    member: TarInfo
    """As the archive has it: a directory, regular file, symbolic link or hard link."""
    target: str = ""
    """Of a hard link: the path in the tree."""


Tree = dict[str, Placed]
"""Objects by path, which is relative to the root. Every parent is in it, and is a directory."""


def path_of(name: str) -> str:
    """The path below the root of the member called `name`, "" for the root; UnsafeArchive if it has none."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or parts[:1] != [_IMAGE] or "\n" in name or "\0" in name:
        raise UnsafeArchive(f"the archive's member {name!r} is not below {_IMAGE}/")
    return "/".join(parts[1:])


def lay_out(images: Sequence[Iterable[TarInfo]], links: Mapping[str, str] = MERGED_USR) -> Tree:
    """The tree of `images` (each the members of a package's image, in the order of installation).

    `links` are symbolic links to directories that are there already. Raises UnsafeArchive, and
    Unfit where a directory meets a file, for which Portage makes up another name.
    """
    tree: Tree = {}
    for number, members in enumerate(images):
        seen: set[str] = set()
        for member in members:
            path = path_of(member.name)
            if path in seen:
                raise UnsafeArchive(f"the archive has {path or 'its root'} twice")
            seen.add(path)
            if path and not (path in links and links[path] == _leads_to(path, member)):
                _add(tree, links, path, _placed(tree, links, number, member))
    return tree


def _placed(tree: Tree, links: Mapping[str, str], number: int, member: TarInfo) -> Placed:
    if not member.islnk():
        if not (member.isreg() or member.isdir() or member.issym()):
            raise UnsafeArchive(f"the archive's member {member.name!r} is a device")
        return Placed(number, member)
    target = _resolved(tree, links, path_of(member.linkname), last=False)
    there = tree.get(target)
    if there is None or there.package != number or not there.member.isreg():
        raise UnsafeArchive(f"{member.name!r} is a hard link to {member.linkname!r}, no file before it in the archive")
    return Placed(number, member, target)


def _add(tree: Tree, links: Mapping[str, str], path: str, placed: Placed) -> None:
    is_directory = placed.member.isdir()
    path = _resolved(tree, links, path, last=is_directory)
    if not path:  # a link to the root
        return
    for parent in _parents(path):
        there = tree.setdefault(parent, Placed(placed.package, _implied(parent)))
        if not there.member.isdir():
            raise Unfit(f"/{parent}", "a directory in one package and none in another")
    there = tree.get(path, placed)
    if there.member.isdir() != is_directory or (path in links and not is_directory):
        raise Unfit(f"/{path}", "a directory in one package and none in another")
    if not is_directory or path not in tree:
        tree[path] = placed


def _parents(path: str) -> Iterator[str]:
    """The directories above `path`, from the root's own down."""
    parts = path.split("/")
    return ("/".join(parts[:count]) for count in range(1, len(parts)))


def _implied(path: str) -> TarInfo:
    """A directory that no archive mentions."""
    member = TarInfo(f"{_IMAGE}/{path}")
    member.type, member.mode = DIRTYPE, 0o755
    return member


def _leads_to(path: str, member: TarInfo) -> str | None:
    """What the symbolic link `member` at `path` leads to, relative to the root; None for another thing."""
    if not member.issym():
        return None
    # Joined to "/" first: `..` at the root is the root.
    return posixpath.normpath(posixpath.join("/", posixpath.dirname(path), member.linkname)).lstrip("/")


def _resolved(tree: Tree, links: Mapping[str, str], path: str, *, last: bool) -> str:
    """`path` with the links to directories on its way followed, its last part only if `last`."""
    done: list[str] = []
    rest = path.split("/")[::-1]
    followed = 0
    while rest:
        done.append(rest.pop())
        here = "/".join(done)
        there = tree.get(here)
        target = links.get(here) or (_leads_to(here, there.member) if there else None)
        if target is None or not (rest or last):
            continue
        followed += 1
        if followed > _LINKS:
            raise Unfit(f"/{path}", "its links lead in a circle")
        done.clear()
        rest += [part for part in reversed(target.split("/")) if part]
    return "/".join(done)


def contents(members: Iterable[TarInfo], digests: Mapping[str, str]) -> str:
    """The CONTENTS of a package's database entry, sorted by path.

    A line is `dir PATH`, `obj PATH MD5 MTIME` or `sym PATH -> TARGET MTIME` (portage(5)), with the
    path that the package has, whatever links it leads through, and seconds since 1970. `digests`
    has the MD5 of every regular file and hard link, by the member's name.
    """
    lines = []
    for member in members:
        path = f"/{path_of(member.name)}"
        if path == "/":
            continue
        if member.isdir():
            lines.append((path, f"dir {path}\n"))
        elif member.issym():
            lines.append((path, f"sym {path} -> {member.linkname} {int(member.mtime)}\n"))
        else:
            lines.append((path, f"obj {path} {digests[member.name]} {int(member.mtime)}\n"))
    return "".join(line for _, line in sorted(lines))
