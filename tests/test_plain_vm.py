"""What nodes are helped with changes nothing: binary packages of `--plain` builds are the same ones."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.master.gpkg import opened

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3000)]

_DEADLINE_S = 2800
PACKAGES = ("sys-libs/zlib", "app-arch/lzlib", "app-arch/plzip")
"""A configure that compiles, libraries of both sorts, C++, one built in another: few, as a plain compile takes long."""
# When and in which order, and the phases' saved variables, among which are times.
_OF_THE_MOMENT = {"BUILD_TIME", "BUILD_ID", "COUNTER", "environment.bz2", "SIZE"}


def _build(place: Path, *words: str) -> dict[str, Any]:
    argv = [sys.executable, "-m", "cluster", "build", *PACKAGES, "--json", *words]
    argv += ["--state", str(place / "state"), "--binhost", str(place / "binhost")]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=_DEADLINE_S, check=False)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def _content(binpkg: Path) -> tuple[dict[str, tuple[object, ...]], dict[str, bytes]]:
    """Its files by path, with type, mode, owner, target of a link and digest; and its metadata."""
    files: dict[str, tuple[object, ...]] = {}
    with opened(binpkg) as package:
        for member in package.image.getmembers():
            stream = package.image.extractfile(member) if member.isreg() else None
            digest = hashlib.sha256(stream.read()).hexdigest() if stream else ""
            files[member.name] = (member.type, member.mode, member.uname, member.gname, member.linkname, digest)
        metadata = {name: value for name, value in package.metadata.items() if name not in _OF_THE_MOMENT}
        metadata["FEATURES"] = metadata["FEATURES"].replace(b" distcc ", b" ")  # by which help came
    return files, metadata


def test_plain_builds_give_the_same_packages(tmp_path: Path) -> None:
    helped = _build(tmp_path / "helped")
    plain = _build(tmp_path / "plain", "--plain")
    assert helped["compiles"]["host"] > 30
    assert plain["compiles"]["host"] + plain["compiles"]["remote"] == 0
    assert sorted(helped["built"]) == sorted(plain["built"])
    assert len(helped["built"]) == len(PACKAGES)
    for cpv in helped["built"]:
        ours, theirs = (_content(tmp_path / name / "binhost" / f"{cpv}.gpkg.tar") for name in ("helped", "plain"))
        assert ours[0] == theirs[0], cpv
        assert ours[1] == theirs[1], cpv
