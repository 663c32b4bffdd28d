"""Warm nodes: a node that has booted and built is saved once; others start where it was.

stages/STAGE/warm-KEY/
    ram          its memory: restored nodes map it copy-on-write, so that they share what they only read
    root.qcow2   what it wrote to the root disk, over the stage's own; nodes' overlays lie over it
    state        its processor and devices, as QEMU's migration writes them

QEMU leaves a memory that is a shared file out of the state (capability `x-ignore-shared`), and the
one that restores may map the same file privately.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cluster import paths
from cluster.errors import MachineError
from cluster.model import Cpv, Package, Repository
from cluster.node import disk, job, qemu
from cluster.node.agent import Agent
from cluster.node.node import READY, Hardware, Node, booted
from cluster.process import tail

_FORMAT = 1  # of the directory above, and of how a node is made warm
_NEED_MIB = 2500
_REHEARSAL_S = 300.0
_SAVE_S = 120.0
_RESTORE_S = 20.0
_WAKE_S = 10.0
_ROOM_MIB = 64


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A saved node in the cache."""

    directory: Path

    @property
    def ram(self) -> Path:
        """The node's memory."""
        return self.directory / "ram"

    @property
    def root(self) -> Path:
        """The root disk as the node left it, a qcow2 over the stage's."""
        return self.directory / "root.qcow2"

    @property
    def state(self) -> Path:
        """Processor and devices."""
        return self.directory / "state"


def _machine(hardware: Hardware, disks: tuple[Path, Path, Path], ram: qemu.Ram, *, incoming: bool) -> qemu.Machine:
    """The machine that is saved and restored: only what its disks and memory are kept in may differ."""
    root, data, prerequisites = disks
    return qemu.Machine(
        target=hardware.target,
        kernel=hardware.stage.kernel,
        initrd=hardware.stage.initrd,
        disks=(
            qemu.Disk(root, "qcow2"),
            qemu.Disk(data, "raw"),
            qemu.Disk(prerequisites, "raw", read_only=True),
        ),
        memory_mib=hardware.memory_mib,
        cpus=hardware.cpus,
        ssh_port=qemu.free_port(),
        agent=True,
        accelerator=hardware.accelerator,
        ram=ram,
        incoming=incoming,
    )


def key(hardware: Hardware) -> str:
    """A hash of what a snapshot depends on beside its stage: QEMU and all that it is told."""
    nowhere = Path("-")
    machine = replace(
        _machine(hardware, (nowhere, nowhere, nowhere), qemu.Ram(nowhere, shared=True), incoming=False), ssh_port=0
    )
    parts = [str(_FORMAT), hardware.emulator.version, *qemu.arguments(hardware.emulator, machine, nowhere)]
    rehearsal = sorted(path for path in paths.data("stage-images", "rehearsal").rglob("*") if path.is_file())
    parts += [path.read_text() for path in rehearsal]
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=6).hexdigest()


def ensure(hardware: Hardware, say: Callable[[str], None]) -> Snapshot:
    """The snapshot for `hardware`, made if its stage has none. Of two runs at once, one makes it.

    Raises MachineError, CommandFailed and NodeLost when there is none to be had.
    """
    stage = hardware.stage.directory
    place = stage / f"warm-{key(hardware)}"
    with paths.locked(stage / "warm.lock"):
        if not place.exists():
            say("saving a warm node, from which others start")
            paths.require_space(stage, _NEED_MIB, "the snapshot of a warm node")
            for leftover in stage.glob(".new-*"):
                shutil.rmtree(leftover)
            made = Path(tempfile.mkdtemp(prefix=".new-", dir=stage))
            try:
                _make(hardware, Snapshot(made))
                for old in stage.glob("warm-*/"):  # nodes that run from it keep their open files
                    shutil.rmtree(old)
                made.rename(place)
            finally:
                shutil.rmtree(made, ignore_errors=True)
    return Snapshot(place)


