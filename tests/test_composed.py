"""Prerequisites composed on the host: as a directory, as an image, in the cache."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from binpkgs import BUILT, Item, directory, gpkg, hard_link, regular, symlink

from cluster.errors import MachineError
from cluster.master.gpkg import GpkgError
from cluster.model import Cpv
from cluster.node import composed, disk
from cluster.node.layout import Unfit, UnsafeArchive

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


def listed(image: Path) -> dict[str, tuple[str, str]]:
    """Mode and OWNER/GROUP of everything in a squashfs, by path; a link's with what it leads to."""
    argv = ["unsquashfs", "-lln", "-d", "", str(image)]
    lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    found = [re.fullmatch(r"(\S+) (\S+) .* \d\d:\d\d (.*)", line) for line in lines]
    return {match[3]: (match[1], match[2]) for match in found if match}


def text(image: Path, path: str) -> str:
    return subprocess.run(["unsquashfs", "-cat", str(image), path], capture_output=True, text=True, check=True).stdout


def test_image_has_files_owners_and_the_database(tmp_path: Path, zlib: Path) -> None:
    image = composed.image([zlib], (), tmp_path)
    found = listed(image)
    assert found["/usr/include"] == ("drwx------", "0/0")
    assert found["/usr/include/zlib.h"] == ("-rw-r--r--", "250/250")
    assert found["/usr/lib/libz.so.1"][0] == "-rwsr-xr-x"
    assert found["/usr/lib/absolute.so -> /usr/lib/libz.so.1"][0] == "lrwxrwxrwx"
    assert found["/other/etc/z.conf"] == ("-rw-r--r--", "0/0")
    assert found["/usr/bin/minigzip"][0] == "-rwxr-xr-x"
    assert text(image, "usr/lib/same") == "ELF z"
    lines = text(image, "installed/sys-libs/zlib-1/CONTENTS").splitlines()
    assert lines == sorted(lines, key=lambda line: line.split()[1])
    assert f"obj /usr/include/zlib.h {hashlib.md5(b'#define Z' + bytes([10])).hexdigest()} {BUILT}" in lines
    assert "dir /lib" in lines
    assert f"sym /lib/libz.so -> libz.so.1 {BUILT}" in lines


def test_image_numbers_packages_in_their_order_after_the_stages(tmp_path: Path, zlib: Path) -> None:
    png = gpkg(tmp_path / "png.gpkg.tar", "media-libs/png-1", [regular("opt/png")])
    image = composed.image([zlib, png], ("dev-lang/perl-5.36.0", "sys-devel/m4-1.4.19"), tmp_path)
    assert [text(image, f"installed/{cpv}/COUNTER") for cpv in ("sys-libs/zlib-1", "media-libs/png-1")] == ["3", "4"]


def test_image_replaces_the_stages_package_of_the_same_slot(tmp_path: Path) -> None:
    make = gpkg(tmp_path / "make.gpkg.tar", "dev-build/make-4.4", [])
    found = listed(composed.image([make], ("dev-build/make-4.3", "sys-devel/gcc-12.2.0:12"), tmp_path))
    assert found["/installed/dev-build/make-4.3"][0] == "c---------"
    assert "/installed/dev-build/make-4.4/PF" in found
    assert not [path for path in found if "gcc" in path]


def test_replaced_asks_for_name_and_slot() -> None:
    provides = ("dev-build/make-4.3", "sys-devel/gcc-12.2.0:12", "dev-lang/python-3.11.2:3.11/x", "sys-devel/m4-1.4.19")
    new = [("dev-build/make-4.4", "0/4"), ("sys-devel/gcc-13.1:13", "13"), ("dev-lang/python-3.11.9", "3.11")]
    packages = [(Cpv(cpv.partition(":")[0]), slot) for cpv, slot in [*new, ("sys-devel/m4-1.4.19", "0")]]
    assert composed.replaced(provides, packages) == ("dev-build/make-4.3", "dev-lang/python-3.11.2")


def test_image_is_as_large_as_the_disk_and_sparse(tmp_path: Path, zlib: Path) -> None:
    stat = composed.image([zlib], (), tmp_path).stat()
    assert stat.st_size == disk.DATA_BYTES
    assert stat.st_blocks * 512 < 1 << 20


