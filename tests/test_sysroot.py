"""Sealed roots: what of an unpacked stage is kept, how one is composed, and when compilers agree."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
from factories import host_root

from cluster.node import sandbox, sysroot
from cluster.node.toolchain import Toolchain

SAID = """\
ignoring nonexistent directory "/usr/include-fixed"
#include "..." search starts here:
#include <...> search starts here:
 /usr/lib/gcc/x/14/include
 /usr/include
End of search list.
"""


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    root = tmp_path / "unpacked"
    for name in ("usr/include/stdio.h", "usr/lib/x-linux/libc.so", "usr/lib/gcc/x/14/cc1", "usr/lib/gcc/x/14/crt.o"):
        write(root / name, name)
    for name in ("usr/bin/sed", "usr/lib/python3.13/os.py", "etc/passwd"):
        write(root / name)
    (root / "lib").symlink_to("usr/lib")
    return root


@pytest.fixture
def toolchain(tmp_path: Path) -> Toolchain:
    prefix = tmp_path / "toolchain"
    for name in ("gcc-14", "g++-14", "as", "ld", "ld.bfd"):
        write(prefix / f"usr/bin/x-{name}", name)
    write(prefix / "usr/libexec/gcc-cross/x/14/cc1", "cross cc1")
    (prefix / "usr/lib/gcc-cross/x/14").mkdir(parents=True)
    write(prefix / "usr/lib/y-linux-gnu/libc.so.6.1", "host libc")
    (prefix / "usr/lib/y-linux-gnu/libc.so.6").symlink_to("libc.so.6.1")
    write(prefix / "usr/lib64/ld-y.so.2", "loader")
    write(prefix / "usr/bin/distccd")
    return Toolchain(prefix, "x")


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


def test_what_compilers_read_is_kept(unpacked: Path, tmp_path: Path) -> None:
    sysroot.keep(unpacked, tmp_path / "kept")
    assert files(tmp_path / "kept") == {"usr/include/stdio.h", "usr/lib/x-linux/libc.so", "usr/lib/gcc/x/14/crt.o"}
    assert (tmp_path / "kept/lib").readlink() == Path("usr/lib")


def test_what_compilers_read_is_kept_of_a_packed_root(unpacked: Path, tmp_path: Path) -> None:
    for name in ("usr/share/x/etc/include.h", "usr/lib/x-linux/usr/share/x.h", "var/lib/x"):
        write(unpacked / name)
    subprocess.run(["tar", "-C", unpacked, "-cf", tmp_path / "root.tar", "."], check=True)
    sysroot.extract(tmp_path / "root.tar", tmp_path / "packed")
    sysroot.keep(unpacked, tmp_path / "kept")
    assert files(tmp_path / "packed") == files(tmp_path / "kept")
    assert "usr/lib/x-linux/usr/share/x.h" in files(tmp_path / "packed")
    assert (tmp_path / "packed/lib").readlink() == Path("usr/lib")
    assert not list(tmp_path.glob(".root-*"))


def compose(
    monkeypatch: pytest.MonkeyPatch, unpacked: Path, toolchain: Toolchain, tmp_path: Path, **files: str
) -> sysroot.Root:
    monkeypatch.setattr(sysroot, "search", lambda sandbox: ({"c": (PurePosixPath("/usr/include"),)}, ()))
    if not (tmp_path / "kept").exists():
        sysroot.keep(unpacked, tmp_path / "kept")

    def unpack(directory: Path) -> None:
        for name, text in files.items():
            write(directory / name, text)

    name = "-".join(files) and "some"
    return sysroot.compose(tmp_path / "kept", "stage", toolchain, unpack if files else None, name, tmp_path / "cache")


def test_a_root_has_stage_prerequisites_and_compiler(
    monkeypatch: pytest.MonkeyPatch, unpacked: Path, toolchain: Toolchain, tmp_path: Path
) -> None:
    root = compose(
        monkeypatch, unpacked, toolchain, tmp_path, **{"usr/include/stdio.h": "newer", "usr/include/z.h": ""}
    )
    place = root.sandbox.host_path(PurePosixPath("/"))
    assert place is not None
    assert (place / "usr/include/stdio.h").read_text() == "newer"
    assert (tmp_path / "kept/usr/include/stdio.h").read_text() == "usr/include/stdio.h"
    assert root.added == {"/usr/include/stdio.h", "/usr/include/z.h"}
    for name, text in {
        "usr/bin/gcc": "gcc-14",
        "usr/bin/x-g++-14": "g++-14",
        "usr/x/bin/ld": "ld",
        "usr/lib/gcc/x/14/cc1": "cross cc1",
        "usr/lib/gcc/x/14/crt.o": "usr/lib/gcc/x/14/crt.o",
        "usr/lib/y-linux-gnu/libc.so.6": "host libc",
        "lib64/ld-y.so.2": "loader",
    }.items():
        assert (place / name).read_text() == text, name


def test_a_native_compiler_runs_with_the_libraries_of_the_node_and_looks_where_it_looks(
    monkeypatch: pytest.MonkeyPatch, unpacked: Path, toolchain: Toolchain, tmp_path: Path
) -> None:
    for place in ("usr/lib", "usr/libexec"):
        (toolchain.prefix / place / "gcc-cross").rename(toolchain.prefix / place / "gcc")
    write(unpacked / "usr/lib/y-linux-gnu/libz.so.1", "the stage's")
    write(toolchain.prefix / "usr/lib/y-linux-gnu/libz.so.1", "the toolchain's")
    prerequisite = {"usr/lib/y-linux-gnu/libc.so.6": "a prerequisite's"}
    root = compose(monkeypatch, unpacked, toolchain, tmp_path, **prerequisite)
    assert set(root.sandbox.environment) == {"PATH", "TMPDIR"}
    for name, text in {
        "usr/libexec/gcc/x/14/cc1": "cross cc1",
        "usr/lib/y-linux-gnu/libz.so.1": "the stage's",
        "usr/lib/y-linux-gnu/libc.so.6": "a prerequisite's",
        "usr/lib/y-linux-gnu/libc.so.6.1": "host libc",
    }.items():
        assert (root.directory / name).read_text() == text, name


def test_a_root_is_made_once_for_each_set(
    monkeypatch: pytest.MonkeyPatch, unpacked: Path, toolchain: Toolchain, tmp_path: Path
) -> None:
    bare, again = (compose(monkeypatch, unpacked, toolchain, tmp_path) for _ in range(2))
    other = compose(monkeypatch, unpacked, toolchain, tmp_path, **{"usr/include/z.h": ""})
    assert bare == again
    assert (bare.added, bare.stage) == (frozenset(), other.stage)
    assert len(list((tmp_path / "cache/sysroots").iterdir())) == 3  # two roots and the lock


def test_the_search_list_of_gcc() -> None:
    assert sysroot.search_list(SAID) == (PurePosixPath("/usr/lib/gcc/x/14/include"), PurePosixPath("/usr/include"))
    assert sysroot.search_list("gcc: error\n") == ()


@pytest.mark.skipif(not (shutil.which("g++") and sandbox.works()), reason="needs g++ and bwrap")
@pytest.mark.parametrize(
    ("name", "before", "after", "said"),
    [
        ("search-c", "", "", ""),
        ("search-c", "gcc version ", "gcc version 1", "theirs is 1"),
        ("macros-c", "#define __VERSION__ ", "#define __VERSION__ x", "macros for c are not the same"),
        ("macros-c++", "#define __linux__ 1", "", "macros for c++ are not the same"),
        ("search-c", " /usr/include\n", "", "do not look for c headers"),
    ],
)
def test_a_compiler_that_differs_is_not_taken(tmp_path: Path, name: str, before: str, after: str, said: str) -> None:
    root = host_root()
    for language, driver in (("c", "gcc"), ("c++", "g++")):
        told = sysroot.ask(root.sandbox, driver, ["-v", "-E", "-x", language, "/dev/null"])
        (tmp_path / f"search-{language}").write_bytes(told.stderr)
        told = sysroot.ask(root.sandbox, driver, ["-dM", "-E", "-x", language, "/dev/null"])
        (tmp_path / f"macros-{language}").write_bytes(told.stdout)
    text = (tmp_path / name).read_text()
    (tmp_path / name).write_text(text.replace(before, after))
    difference = sysroot.disagreement(root, tmp_path)
    assert said in difference
    assert bool(difference) == bool(said)


def test_a_compiler_has_one_signature_and_another_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    root = host_root()
    mine = sysroot.signature(root)
    assert mine == sysroot.signature(root)
    ask = sysroot.ask
    monkeypatch.setattr(sysroot, "ask", lambda box, driver, words: ask(box, driver, [*words, "-DNEW"]))
    assert sysroot.signature(root) != mine


def test_a_file_of_no_bind_is_in_no_sandbox(tmp_path: Path) -> None:
    box = replace(host_root().sandbox, binds=((tmp_path, PurePosixPath("/usr")),))
    assert box.host_path(PurePosixPath("/usr/include/x.h")) == tmp_path / "include/x.h"
    assert box.host_path(PurePosixPath("/etc/passwd")) is None
    assert box.host_path(PurePosixPath("/usrlocal")) is None


def test_every_file_is_in_a_sandbox_with_one_root(tmp_path: Path) -> None:
    box = replace(host_root().sandbox, binds=((tmp_path, PurePosixPath("/")),))
    assert box.host_path(PurePosixPath("/")) == tmp_path
    assert box.host_path(PurePosixPath("/usr/bin")) == tmp_path / "usr/bin"
