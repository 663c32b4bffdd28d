"""Machines of the configuration that build over ssh."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import pytest

from cluster import config, target
from cluster.errors import NodeLost
from cluster.master import boards
from cluster.node import remote, unpacked
from cluster.node.remote import Board

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA board"
NODES = {
    "pi": config.Board(driver="ssh", address="root@pi:2222", host_key=KEY, target="arm64", identity="/keys/pi"),
    "server": config.Board(driver="ssh", address="root@[fd00::1]", host_key=KEY, target="arm64", directory="/srv/b"),
    "other": config.Board(driver="ssh", address="root@other", host_key=KEY, target="riscv"),
}


def found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **machines: str) -> tuple[list[Any], list[str]]:
    """The arm64 machines of NODES that build, where those of `machines` answer, and the warnings."""
    warnings: list[str] = []

    def machine_of(board: Board) -> str:
        if board.name not in machines:
            raise NodeLost("the node does not answer on ssh")
        return machines[board.name]

    monkeypatch.setattr(remote, "machine_of", machine_of)
    monkeypatch.setattr(unpacked, "ensure", lambda stage, emulator, cache: tmp_path)
    session: Any = SimpleNamespace(
        config=config.load().model_copy(update={"nodes": NODES}),
        target=target.load("arm64"),
        directories=SimpleNamespace(cache=tmp_path / "cache"),
    )
    hardware: Any = SimpleNamespace(stage=None, emulator=None)
    reporter: Any = SimpleNamespace(warn=warnings.append, step=lambda text: None)
    live: Any = None
    return list(boards.find(session, hardware, live, reporter)), warnings


def test_machines_of_the_target_are_hosts_of_one_node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    able, warnings = found(monkeypatch, tmp_path, pi="aarch64", server="aarch64")
    assert [(host.name, host.nodes) for host, _ in able] == [("pi", ("pi:1",)), ("server", ("server:1",))]
    assert all(host.speed > 0 for host, _ in able)
    place = PurePosixPath("/var/tmp/portage-cluster")
    assert able[0][1].driver.board == Board("pi", "pi", 2222, KEY, Path("/keys/pi"), place)
    assert able[1][1].driver.board == Board("server", "fd00::1", 22, KEY, None, PurePosixPath("/srv/b"))
    assert warnings == []


def test_machines_that_cannot_build_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    able, warnings = found(monkeypatch, tmp_path, server="x86_64")
    assert able == []
    assert warnings == [
        "pi builds nothing: the node does not answer on ssh",
        "server builds nothing: it is of x86_64, which runs no arm64",
    ]
