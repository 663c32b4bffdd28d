"""A node: one emulated computer, booted from the stage over a disk that is thrown away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.node import disk, qemu
from cluster.node.emulator import Emulator
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
    disk_cache: str = "unsafe"
    """QEMU's cache mode for its disks."""


@dataclass(frozen=True, slots=True)
class Node:
    """A booted node with an open ssh connection."""

    ssh: Connection
    boot_seconds: float
    machine: qemu.Running


@contextmanager
def booted(hardware: Hardware, directory: Path, data: Path | None, own: Callable[[int], None]) -> Iterator[Node]:
    """Boot a node in `directory`, with the ext4 image `data` as its second disk, and end it on leaving.

    `own` is told the process group. Raises NodeLost if it does not come up.
    """
    start = time.monotonic()
    port = qemu.free_port()
    root = disk.overlay(hardware.emulator, hardware.stage.disk, directory / "root.qcow2")
    disks = [qemu.Disk(root, "qcow2", cache=hardware.disk_cache)]
    if data is not None:
        disks.append(qemu.Disk(data, "raw", cache=hardware.disk_cache))
    machine = qemu.Machine(
        target=hardware.target,
        kernel=hardware.stage.kernel,
        initrd=hardware.stage.initrd,
        disks=tuple(disks),
        memory_mib=hardware.memory_mib,
        cpus=hardware.cpus,
        ssh_port=port,
    )
    with qemu.running(hardware.emulator, machine, directory) as vm:
        own(vm.child.pid)
        vm.console.wait_for((READY,), deadline_s=hardware.boot_s, alive=lambda: not vm.child.ended)
        keys = {"host_key": hardware.stage.host_key, "identity": hardware.stage.identity}
        with Connection(port, deadline_s=_SSH_S, **keys) as connection:
            yield Node(connection, time.monotonic() - start, vm)
