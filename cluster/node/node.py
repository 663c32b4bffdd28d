"""A node: one emulated computer, booted from the stage over a disk that is thrown away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.node import disk, qemu
from cluster.node.emulator import Emulator
from cluster.node.shell import Shell
from cluster.node.ssh import Connection
from cluster.node.stage import Stage
from cluster.target import Target

READY = "cluster: node ready"
_SSH_S = 30.0


@dataclass(frozen=True, slots=True)
class Hardware:
    """What every node of a run is made of."""

    target: Target
    emulator: Emulator
    stage: Stage
    memory_mib: int
    cpus: int
    boot_s: float
    """How long a boot may take."""
    snapshot: Path | None = None
    """The directory of a warm node to restore (`warm.Snapshot`); nodes are booted if there is none."""
    accelerator: str = "tcg"
    """`kvm` where that is known to work (`cluster.node.kvm`)."""
    disk_cache: str = "unsafe"
    """QEMU's cache mode for its disks."""


@dataclass(frozen=True, slots=True)
class Node:
    """A running node and the way to give it commands."""

    shell: Shell
    boot_seconds: float
    machine: qemu.Running


@contextmanager
def booted(
    hardware: Hardware, directory: Path, data: Path, own: Callable[[int], None], prerequisites: Path | None = None
) -> Iterator[Node]:
    """Boot a node in `directory` and end it on leaving.

    The ext4 image `data` is its second disk. The image of `prerequisites` is its third, read-only
    and shared with other nodes; without, that disk is blank. `own` is told the process group.
    Raises NodeLost if it does not come up.
    """
    start = time.monotonic()
    port = qemu.free_port()
    cache = hardware.disk_cache
    root = disk.overlay(hardware.emulator, hardware.stage.disk, directory / "root.qcow2")
    blank = prerequisites or disk.blank(directory / "prerequisites.raw")
    disks = (
        qemu.Disk(root, "qcow2", cache=cache),
        qemu.Disk(data, "raw", cache=cache),
        qemu.Disk(blank, "raw", read_only=True, cache=cache),
    )
    machine = qemu.Machine(
        target=hardware.target,
        kernel=hardware.stage.kernel,
        initrd=hardware.stage.initrd,
        disks=disks,
        memory_mib=hardware.memory_mib,
        cpus=hardware.cpus,
        ssh_port=port,
        accelerator=hardware.accelerator,
    )
    with qemu.running(hardware.emulator, machine, directory) as vm:
        own(vm.child.pid)
        vm.console.wait_for((READY,), deadline_s=hardware.boot_s, alive=lambda: not vm.child.ended)
        stage = hardware.stage
        with Connection(port, host_key=stage.host_key, identity=stage.identity, deadline_s=_SSH_S) as connection:
            yield Node(connection, time.monotonic() - start, vm)
