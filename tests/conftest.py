"""Shared fixtures: no test touches the user's own directories, or uses the environment's mirrors."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import instances as machines
import pytest

from cluster.master import claims
from cluster.node import keypair

hypothesis.settings.register_profile("untimed", deadline=None)  # a busy machine is no fault
hypothesis.settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def own_directories(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HOME and the XDG directories are the test's own; one that boots nodes keeps the cache with its stage.

    It shares the machine with nobody's builds.
    """
    home = tmp_path_factory.mktemp("home")
    for name in ("CONFIG", "STATE", "DATA"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / "runtime"))
    monkeypatch.setattr(claims, "PLACES", ())
    monkeypatch.delenv("PREFERRED_MIRROR", raising=False)
    if request.node.get_closest_marker("vm") is None:
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))


@pytest.fixture
def own_key(own_directories: None) -> str:
    """The public part of a key in this user's ~/.ssh."""
    directory = Path.home() / ".ssh"
    directory.mkdir(mode=0o700)
    keypair.make(directory / "id_ed25519")
    return (directory / "id_ed25519.pub").read_text()


@pytest.fixture
def public_path() -> Iterator[Path]:
    """A directory that every user can pass into, which `tmp_path` is not; short enough for sockets."""
    directory = Path(tempfile.mkdtemp(prefix="cluster-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def instances(tmp_path_factory: pytest.TempPathFactory) -> Iterator[machines.Network]:
    """Machines of namespaces to start, kill and cut off."""
    if machines.missing:
        pytest.skip(machines.missing)
    with machines.network(tmp_path_factory.mktemp("instances")) as network:
        yield network
