"""When nodes run on KVM: the decision, and what a probe that fails or hangs leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster import target
from cluster.errors import NodeLost
from cluster.node import disk, kvm, qemu
from cluster.node.emulator import Emulator
from cluster.node.node import Hardware
from cluster.node.stage import Stage

ARM64 = target.load("arm64")


@pytest.fixture
def hardware(tmp_path: Path) -> Hardware:
    return Hardware(ARM64, Emulator((Path("qemu"),), (Path("qemu-img"),), "10.0.2"), Stage(tmp_path), 1536, 1, 60.0)


@pytest.fixture
def boots(monkeypatch: pytest.MonkeyPatch) -> list[qemu.Machine]:
    """The machines that were tried, on a host of the target's architecture, without starting QEMU."""
    tried: list[qemu.Machine] = []

    @contextmanager
    def running(emulator: Emulator, machine: qemu.Machine, directory: Path) -> Iterator[object]:
        tried.append(machine)
        yield SimpleNamespace(console=SimpleNamespace(wait_for=lambda *_, **__: ""), child=SimpleNamespace(ended=False))

    monkeypatch.setattr(kvm, "obstacle", lambda _: "")
    monkeypatch.setattr(qemu, "running", running)
    monkeypatch.setattr(disk, "overlay", lambda *words: words[-1])
    return tried


@pytest.mark.parametrize(
    ("device", "machine", "said"),
    [
        ("/dev/null", "aarch64", ""),
        ("/dev/null", "x86_64", "KVM runs no arm64 on x86_64"),
        ("/dev/no-such-device", "aarch64", "there is no /dev/no-such-device"),
    ],
)
def test_only_a_device_and_the_same_architecture_are_worth_a_try(device: str, machine: str, said: str) -> None:
    assert kvm.obstacle(ARM64, Path(device), machine) == said


def test_another_architecture_stays_emulated_without_a_probe(hardware: Hardware) -> None:
    unlike = hardware.target.model_copy(update={"chost": "z80-cpm", "name": "z80"})
    same, reason = kvm.accelerated(replace(hardware, target=unlike))
    assert same.accelerator == "tcg"
    assert reason.startswith("KVM runs no z80")


def test_a_node_that_comes_up_settles_it_for_this_boot(hardware: Hardware, boots: list[qemu.Machine]) -> None:
    for _ in range(2):
        faster, reason = kvm.accelerated(hardware)
        assert (faster.accelerator, reason) == ("kvm", "")
    assert [machine.accelerator for machine in boots] == ["kvm"]


def test_a_node_that_hangs_keeps_nodes_emulated(
    hardware: Hardware, boots: list[qemu.Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def hangs(emulator: Emulator, machine: qemu.Machine, directory: Path) -> Iterator[object]:
        boots.append(machine)
        raise NodeLost("the console did not say 'ready' within 30 s")
        yield

    monkeypatch.setattr(qemu, "running", hangs)
    for _ in range(2):
        same, reason = kvm.accelerated(hardware)
        assert same == hardware
        assert reason == "no node comes up on KVM: the console did not say 'ready' within 30 s"
    assert len(boots) == 1


def test_a_verdict_of_an_earlier_boot_does_not_count(hardware: Hardware, boots: list[qemu.Machine]) -> None:
    (hardware.stage.directory / "kvm-earlier-10.0.2").write_text("broken")
    assert kvm.accelerated(hardware)[1] == ""
    assert [path.name for path in hardware.stage.directory.glob("kvm-earlier*")] == []


def test_on_kvm_the_processor_is_the_hosts() -> None:
    machine = qemu.Machine(ARM64, Path("k"), Path("i"), (), 512, 1, accelerator="kvm")
    words = qemu.arguments(Emulator((Path("q"),), (Path("qi"),), "10"), machine, Path("/n"))
    assert words[words.index("-accel") + 1] == "kvm"
    assert words[words.index("-cpu") + 1] == "host"
