"""What a chroot of a real stage builds, beside what a QEMU node does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.master.gpkg import opened

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

_ATOM = "app-arch/lzip"
_DEADLINE_S = 1500


def built(place: Path, driver: str) -> tuple[dict[str, tuple[int, str]], dict[str, object]]:
    """Mode and link of each file of the package that `driver` builds, by path, and what is said of its compiles."""
    words = ["build", _ATOM, "--driver", driver, "--nodes", "1", "--emptytree", "--json"]
    words += ["--state", str(place / driver), "--binhost", str(place / f"{driver}-binhost")]
    argv = [sys.executable, "-m", "cluster", *words]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=_DEADLINE_S, check=False)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    (binpkg,) = (place / f"{driver}-binhost").rglob("*.gpkg.tar")
    with opened(binpkg) as package:
        files = {member.name: (member.mode, member.linkname) for member in package.image.getmembers()}
    return files, json.loads(ended.stdout)["compiles"]


def test_a_chroot_builds_what_a_node_builds_and_compiles_on_the_host(tmp_path: Path) -> None:
    of_chroot, compiles = built(tmp_path, "chroot")
    of_node, _ = built(tmp_path, "qemu")
    assert of_chroot == of_node
    assert compiles["host"]
    assert not compiles["local"]
