"""Disk images, made from directories without root."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from cluster.errors import MachineError
from cluster.node.emulator import Emulator
from cluster.process import find_program, run

_DEADLINE_S = 600.0
_SLACK_MIB = 64

DATA_BYTES = 16 << 30
"""What a node's disk of prerequisites has room for, whatever is on it; sparse."""


def make_ext4(directory: Path, image: Path, size_mib: int) -> None:
    """Write `directory` as a sparse ext4 file system without journal; ownership as stat sees it."""
    # A node is thrown away, never repaired: a journal and reserved blocks would only cost time.
    options = ["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-E", "lazy_itable_init=1", "-m", "0"]
    argv: list[str | Path] = [find_program("mke2fs", "e2fsprogs"), *options, "-d", directory, image, f"{size_mib}M"]
    run(argv, deadline_s=_DEADLINE_S)


def from_directory(directory: Path, *, room_mib: int) -> Path:
    """Turn `directory` into an image beside it with `room_mib` MiB to spare; returns the image."""
    used = sum(path.stat().st_size + 4096 for path in directory.rglob("*") if not path.is_symlink())
    image = directory.with_name(directory.name + ".ext4")
    make_ext4(directory, image, (used * 5 // 4 >> 20) + _SLACK_MIB + room_mib)
    shutil.rmtree(directory)
    return image


def extend(image: Path) -> Path:
    """Make the raw `image` as large as a node's disk of it, with a hole at its end; returns `image`."""
    size = image.stat().st_size
    if size > DATA_BYTES:
        raise MachineError(f"{image.name} has {size >> 20} MiB, a node's disk {DATA_BYTES >> 20} MiB")
    os.truncate(image, DATA_BYTES)
    return image


def blank(path: Path) -> Path:
    """A new disk at `path` with nothing on it; returns `path`."""
    path.touch()
    return extend(path)


def overlay(emulator: Emulator, base: Path, path: Path) -> Path:
    """A new qcow2 at `path` that takes what is written over `base`; returns `path`."""
    argv: list[str | Path] = [*emulator.img, "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, path]
    run(argv, deadline_s=_DEADLINE_S, env=emulator.environment)
    return path


def read_file(image: Path, path: str) -> bytes:
    """The file `path` of the ext4 file system in the raw `image`."""
    with tempfile.TemporaryDirectory(prefix="portage-cluster-") as scratch:
        place = Path(scratch) / "file"
        run([find_program("debugfs", "e2fsprogs"), "-R", f"dump {path} {place}", image], deadline_s=_DEADLINE_S)
        if not place.exists():
            raise MachineError(f"{image.name} has no {path}", "its file system is not what it should be")
        return place.read_bytes()


def expand(emulator: Emulator, image: Path, raw: Path) -> None:
    """Convert any image to a sparse raw one."""
    argv: list[str | Path] = [*emulator.img, "convert", "-O", "raw", image, raw]
    run(argv, deadline_s=_DEADLINE_S, env=emulator.environment)


def compact(emulator: Emulator, raw: Path, path: Path) -> None:
    """Convert a raw image to a qcow2 that holds only what is used."""
    argv: list[str | Path] = [*emulator.img, "convert", "-f", "raw", "-O", "qcow2", raw, path]
    run(argv, deadline_s=_DEADLINE_S, env=emulator.environment)