def test_image_is_made_once(tmp_path: Path, zlib: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = composed.image([zlib], (), tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    assert composed.image([zlib], (), tmp_path) == image
    assert sorted(path.name for path in image.parent.iterdir()) == sorted([image.name, "lock"])


def test_what_a_killed_master_left_is_removed(tmp_path: Path, zlib: Path) -> None:
    (tmp_path / "prerequisites/.new-left").mkdir(parents=True)
    composed.image([zlib], (), tmp_path)
    assert not (tmp_path / "prerequisites/.new-left").exists()


def test_a_failure_leaves_nothing(tmp_path: Path, zlib: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, package: str) -> str:
        raise MachineError(f"program {name} is missing")

    monkeypatch.setattr(composed, "find_program", missing)
    with pytest.raises(MachineError, match="sqfstar"):
        composed.image([zlib], (), tmp_path)
    assert [path.name for path in (tmp_path / "prerequisites").iterdir()] == ["lock"]


def test_only_the_newest_images_are_kept(tmp_path: Path, zlib: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composed, "_KEPT", 2)
    first, second, third = (composed.image([zlib], provides, tmp_path) for provides in ((), ("a/a-1",), ("a/b-1",)))
    assert [path.exists() for path in (first, second, third)] == [False, True, True]
    os.utime(second, (0, 0))
    composed.image([zlib], ("a/a-1",), tmp_path)  # used again, it is new
    composed.image([zlib], ("a/c-1",), tmp_path)
    assert [path.exists() for path in (second, third)] == [True, False]


def test_key_is_of_content_order_and_stage(tmp_path: Path, zlib: Path) -> None:
    other = gpkg(tmp_path / "other.gpkg.tar", "sys-libs/zlib-1", ZLIB, KEYWORDS="arm64")
    same = shutil.copy(zlib, tmp_path / "same.gpkg.tar")
    assert composed.key([zlib]) == composed.key([same])
    keys = [composed.key(files) for files in ([], [zlib], [other], [zlib, other], [other, zlib], [zlib, zlib])]
    assert len({*keys, composed.key([zlib], ("a/a-1",))}) == 7


@pytest.mark.parametrize("phase", ["setup", "preinst", "postinst"])
def test_a_phase_that_runs_at_installation_is_for_emerge(tmp_path: Path, zlib: Path, phase: str) -> None:
    binpkg = gpkg(tmp_path / "lib.gpkg.tar", "app/lib-1", [], DEFINED_PHASES=f"compile install {phase}")
    with pytest.raises(Unfit, match=rf"app/lib-1 has pkg_{phase}"):
        composed.image([zlib, binpkg], (), tmp_path)
    composed.unpack([zlib, binpkg], tmp_path / "out")
    assert (tmp_path / "out/usr/include/zlib.h").exists()


def test_other_phases_ran_at_the_build(tmp_path: Path) -> None:
    phases = "configure compile install prepare pretend prerm postrm config info nofetch test unpack"
    binpkg = gpkg(tmp_path / "lib.gpkg.tar", "app/lib-1", [regular("usr/x")], DEFINED_PHASES=phases)
    assert "/usr/x" in listed(composed.image([binpkg], (), tmp_path))


def test_a_hard_link_keeps_its_content_when_its_file_is_replaced(tmp_path: Path) -> None:
    first = gpkg(tmp_path / "a.gpkg.tar", "a/a-1", [regular("usr/x", b"one"), hard_link("usr/y", "usr/x")])
    second = gpkg(tmp_path / "b.gpkg.tar", "a/b-1", [regular("usr/x", b"second")])
    image = composed.image([first, second], (), tmp_path)
    assert (text(image, "usr/x"), text(image, "usr/y")) == ("second", "one")
    assert "obj /usr/x f97c5d29941bfb1b2fdab0874906ab82" in text(image, "installed/a/a-1/CONTENTS")


def test_directories_of_the_root_are_not_those_of_the_image(tmp_path: Path) -> None:
    items = [directory("installed"), regular("installed/x"), directory("other"), regular("other/y")]
    found = listed(composed.image([gpkg(tmp_path / "a.gpkg.tar", "a/a-1", items)], (), tmp_path))
    assert {"/usr", "/installed/a/a-1/PF", "/other/installed/x", "/other/other/y"} <= found.keys()
    assert "/installed/x" not in found
