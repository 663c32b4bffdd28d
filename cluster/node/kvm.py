"""Whether nodes may run on KVM: only where they are of the host's own architecture and one has booted on it.

That `/dev/kvm` exists says little: within many a virtual machine it is there and its guests hang.
"""

from __future__ import annotations

import os
import platform
import tempfile
from dataclasses import replace
from pathlib import Path

from cluster.errors import NodeLost
from cluster.node import disk, qemu
from cluster.node.node import READY, Hardware
from cluster.target import Target

_DEVICE = Path("/dev/kvm")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PROBE_S = 30.0  # a boot on KVM takes two


def obstacle(target: Target, device: Path = _DEVICE, machine: str = "") -> str:
    """Why a node of `target` cannot run on KVM; "" if that is worth a try. `machine` is the host's, as uname has it."""
    ours = machine or platform.machine()
    if target.chost.partition("-")[0] != ours:
        return f"KVM runs no {target.name} on {ours}"
    if not device.exists():
        return f"there is no {device}"
    if not os.access(device, os.R_OK | os.W_OK):
        return f"{device} is not this user's"
    return ""


def accelerated(hardware: Hardware) -> tuple[Hardware, str]:
    """The hardware on KVM if that works, else as it is and why not.

    A stage is tried once for each boot of the host; what came out is kept beside it.
    """
    reason = obstacle(hardware.target)
    if reason:
        return hardware, reason
    faster = replace(hardware, accelerator="kvm")
    verdict = hardware.stage.directory / f"kvm-{_BOOT_ID.read_text().strip()}-{hardware.emulator.version}"
    if not verdict.exists():
        for old in hardware.stage.directory.glob("kvm-*"):
            old.unlink(missing_ok=True)
        verdict.write_text(_probe(faster))
    reason = verdict.read_text()
    return (hardware, reason) if reason else (faster, "")


def _probe(hardware: Hardware) -> str:
    """Boot a node; why it did not come up, "" if it did."""
    with tempfile.TemporaryDirectory(prefix="portage-cluster-") as scratch:
        directory = Path(scratch)
        machine = qemu.Machine(
            target=hardware.target,
            kernel=hardware.stage.kernel,
            initrd=hardware.stage.initrd,
            disks=(qemu.Disk(disk.overlay(hardware.emulator, hardware.stage.disk, directory / "root.qcow2"), "qcow2"),),
            memory_mib=hardware.memory_mib,
            cpus=hardware.cpus,
            accelerator=hardware.accelerator,
        )
        try:
            with qemu.running(hardware.emulator, machine, directory) as vm:
                vm.console.wait_for((READY,), deadline_s=_PROBE_S, alive=lambda: not vm.child.ended)
        except NodeLost as error:
            return f"no node comes up on KVM: {error}"
    return ""
