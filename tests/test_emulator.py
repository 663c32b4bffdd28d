"""Which QEMU is used: the machine's if it is new, else one with a C library of its own, else whatever works."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import target
from cluster.errors import MachineError
from cluster.node import emulator
from cluster.process import run

ARM64 = target.load("arm64")
RECIPE = target.load_recipe()


def _program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture(autouse=True)
def no_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*words: object) -> None:
        raise MachineError("the archive does not answer")

    monkeypatch.setattr(emulator, "_fetch", unreachable)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory of PATH."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


def _install(machine: Path, version: str) -> None:
    _program(machine / ARM64.qemu.binary, f"echo QEMU emulator version {version}")
    _program(machine / "qemu-img", "")


def _unpacked(cache: Path, suite: str = "trixie-backports") -> Path:
    """A prefix as it is after a fetch; its loader says how it was called."""
    prefix = cache / "qemu" / f"{ARM64.qemu.package}-{suite}"
    _program(prefix / "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", 'echo "version 11.2 of $*"')
    (prefix / "usr/lib/x86_64-linux-gnu/qemu").mkdir()
    (prefix / "usr/share/qemu").mkdir(parents=True)
    return prefix


def test_a_new_qemu_of_the_machine_is_used(machine: Path, tmp_path: Path) -> None:
    _install(machine, "11.0.1")
    found = emulator.ensure(ARM64, RECIPE, tmp_path / "cache")
    assert (found.system, found.version) == ((machine / ARM64.qemu.binary,), "11.0.1")


def test_an_older_one_gives_way_to_one_with_its_own_c_library(machine: Path, tmp_path: Path) -> None:
    _install(machine, "10.0.2")
    prefix = _unpacked(tmp_path / "cache")
    found = emulator.ensure(ARM64, RECIPE, tmp_path / "cache")
    place = prefix / "usr/lib/x86_64-linux-gnu"
    assert (found.version, found.data) == ("11.2", (prefix / "usr/share/qemu",))
    assert found.environment["QEMU_MODULE_DIR"] == str(place / "qemu")
    told = run([*found.img, "create", "x"], deadline_s=10)
    assert told == f"version 11.2 of --library-path {place} {prefix}/usr/bin/qemu-img create x\n"


def test_an_older_one_is_better_than_none(machine: Path, tmp_path: Path) -> None:
    _install(machine, "9.2.0")
    assert emulator.ensure(ARM64, RECIPE, tmp_path / "cache").version == "9.2.0"


@pytest.mark.parametrize("version", ["7.2.1", ""])
def test_one_that_is_too_slow_is_not(machine: Path, tmp_path: Path, version: str) -> None:
    if version:
        _install(machine, version)
    else:
        machine.mkdir()
    with pytest.raises(MachineError, match="no QEMU 9 or newer for arm64: the archive does not answer") as raised:
        emulator.ensure(ARM64, RECIPE, tmp_path / "cache")
    assert raised.value.mend == "install qemu-system-arm"


def test_for_comparison_the_machines_own_will_do_however_old(machine: Path, tmp_path: Path) -> None:
    _install(machine, "7.2.1")
    assert emulator.of_release(ARM64, tmp_path / "cache").version == "7.2.1"


def test_a_prefix_without_a_loader_says_how_to_get_another(machine: Path, tmp_path: Path) -> None:
    prefix = _unpacked(tmp_path / "cache")
    (prefix / "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2").unlink()
    machine.mkdir()
    with pytest.raises(MachineError, match=f"there is no loader in {prefix}"):
        emulator.ensure(ARM64, RECIPE, tmp_path / "cache")
