"""A directory as one file."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import filetrees
import pytest
from hypothesis import given, settings

from cluster.host import archive

pytestmark = pytest.mark.slow


@settings(max_examples=12)
@given(tree=filetrees.trees)
def test_what_is_unpacked_is_what_was_packed(tree: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        source = filetrees.write(place / "source", tree)
        archive.pack(source, place / "archive")
        archive.unpack(place / "archive", place / "copy")
        assert filetrees.content(place / "copy") == filetrees.content(source)


@settings(max_examples=12)
@given(tree=filetrees.trees)
def test_what_is_left_out_is_what_copytree_ignores(tree: dict[str, Any]) -> None:
    names = ("news", *list(tree)[:1])
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        source = filetrees.write(place / "source", tree)
        archive.pack(source, place / "archive", names)
        archive.unpack(place / "archive", place / "copy")

        def ignore(directory: str, inside: list[str]) -> set[str]:
            return set(inside) & set(names)

        shutil.copytree(source, place / "wanted", symlinks=True, ignore=ignore)
        assert filetrees.content(place / "copy") == filetrees.content(place / "wanted")


def test_a_copy_gives_the_same_bytes_whatever_its_order_and_where_its_holes_are(tmp_path: Path) -> None:
    for name, order in (("a", "xyz"), ("b", "zyx")):
        for letter in order:
            filetrees.write(tmp_path / name, {letter: (letter.encode(), 0o644)})
        with (tmp_path / name / "disk").open("wb") as disk:
            disk.write(bytes(1 << 18 if name == "a" else 1 << 19))
            disk.truncate(1 << 20)
        for path in (*(tmp_path / name).iterdir(), tmp_path / name):
            os.utime(path, (1_700_000_000.25, 1_700_000_000.75 if name == "a" else 1_700_000_000.5))
        archive.pack(tmp_path / name, tmp_path / f"{name}.tar")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_a_sparse_file_stays_one(tmp_path: Path) -> None:
    (tmp_path / "stage").mkdir()
    with (tmp_path / "stage/disk").open("wb") as disk:
        disk.truncate(16 << 20)
        disk.seek(8 << 20)
        disk.write(b"something")
    archive.pack(tmp_path / "stage", tmp_path / "archive")
    archive.unpack(tmp_path / "archive", tmp_path / "copy")
    copy = tmp_path / "copy/disk"
    assert copy.read_bytes() == (tmp_path / "stage/disk").read_bytes()
    assert copy.stat().st_blocks * 512 < 1 << 20
    assert (tmp_path / "archive").stat().st_size < 100_000


@pytest.mark.parametrize("change", ["content", "mode", "name", "new", "gone"])
def test_every_change_is_another_state(tmp_path: Path, change: str) -> None:
    source = filetrees.write(tmp_path / "source", {"deep": {"file": (b"1", 0o644)}, "other": (b"2", 0o644)})
    before = archive.state(source)
    assert archive.state(source) == before
    file = source / "deep/file"
    if change == "content":
        os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    elif change == "mode":
        file.chmod(0o755)
    elif change == "name":
        file.rename(source / "deep/named")
    elif change == "new":
        (source / "deep/more").touch()
    else:
        file.unlink()
    assert archive.state(source) != before


def test_what_is_left_out_does_not_matter_to_the_state(tmp_path: Path) -> None:
    source = filetrees.write(tmp_path / "source", {"news": {"file": (b"1", 0o644)}, "other": (b"2", 0o644)})
    before = archive.state(source, ("news",))
    (source / "news/more").touch()
    assert archive.state(source, ("news",)) == before
