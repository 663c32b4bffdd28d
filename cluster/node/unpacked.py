"""Stages as directories: what roots on this machine's own kernel, or on another's, are made of.

roots/STAGE/    the stage's root disk, unpacked; everything belongs to who unpacked it, unless that was root
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from cluster import paths
from cluster.node import disk
from cluster.node.emulator import Emulator
from cluster.node.stage import Stage
from cluster.process import find_program, run

_UNPACK_S = 600.0
_NEED_MIB = 10000  # the whole disk, for a moment, and what is on it


def ensure(stage: Stage, emulator: Emulator, cache: Path) -> Path:
    """The root of `stage` as a directory, unpacked if `cache` has none. `paths.used` keeps it there.

    Roots of stages that are gone are removed.
    """
    stage = stage.base  # which kernel its nodes boot is nothing to a directory
    roots = cache / "roots"
    tree = roots / stage.directory.name
    with paths.locked(roots / "lock"):
        if not tree.exists():
            _remove_others(roots, cache / "stages")
            paths.require_space(roots, _NEED_MIB, "unpacking the stage")
            with tempfile.TemporaryDirectory(prefix=".new-", dir=roots) as scratch:
                _unpack(stage, emulator, Path(scratch)).rename(tree)
    return tree


def _remove_others(roots: Path, stages: Path) -> None:
    """Remove what has no stage, half a root of a run that was killed among it."""
    for tree in roots.iterdir():
        if tree.is_dir() and not (stages / tree.name).is_dir():
            paths.discard(tree)


def _unpack(stage: Stage, emulator: Emulator, scratch: Path) -> Path:
    image, tree = scratch / "disk.raw", scratch / "root"
    disk.expand(emulator, stage.disk, image)
    tree.mkdir()
    run([find_program("debugfs", "e2fsprogs"), "-R", f"rdump / {tree}", image], deadline_s=_UNPACK_S)
    return tree
