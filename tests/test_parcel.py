"""What a host is given is what the master has."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import filetrees
import hypothesis.strategies as st
import pytest
from factories import package
from hypothesis import given
from hypothesis import settings as trying
from repos import write_repository

from cluster.host.blobs import Client, serving
from cluster.host.parcel import Parcel, pack, unpack
from cluster.host.shelf import Shelf
from cluster.host.store import Blob, Store
from cluster.host.tls import Authority
from cluster.host.work import Work
from cluster.model import Cpv, Distfile
from cluster.node.build import Limits
from cluster.node.job import Materials, Settings, fill
from cluster.subset import Subset, Universe

pytestmark = pytest.mark.slow

LIB, FOO = Cpv("dev-libs/lib-1.2"), Cpv("app-misc/foo-1.0")


class Near:
    """A client that reads from the shelf itself."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def download(self, source: str, blob: Blob, part: Path) -> None:
        found = self._shelf.find(blob.sha256)
        assert found is not None
        part.write_bytes(found.read_bytes())

    def best(self, sources: Sequence[str]) -> Sequence[str]:
        return sources


def work(place: Path) -> Work:
    """FOO, which needs LIB, with all that the master has for it below `place`."""
    base = write_repository(place / "base", {LIB: {}, "app-misc/foo-0.5": {}}, name="base")
    files = {"app-misc/foo/files/fix.patch": "+++ b\n", "eclass/x.eclass": "# x\n", "metadata/news/2020.txt": "old\n"}
    own = write_repository(place / "own", {FOO: {}, "app-misc/bar-2": {}}, files=files)
    for name, text in {"distfiles/foo.tar": "sources", "distfiles/bar.tar": "others", "binhost/lib-1": "lib"}.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(text)
    return Work(
        package=package(
            FOO,
            LIB,
            ebuild=own.location / "app-misc/foo/foo-1.0.ebuild",
            distfiles=(Distfile("foo.tar", 7, (), ()),),
            metadata="EAPI=8\n",
        ),
        settings=Settings("aarch64-linux-gnu", own.location / "profiles/arm64", (base, own), jobs=3),
        limits=Limits(10, 5),
        distfiles=place / "distfiles",
        binpkgs={LIB: place / "binhost/lib-1"},
        index="PACKAGES: 1\n\nCPV: dev-libs/lib-1.2\n\n",
        attempt=2,
    )


def disk(work: Work, directory: Path) -> dict[str, Any]:
    """The content of the job's disk."""
    directory.mkdir()
    fill(directory, work.package, work.settings, Materials(work.distfiles, work.binpkgs, work.index))
    return filetrees.content(directory)


def brought(work: Work, place: Path) -> Work:
    """`work` on a host whose files are below `place`."""
    shelf = Shelf(place / "shelf")
    parcel: Parcel = pickle.loads(pickle.dumps(pack(work, shelf)))
    sources = dict.fromkeys(parcel.blobs, ("near",))
    (place / "work").mkdir()
    return unpack(parcel, Store(place / "store"), sources, Near(shelf), place / "work")


def test_a_host_fills_the_same_disk(tmp_path: Path) -> None:
    mine = work(tmp_path)
    theirs = brought(mine, tmp_path)
    assert disk(theirs, tmp_path / "theirs") == disk(mine, tmp_path / "mine")
    assert theirs.index == mine.index
    assert (theirs.limits, theirs.attempt, theirs.settings.jobs) == (mine.limits, 2, 3)


def test_nothing_of_a_work_is_elsewhere_than_where_it_was_unpacked(tmp_path: Path) -> None:
    theirs = brought(replace(work(tmp_path), index=""), tmp_path)
    assert str(tmp_path / "own") not in repr(theirs)
    assert {path.relative_to(tmp_path / "work").parts[0] for path in (theirs.distfiles, *theirs.binpkgs.values())} == {
        "distfiles",
        "binpkgs",
    }
    assert sorted(path.name for path in theirs.distfiles.iterdir()) == ["foo.tar"]
    assert not list((tmp_path / "work").rglob("md5-cache"))
    assert not list((tmp_path / "work").rglob("bar*"))


