"""Disk images."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.errors import MachineError
from cluster.node import disk


def test_a_blank_disk_takes_no_space(tmp_path: Path) -> None:
    stat = disk.blank(tmp_path / "blank").stat()
    assert (stat.st_size, stat.st_blocks) == (disk.DATA_BYTES, 0)


def test_extending_keeps_what_is_there(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"hsqs")
    with disk.extend(image).open("rb") as stream:
        assert stream.read(5) == b"hsqs\0"
    assert image.stat().st_size == disk.DATA_BYTES


def test_what_is_larger_than_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "DATA_BYTES", 1 << 20)
    image = tmp_path / "image"
    image.write_bytes(bytes(2 << 20))
    with pytest.raises(MachineError, match="image has 2 MiB, a node's disk 1 MiB"):
        disk.extend(image)
    assert image.stat().st_size == 2 << 20
