"""The user's own directory like /etc/portage, of which master and nodes take over the same.

make.conf (a file, or a directory of them)   comes before `build.make_conf`
make.profile                                 the profile, unless another is named
repos.conf, binrepos.conf                    left out: repositories are the master's affair
all else                                     as it is: package.*, env, profile, sets, patches, bashrc…
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from cluster.errors import InputError

_OURS = ("make.conf", "make.profile", "repos.conf", "binrepos.conf")


def find(pattern: str, target: str) -> Path | None:
    """The directory that `pattern` names for `target`, whose name stands for `{target}` in it; None for "".

    Raises InputError when there is none.
    """
    if not pattern:
        return None
    directory = Path(pattern.replace("{target}", target)).expanduser().absolute()
    if not directory.is_dir():
        raise InputError(
            f"there is no directory {directory}", "name one like /etc/portage with --portage or portage.directory"
        )
    return directory


def make_conf(directory: Path | None, lines: str) -> str:
    """The text of make.conf: the directory's, then `lines`."""
    texts = [path.read_text() for path in _files(directory / "make.conf")] if directory else []
    return "".join(text if text.endswith("\n") else f"{text}\n" for text in (*texts, lines) if text)


def _files(path: Path) -> Iterator[Path]:
    """`path`, or the files below it in the order that Portage reads them in: hidden ones and copies left out."""
    if path.is_file():
        yield path
    elif path.is_dir():
        for inner in sorted(path.iterdir()):
            if not inner.name.startswith(".") and not inner.name.endswith("~"):
                yield from _files(inner)


def profile(directory: Path | None) -> Path | None:
    """What make.profile links to, None without one. Raises InputError for a dangling link."""
    link = directory / "make.profile" if directory else None
    if link is None or not (link.exists() or link.is_symlink()):
        return None
    if not link.is_dir():
        raise InputError(f"{link} leads to no directory", "link it to a profile")
    return link.resolve()


def taken(directory: Path | None) -> Iterator[Path]:
    """The files and directories that are taken over as they are; a link stands for what it leads to."""
    for path in sorted(directory.iterdir()) if directory else ():
        if path.name not in _OURS:
            yield path


def lay(directory: Path | None, place: Path) -> None:
    """Copy what is taken over as it is into the directory `place`."""
    for path in taken(directory):
        if path.is_dir():
            shutil.copytree(path, place / path.name, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy(path, place / path.name)


def add(place: Path, lines: Iterable[str]) -> None:
    """Add `lines` to the end of the configuration file `place`, or of the directory of such files."""
    text = "".join(f"{line}\n" for line in lines)
    if not text:
        return
    file = place / "zz-cluster" if place.is_dir() else place
    with file.open("a") as stream:
        stream.write(f"\n{text}")
