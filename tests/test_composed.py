"""Prerequisites composed on the host: as a directory, as an image, in the cache."""

from __future__ import annotations

from pathlib import Path

import pytest
from binpkgs import BUILT, Item, directory, gpkg, hard_link, regular, symlink

from cluster.master.gpkg import GpkgError
from cluster.node import composed
from cluster.node.layout import UnsafeArchive

ZLIB = [
    directory("usr"),
    directory("usr/include", 0o700),
    regular("usr/include/zlib.h", b"#define Z\n", uid=250, gid=250),
    directory("usr/bin"),
    regular("usr/bin/minigzip", b"ELF", 0o755),
    directory("lib"),
    symlink("lib/libz.so", "libz.so.1"),
    symlink("lib/absolute.so", "/usr/lib/libz.so.1"),
    regular("lib/libz.so.1", b"ELF z", 0o4755),
    hard_link("lib/same", "lib/libz.so.1"),
    directory("etc"),
    regular("etc/z.conf", b"z\n"),
]


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir() or path.is_symlink()}


@pytest.fixture
def zlib(tmp_path: Path) -> Path:
    return gpkg(tmp_path / "zlib.gpkg.tar", "sys-libs/zlib-1", ZLIB)


def test_unpack_gives_what_a_compiler_reads(tmp_path: Path, zlib: Path) -> None:
    png = gpkg(tmp_path / "png.gpkg.tar", "media-libs/png-1", [regular("usr/lib64/libpng.so", b"ELF png")])
    out = tmp_path / "new" / "out"
    composed.unpack([zlib, png], out)
    libraries = {"usr/lib/libz.so", "usr/lib/libz.so.1", "usr/lib/absolute.so", "usr/lib/same", "usr/lib64/libpng.so"}
    assert files(out) == {"usr/include/zlib.h", *libraries}
    assert (out / "usr/lib/same").read_bytes() == (out / "usr/lib/libz.so").read_bytes() == b"ELF z"
    assert (out / "usr/lib/absolute.so").readlink() == Path("/usr/lib/libz.so.1")
    header = (out / "usr/include/zlib.h").stat()
    assert (header.st_mtime, header.st_mode & 0o777) == (BUILT, 0o644)
    assert (out / "usr/lib/libz.so.1").stat().st_mode & 0o7777 == 0o755


def test_unpack_of_nothing_is_an_empty_directory(tmp_path: Path) -> None:
    composed.unpack([], tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_unpack_takes_only_a_new_directory(tmp_path: Path, zlib: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError):
        composed.unpack([zlib], tmp_path / "out")


@pytest.mark.parametrize(
    "items",
    [
        [symlink("usr/lib", "{outside}"), regular("usr/lib/evil")],
        [symlink("usr", "{outside}"), regular("usr/include/evil")],
        [directory("usr"), symlink("usr/include", "../../outside"), regular("usr/include/evil")],
        [directory("usr"), symlink("usr/evil", "{outside}/evil"), hard_link("usr/also", "usr/evil")],
        [regular("usr/lib/../../../outside/evil")],
        [regular("{outside}/evil")],
        [directory("usr"), hard_link("usr/secret", "../outside/secret")],
    ],
)
def test_unpack_never_leaves_its_directory(tmp_path: Path, items: list[Item]) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    for member, _ in items:
        member.name = member.name.replace("image/{outside}", str(outside)).format(outside=outside)
        member.linkname = member.linkname.format(outside=outside)
    binpkg = gpkg(tmp_path / "evil.gpkg.tar", "app/evil-1", items)
    try:
        composed.unpack([binpkg], tmp_path / "out")
    except UnsafeArchive:
        assert not (tmp_path / "out").exists()
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.read_text() == "secret"]


def test_a_damaged_binpkg_is_named(tmp_path: Path, zlib: Path) -> None:
    whole = bytearray(zlib.read_bytes())
    whole[whole.index(b"image.tar.gz") + 1024] ^= 1
    zlib.write_bytes(whole)
    with pytest.raises(GpkgError, match=r"zlib\.gpkg\.tar"):
        composed.unpack([zlib], tmp_path / "out")