@trying(max_examples=8)
@given(trees=st.lists(filetrees.trees, min_size=4, max_size=4), outside=st.booleans())
def test_whatever_is_in_the_directories_arrives(trees: list[dict[str, Any]], outside: bool) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        mine = work(place)
        spots = ("base/profiles/more", "own/app-misc/foo/more", "user/patches", "elsewhere/more")
        for spot, tree in zip(spots, trees, strict=True):
            filetrees.write(place / spot, tree)
        (place / "user/bashrc").write_text("# mine\n")
        (place / "user/env").symlink_to(place / "elsewhere")
        (place / "user/package.mask").symlink_to(place / "user/bashrc")
        profile = place / "elsewhere/profile" if outside else mine.settings.profile
        profile.mkdir(exist_ok=True)
        settings = replace(mine.settings, user=place / "user", profile=profile, skip_idle_phases=True)
        mine = replace(mine, settings=settings)
        theirs = brought(mine, place)
        assert disk(theirs, place / "theirs") == disk(mine, place / "mine")


def test_what_keeps_a_users_secrets_stays_with_the_master(tmp_path: Path) -> None:
    mine = work(tmp_path)
    filetrees.write(tmp_path / "user", {"binrepos.conf": (b"sync-uri = https://user:secret@host", 0o600)})
    mine = replace(mine, settings=replace(mine.settings, user=tmp_path / "user"))
    theirs = brought(mine, tmp_path)
    assert theirs.settings.user is not None
    assert list(theirs.settings.user.iterdir()) == []
    assert disk(theirs, tmp_path / "theirs") == disk(mine, tmp_path / "mine")


def test_a_parcel_is_small_and_has_nothing_of_the_plan(tmp_path: Path) -> None:
    names = [Cpv(f"dev-libs/lib-{number}") for number in range(20)]
    plan = Universe([*names, *(f"c/other-{number}" for number in range(20_000))])
    mine = work(tmp_path)
    wide = replace(mine.package, requires=Subset(plan, plan.bits(names)), origin=tmp_path)
    files = dict.fromkeys(names, tmp_path / "binhost/lib-1")
    index = "".join(f"CPV: {name}\nDEPEND: {name} {'x ' * 2000}\n\n" for name in names)
    parcel = pack(replace(mine, package=wide, binpkgs=files, index=index), Shelf(tmp_path / "shelf"))
    assert len(pickle.dumps(parcel)) < 20_000
    assert pickle.loads(pickle.dumps(parcel)) == parcel


def test_what_two_works_share_is_fetched_once_over_https(tmp_path: Path) -> None:
    mine, shelf, store = work(tmp_path), Shelf(tmp_path / "shelf"), Store(tmp_path / "store")
    parcel = pack(mine, shelf)
    identity, asked = Authority(tmp_path / "authority").issue("host"), []

    def find(sha256: str) -> Path | None:
        asked.append(sha256)
        return shelf.find(sha256)

    with serving(find, identity) as server, Client(identity) as client:
        sources = dict.fromkeys(parcel.blobs, (server.url,))
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
            theirs = unpack(parcel, store, sources, client, tmp_path / name)
            assert disk(theirs, tmp_path / f"{name}-disk") == disk(mine, tmp_path / f"{name}-mine")
    assert sorted(asked) == sorted(blob.sha256 for blob in parcel.blobs)


def test_what_was_unpacked_outlasts_the_store(tmp_path: Path) -> None:
    mine = work(tmp_path)
    theirs = brought(mine, tmp_path)
    for path in sorted((tmp_path / "store").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    assert disk(theirs, tmp_path / "theirs") == disk(mine, tmp_path / "mine")


def test_a_prerequisite_that_the_master_lacks_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        pack(replace(work(tmp_path), binpkgs={}), Shelf(tmp_path / "shelf"))