def _rehearsal(directory: Path, hardware: Hardware) -> Path:
    """The disk of a job that is of no use: it builds `stage-images/rehearsal`."""
    location = paths.data("stage-images", "rehearsal")
    package = Package(
        cpv=Cpv("app-misc/rehearsal-1"),
        slot="0",
        use=(),
        iuse=(),
        repository="rehearsal",
        ebuild=location / "app-misc/rehearsal/rehearsal-1.ebuild",
        requires=(),
        distfiles=(),
    )
    settings = job.Settings(
        chost=hardware.target.chost,
        profile=paths.data("profiles", hardware.target.profile),
        repositories=(Repository("rehearsal", location),),
        jobs=1,
    )
    content = directory / "job"
    content.mkdir()
    job.fill(content, package, settings, job.Materials(directory, {}, ""))
    return disk.extend(disk.from_directory(content, room_mib=_ROOM_MIB))


def _make(hardware: Hardware, snapshot: Snapshot) -> None:
    """Boot a node, let it build once, and save it into the empty directory of `snapshot`."""
    # Sockets need a short path, and the rehearsal's disks are not to stay.
    with tempfile.TemporaryDirectory(prefix="portage-cluster-") as scratch:
        directory = Path(scratch)
        # A relative name, so that it holds when the directory gets its own.
        base = Path(os.path.relpath(hardware.stage.disk, snapshot.directory))
        root = disk.overlay(hardware.emulator, base, snapshot.root)
        disks = (root, _rehearsal(directory, hardware), disk.blank(directory / "prerequisites.raw"))
        machine = _machine(hardware, disks, qemu.Ram(snapshot.ram, shared=True), incoming=False)
        with Agent(directory / "agent.sock") as agent, qemu.running(hardware.emulator, machine, directory) as vm:
            vm.console.wait_for((READY,), deadline_s=hardware.boot_s, alive=lambda: not vm.child.ended)
            agent.wake(deadline_s=hardware.boot_s)
            said: list[bytes] = []
            status = agent.run(
                "exec sh /usr/lib/cluster/warm", total_s=_REHEARSAL_S, silence_s=_REHEARSAL_S, output=said.append
            )
            if status:
                text = b"".join(said).decode(errors="replace")
                raise MachineError("a node could not be made warm", tail(text))
            qemu.save(vm, snapshot.state, deadline_s=_SAVE_S)


@contextmanager
def _restored(
    hardware: Hardware, snapshot: Snapshot, directory: Path, data: Path, prerequisites: Path, own: Callable[[int], None]
) -> Iterator[Node]:
    """A node that goes on from `snapshot`, with its own disks; ended on leaving. Raises NodeLost."""
    start = time.monotonic()
    root = disk.overlay(hardware.emulator, snapshot.root, directory / "root.qcow2")
    machine = _machine(
        hardware, (root, disk.extend(data), prerequisites), qemu.Ram(snapshot.ram, shared=False), incoming=True
    )
    with Agent(directory / "agent.sock") as agent, qemu.running(hardware.emulator, machine, directory) as vm:
        own(vm.child.pid)
        qemu.restore(vm, snapshot.state, deadline_s=_RESTORE_S)
        agent.wake(deadline_s=_WAKE_S)
        yield Node(agent, time.monotonic() - start, vm)


@contextmanager
def started(
    hardware: Hardware, directory: Path, data: Path, own: Callable[[int], None], prerequisites: Path | None = None
) -> Iterator[Node]:
    """A node in `directory`, restored where the hardware has a snapshot, else booted; as `node.booted`."""
    if hardware.snapshot is None:
        with booted(hardware, directory, data, own, prerequisites) as node:
            yield node
        return
    third = prerequisites or disk.blank(directory / "prerequisites.raw")
    with _restored(hardware, Snapshot(hardware.snapshot), directory, data, third, own) as node:
        yield node
