"""What a host is given to build one package, as it goes over the wire: a small value, and blobs that it names.

Laid out on the host it is what `cluster.node.job.fill` reads, and no more:

repos/NAME/     what every job has of a repository, and the package's own ebuild directory
profiles/       the profile's directory with its siblings, unless a repository holds it
user/           the user's own directory like /etc/portage
distfiles/      the package's sources
binpkgs/        its prerequisites
"""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cluster import userconfig
from cluster.host.shelf import Shelf
from cluster.host.store import Blob, Client, Store
from cluster.host.work import Work
from cluster.model import Package, Repository
from cluster.node import job


@dataclass(frozen=True, slots=True)
class Parcel:
    """A Work whose files come as blobs; to be pickled."""

    work: Work
    """Its paths are relative to the directory where it is unpacked; its index is in `index`."""
    index: bytes
    """Packed by zlib: without that it is the greater part."""
    files: Mapping[str, Blob]
    """What lies at these paths."""
    trees: Mapping[str, Blob]
    """The archives of the directories there."""

    @property
    def blobs(self) -> frozenset[Blob]:
        """All that a host needs for it."""
        return frozenset((*self.files.values(), *self.trees.values()))


def pack(work: Work, shelf: Shelf) -> Parcel:
    """The parcel of `work`, whose files `shelf` then offers."""
    files = {place: shelf.file(path) for place, path in _files(work)}
    trees = {place: shelf.tree(path, job.LEFT_OUT if shared else ()) for place, path, shared in _trees(work)}
    return Parcel(_relative(work), zlib.compress(work.index.encode()), files, trees)


def unpack(
    parcel: Parcel, store: Store, sources: Mapping[Blob, Sequence[str]], client: Client, directory: Path
) -> Work:
    """Lay out `parcel` in the empty `directory`; what `store` lacks comes from its `sources` (URLs) by `client`.

    Nothing is to be written there but new files: the rest may be the store's own. Raises NodeLost where something
    cannot be had.
    """
    for place, blob in parcel.trees.items():
        tree = store.tree(blob, sources.get(blob, ()), client)
        shutil.copytree(tree, directory / place, symlinks=True, copy_function=_link, dirs_exist_ok=True)
    for place, blob in parcel.files.items():
        file = store.fetch(blob, sources.get(blob, ()), client)
        (directory / place).parent.mkdir(parents=True, exist_ok=True)
        _link(file, directory / place)
    work = _under(directory, replace(parcel.work, index=zlib.decompress(parcel.index).decode()))
    work.distfiles.mkdir(exist_ok=True)  # though there be none
    if work.settings.user is not None:
        work.settings.user.mkdir(exist_ok=True)
    return work


def _files(work: Work) -> Iterator[tuple[str, Path]]:
    for distfile in work.package.distfiles:
        yield f"distfiles/{distfile.name}", work.distfiles / distfile.name
    for cpv in work.package.requires:
        yield _binpkg(cpv), work.binpkgs[cpv]
    yield from ((f"user/{path.name}", path) for path in _own(work) if not path.is_dir())


def _trees(work: Work) -> Iterator[tuple[str, Path, bool]]:
    """Where a directory is to be, where it is, and whether it is one of those that all jobs have of a repository."""
    for repository in work.settings.repositories:
        for name in job.SHARED:
            if (repository.location / name).is_dir():
                yield f"repos/{repository.name}/{name}", repository.location / name, True
        if repository.name == work.package.repository:
            yield str(_ebuild(work.package).parent), work.package.ebuild.parent, False
    if _holder(work) is None:
        yield "profiles", work.settings.profile.parent, False
    yield from ((f"user/{path.name}", path, False) for path in _own(work) if path.is_dir())


def _own(work: Work) -> Iterator[Path]:
    """What jobs take over of the user's directory; each by itself, as it may be a link to somewhere else."""
    return userconfig.taken(work.settings.user)


def _holder(work: Work) -> Repository | None:
    """The repository that has the profile."""
    profile = work.settings.profile
    return next((repo for repo in work.settings.repositories if profile.is_relative_to(repo.location)), None)


def _binpkg(cpv: str) -> str:
    return f"binpkgs/{cpv}.gpkg.tar"


def _ebuild(package: Package) -> Path:
    ebuild = package.ebuild
    return Path("repos", package.repository, package.category, ebuild.parent.name, ebuild.name)


def _relative(work: Work) -> Work:
    """`work` in the layout of a parcel."""
    settings, holder = work.settings, _holder(work)
    if holder is None:
        profile = Path("profiles", settings.profile.name)
    else:
        profile = Path("repos", holder.name, settings.profile.relative_to(holder.location))
    return replace(
        work,
        # A plan's sets share all that there is of the plan; a host has no use for that, nor for other binhosts.
        package=replace(work.package, ebuild=_ebuild(work.package), requires=tuple(work.package.requires), origin=None),
        settings=replace(
            settings,
            profile=profile,
            repositories=tuple(replace(repo, location=Path("repos", repo.name)) for repo in settings.repositories),
            user=settings.user and Path("user"),
        ),
        distfiles=Path("distfiles"),
        binpkgs={cpv: Path(_binpkg(cpv)) for cpv in work.package.requires},
        index="",
    )


def _under(directory: Path, work: Work) -> Work:
    """`work` with its relative paths below `directory`."""
    settings = work.settings
    return replace(
        work,
        package=replace(work.package, ebuild=directory / work.package.ebuild),
        settings=replace(
            settings,
            profile=directory / settings.profile,
            repositories=tuple(replace(repo, location=directory / repo.location) for repo in settings.repositories),
            user=settings.user and directory / settings.user,
        ),
        distfiles=directory / work.distfiles,
        binpkgs={cpv: directory / path for cpv, path in work.binpkgs.items()},
    )


def _link(source: str | Path, place: str | Path) -> None:
    """A hard link, which outlasts the store's own; a copy where file systems differ."""
    try:
        os.link(source, place, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, place, follow_symlinks=False)
