"""What a chroot of a real stage builds, beside what a QEMU node does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import target
from cluster.master.gpkg import opened

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

_DEADLINE_S = 1500


def built(place: Path, driver: str, atom: str, name: str) -> tuple[dict[str, tuple[int, str]], dict[str, object]]:
    """Mode and link of each file of `atom` that `driver` builds for the target called `name`, and how it compiled."""
    words = ["build", atom, "--target", name, "--driver", driver, "--nodes", "1", "--emptytree", "--json"]
    words += ["--state", str(place / driver), "--binhost", str(place / f"{driver}-binhost")]
    argv = [sys.executable, "-m", "cluster", *words]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=_DEADLINE_S, check=False)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    (binpkg,) = (place / f"{driver}-binhost").rglob("*.gpkg.tar")
    with opened(binpkg) as package:
        files = {member.name: (member.mode, member.linkname) for member in package.image.getmembers()}
    return files, json.loads(ended.stdout)["compiles"]


def test_a_chroot_builds_what_a_node_builds_and_compiles_on_the_host(tmp_path: Path) -> None:
    of_chroot, compiles = built(tmp_path, "chroot", "app-arch/lzip", "arm64")
    of_node, _ = built(tmp_path, "qemu", "app-arch/lzip", "arm64")
    assert of_chroot == of_node
    assert compiles["host"]
    assert not compiles["local"]


@pytest.mark.skipif(not target.load("amd64").runs_on(), reason="needs a machine that runs amd64's programs")
def test_a_host_of_the_targets_architecture_builds_for_it_without_emulation(tmp_path: Path) -> None:
    files, compiles = built(tmp_path, "chroot", "app-arch/lzlib", "amd64")
    assert "image/usr/lib/x86_64-linux-gnu/liblz.so.1.15" in files
    assert compiles["host"]
    assert not compiles["local"]
