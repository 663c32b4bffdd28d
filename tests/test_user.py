"""An installed wheel builds a package from nothing as an ordinary user, outside the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

_CHECKOUT = Path(__file__).parents[1]
_DEADLINE_S = 1500
_UID = 23456


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of the ordinary user's, which every user can pass into."""
    directory = Path(tempfile.mkdtemp(prefix="cluster-user-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def _as_user(*argv: str) -> list[str]:
    if os.geteuid() != 0:
        return list(argv)
    return ["setpriv", f"--reuid={_UID}", f"--regid={_UID}", "--clear-groups", *argv]


def test_an_ordinary_user_builds_from_the_wheel(place: Path) -> None:
    venv, home = place / "venv", place / "home"
    base = Path(sys.executable).resolve()
    subprocess.run([base, "-m", "venv", venv], check=True, timeout=300)
    subprocess.run([venv / "bin/pip", "install", "-q", _CHECKOUT], check=True, timeout=600)
    home.mkdir()
    if os.geteuid() == 0:
        os.chown(home, _UID, _UID)
    argv = _as_user(str(venv / "bin/cluster"), "build", "app-arch/lzlib", "--target", "arm64", "--json")
    env = {"HOME": str(home), "PATH": "/usr/bin:/bin", "TMPDIR": str(home), "LANG": "C.UTF-8"}
    ended = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        env=env,
        cwd=home,
        timeout=_DEADLINE_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    result = json.loads(ended.stdout)
    assert result["built"] == ["app-arch/lzlib-1.15"]
    assert result["compiles"]["host"] + result["compiles"]["remote"] > 0
    assert result["compiles"]["local"] == 0
    binpkg = home / ".local/share/portage-cluster/binhost/arm64/app-arch/lzlib-1.15.gpkg.tar"
    assert binpkg.stat().st_uid == (_UID if os.geteuid() == 0 else os.geteuid())
