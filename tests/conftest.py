"""Shared fixtures: no test sees the user's own directories or the environment's mirrors."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _private_directories(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """HOME and the XDG directories lie in a temporary directory of the test."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for name in ("CONFIG", "DATA", "STATE", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))
    monkeypatch.delenv("PREFERRED_MIRROR", raising=False)


@pytest.fixture
def public_path() -> Iterator[Path]:
    """A directory that every user can pass into, which `tmp_path` is not; short enough for sockets."""
    directory = Path(tempfile.mkdtemp(prefix="cluster-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)
