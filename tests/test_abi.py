"""Libraries as ld.so sees them: real ones, made by the host's compiler."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from cluster.master import abi
from cluster.master.abi import Libraries, Link, Provider

Read = Callable[[Mapping[str, Path | bytes]], Libraries]

CODE = "int twice(int x) { return 2 * x; }\nint size = 4;\n"


@pytest.fixture
def shared(tmp_path: Path) -> Callable[..., Path]:
    """Makes a shared library of `code`: shared(code, soname, *options)."""

    def make(code: str, soname: str = "liba.so.1", *options: str) -> Path:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.so"
        command = [
            "gcc",
            "-shared",
            "-fPIC",
            "-x",
            "c",
            "-",
            "-o",
            path,
            f"-Wl,-soname,{soname}",
            "-x",
            "none",
            *options,
        ]
        subprocess.run(command, input=code, text=True, check=True, timeout=60)
        return path

    return make


def read(files: Mapping[str, Path | bytes]) -> Libraries:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as image:
        for name, content in files.items():
            data = content if isinstance(content, bytes) else content.read_bytes()
            member = tarfile.TarInfo(f"image/{name}")
            member.size = len(data)
            image.addfile(member, io.BytesIO(data))
    stream.seek(0)
    with tarfile.open(fileobj=stream) as image:
        return abi.read(image)


def digest_of(library: Path) -> str:
    ((_, digest),) = read({"usr/lib/liba.so.1.0": library}).provides
    return digest


def test_other_code_behind_the_same_symbols_is_the_same_library(shared: Callable[..., Path]) -> None:
    assert digest_of(shared(CODE)) == digest_of(shared(CODE.replace("2 * x", "x + x")))
    assert digest_of(shared(CODE)) == digest_of(
        shared("static int help(void) { return 1; }\n" + CODE, "liba.so.1", "-g")
    )


@pytest.mark.parametrize(
    "other",
    [
        CODE + "int thrice(int x) { return 3 * x; }\n",
        "int size = 4;\n",
        CODE.replace("int size = 4", "long size[4]"),
        '__attribute__((visibility("hidden"))) ' + CODE,
    ],
    ids=["one more", "one less", "data of another size", "one hidden"],
)
def test_other_symbols_are_another_library(shared: Callable[..., Path], other: str) -> None:
    assert digest_of(shared(CODE)) != digest_of(shared(other))


def test_symbol_versions_count(shared: Callable[..., Path], tmp_path: Path) -> None:
    digests = set()
    for name in ("A_1", "A_2"):
        script = tmp_path / f"{name}.map"
        script.write_text(f"{name} {{ global: *; }};\n")
        digests.add(digest_of(shared(CODE, "liba.so.1", f"-Wl,--version-script={script}")))
    assert len(digests) == 2


def test_what_a_package_needs_is_not_what_it_has_itself(shared: Callable[..., Path], tmp_path: Path) -> None:
    library = shared(CODE)
    user = shared(
        "int twice(int); int f(void) { return twice(1); }", "libb.so.2", "-Wl,--no-as-needed", str(library), "-lm"
    )
    both = read({"usr/lib/liba.so.1": library, "usr/lib/libb.so.2": user})
    assert [name for name, _ in both.provides] == ["liba.so.1", "libb.so.2"]
    assert both.needs == {"libm.so.6", "libc.so.6"}
    assert read({"usr/lib/libb.so.2": user}).needs == {"liba.so.1", "libm.so.6", "libc.so.6"}


def test_a_static_library_counts_by_its_content_where_it_is_alone(shared: Callable[..., Path]) -> None:
    alone = read({"usr/lib/libz.a": b"!<arch>\none"})
    assert [name for name, _ in alone.provides] == ["libz.a"]
    assert alone.provides != read({"usr/lib/libz.a": b"!<arch>\ntwo"}).provides
    beside = read({"usr/lib/liba.a": b"!<arch>\n", "usr/lib/liba.so.1": shared(CODE)})
    assert [name for name, _ in beside.provides] == ["liba.so.1"]


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"\x7fELF" + bytes(60), b"#!/bin/sh\n"])
def test_what_is_no_library_has_none(content: bytes) -> None:
    assert read({"usr/bin/x": content}) == Libraries((), frozenset())


def test_a_broken_library_stops_nothing(shared: Callable[..., Path]) -> None:
    whole = shared(CODE).read_bytes()
    for cut in range(4, len(whole), 997):
        read({"usr/lib/liba.so.1": whole[:cut]})


def test_links_name_the_prerequisite_that_had_the_library() -> None:
    libraries = Libraries((), frozenset({"liba.so.1", "libc.so.6"}))
    providers = [
        Provider("lib/a", "0/1", (("liba.so.1", "11"), ("libextra.so.1", "12")), direct=False),
        Provider("lib/s", "0/0", (("libs.a", "13"),), direct=True),
        Provider("lib/t", "0/0", (("libt.a", "14"),), direct=False),
    ]
    found = abi.links(libraries, providers)
    assert found == (Link("liba.so.1", "11", "lib/a", "0/1"), Link("libs.a", "13", "lib/s", "0/0"))
    assert abi.parse_links(abi.render_links(found)) == found
    assert abi.parse_links("nonsense a=b c=d@e") == ()


def test_provides_are_read_back() -> None:
    provides = (("liba.so.1", "11"), ("libstdc++.so.6", "12"))
    assert abi.parse_provides(abi.render_provides(provides)) == provides
