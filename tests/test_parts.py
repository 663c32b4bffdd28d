"""What of the cache goes to which hosts."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.master.hosts import parts
from cluster.node import emulator, kernel, stage, toolchain


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One with a stage, QEMU and a toolchain."""
    built = tmp_path / "stages/arm64-1"
    for name in (
        "disk.qcow2",
        "kernel",
        "initrd",
        "keys/id",
        "stage.json",
        "sysroot/usr/include/a.h",
        "compiler/kernel",
    ):
        (built / name).parent.mkdir(parents=True, exist_ok=True)
        (built / name).write_text('{"release": "bookworm"}')
    (tmp_path / "qemu").mkdir()
    (tmp_path / "toolchains").mkdir()
    monkeypatch.setattr(stage, "ensure", lambda *words: stage.Stage(built))
    monkeypatch.setattr(kernel, "find", lambda *words: None)
    monkeypatch.setattr(emulator, "ensure", lambda *words: None)
    monkeypatch.setattr(emulator, "private", lambda *words: tmp_path / "qemu")
    some: Any = SimpleNamespace(prefix=tmp_path / "toolchains")
    monkeypatch.setattr(toolchain, "ensure", lambda *words: some)
    return tmp_path


def test_a_host_of_nodes_gets_all_of_the_stage_and_what_runs_and_compiles(cache: Path) -> None:
    found = parts.of("arm64", platform.machine(), cache, print)
    assert [part.place for part in found] == ["stages/arm64-1", "qemu", "toolchains"]


def test_a_host_that_only_compiles_gets_no_disk_and_no_qemu(cache: Path, tmp_path: Path) -> None:
    found = parts.of_compiles("arm64", platform.machine(), cache, print)
    assert [part.place for part in found] == ["stages/arm64-1", "toolchains"]
    with found[0].compressed() as stream:
        packed = tmp_path / "packed"
        packed.write_bytes(stream.read())
    listed = subprocess.run(["tar", "--zstd", "-tf", packed], capture_output=True, text=True, check=True).stdout
    assert {line for line in listed.splitlines() if not line.endswith("/")} == {
        "./stage.json",
        "./compiler/kernel",
        "./sysroot/usr/include/a.h",
    }


def test_one_of_another_architecture_fetches_the_compiler_itself(cache: Path) -> None:
    (part,) = parts.of_compiles("arm64", "sparc64", cache, print)
    assert part.place == "stages/arm64-1"
