"""Disk images, made from directories without root."""

from __future__ import annotations

import shutil
from pathlib import Path

from cluster.node.emulator import Emulator
from cluster.process import find_program, run

_DEADLINE_S = 600.0
_SLACK_MIB = 64


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


def overlay(emulator: Emulator, base: Path, path: Path) -> Path:
    """A new qcow2 at `path` that takes what is written over `base`; returns `path`."""
    argv: list[str | Path] = [emulator.img, "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, path]
    run(argv, deadline_s=_DEADLINE_S, env=emulator.environment)
    return path


def expand(emulator: Emulator, image: Path, raw: Path) -> None:
    """Convert any image to a sparse raw one."""
    argv: list[str | Path] = [emulator.img, "convert", "-O", "raw", image, raw]
    run(argv, deadline_s=_DEADLINE_S, env=emulator.environment)


def compact(emulator: Emulator, raw: Path, path: Path) -> None:
    """Convert a raw image to a qcow2 that holds only what is used."""
    argv: list[str | Path] = [emulator.img, "convert", "-f", "raw", "-O", "qcow2", raw, path]
    run(argv, deadline_s=_DEADLINE_S, env=emulator.environment)
