"""One QEMU process: its command line (pure), and its life."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from qemu.qmp import QMPError
from qemu.qmp.legacy import QEMUMonitorProtocol

from cluster.errors import MachineError, NodeLost
from cluster.node.console import Console
from cluster.node.emulator import Emulator
from cluster.process import Child
from cluster.target import Target

_QMP_DEADLINE_S = 20.0


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk of a machine; the first is its root."""

    path: Path
    format: str
    read_only: bool = False
    cache: str = "unsafe"
    """QEMU's cache mode: `unsafe` never waits for the host's disk, for what is thrown away."""


@dataclass(frozen=True, slots=True)
class Ram:
    """A file as a machine's memory."""

    path: Path
    shared: bool
    """Whether the machine writes to the file; else what it writes is its own (copy on write)."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a QEMU process is to emulate."""

    target: Target
    kernel: Path
    initrd: Path
    disks: tuple[Disk, ...]
    memory_mib: int
    cpus: int
    init: str = "/sbin/cluster-init"
    ssh_port: int | None = None
    """Loopback port forwarded to the guest's sshd; None for no network."""
    agent: bool = False
    """Whether it has a serial port for guest/agent, whose socket of ours is `agent.sock`."""
    ram: Ram | None = None
    """A file that is its memory."""
    accelerator: str = "tcg"
    """QEMU's, `tcg` or `kvm`."""
    incoming: bool = False
    """Whether it waits for the state of another instead of booting."""


def _quoted(path: Path) -> str:
    """A path in one of QEMU's comma-separated options."""
    return str(path).replace(",", ",,")


def arguments(emulator: Emulator, machine: Machine, directory: Path) -> list[str]:
    """QEMU's command line for `machine`, with its sockets and console log in `directory`."""
    hardware = machine.target.qemu
    place = _quoted(directory)
    words = [
        *map(str, emulator.system),
        *(word for place in emulator.data for word in ("-L", str(place))),
        *["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
        *[
            "-machine",
            hardware.machine + (",memory-backend=ram" if machine.ram else ""),
            "-accel",
            machine.accelerator,
            "-cpu",
            "host" if machine.accelerator == "kvm" else hardware.cpu,
        ],
        *["-smp", str(machine.cpus), "-m", f"{machine.memory_mib}M"],
        *["-kernel", str(machine.kernel), "-initrd", str(machine.initrd)],
        *["-append", f"console={hardware.console} {machine.target.kernel.arguments} cluster.init={machine.init}"],
        *["-chardev", f"socket,id=console,path={place}/console.sock,logfile={place}/console.log"],
        *["-serial", "chardev:console"],
        *["-chardev", f"socket,id=qmp,path={place}/qmp.sock", "-mon", "chardev=qmp,mode=control"],
        *["-device", hardware.random_bus],
    ]
    for number, disk in enumerate(machine.disks):
        options = f"file={_quoted(disk.path)},format={disk.format},if=none,id=disk{number}"
        options += f",cache={disk.cache},discard=unmap"
        words += ["-drive", options + (",readonly=on" if disk.read_only else "")]
        words += ["-device", f"{hardware.disk_bus},drive=disk{number}"]
    if machine.ssh_port is not None:
        words += ["-netdev", f"user,id=net,ipv6=off,hostfwd=tcp:127.0.0.1:{machine.ssh_port}-:22"]
        words += ["-device", f"{hardware.network_bus},netdev=net,romfile="]
    if machine.ram is not None:
        share = "on" if machine.ram.shared else "off"
        options = f"id=ram,size={machine.memory_mib}M,mem-path={_quoted(machine.ram.path)},share={share}"
        words += ["-object", f"memory-backend-file,{options}"]
    if machine.agent:
        words += ["-device", hardware.serial_bus, "-chardev", f"socket,id=agent,path={place}/agent.sock"]
        words += ["-device", "virtserialport,chardev=agent,name=cluster.agent"]
    if machine.incoming:
        words += ["-incoming", "defer"]
    return words


def free_port() -> int:
    """A loopback TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True, slots=True)
class Running:
    """A started QEMU: its process, console and monitor."""

    child: Child
    console: Console
    monitor: QEMUMonitorProtocol


@contextmanager
def running(emulator: Emulator, machine: Machine, directory: Path) -> Iterator[Running]:
    """Start QEMU in `directory` and end it on leaving.

    Raises NodeLost if it ends before it answers on its monitor.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        console = stack.enter_context(Console(directory / "console.sock"))
        monitor = QEMUMonitorProtocol(str(directory / "qmp.sock"), server=True)
        stack.callback(monitor.close)
        child = Child(
            arguments(emulator, machine, directory), log_path=directory / "qemu.log", env=emulator.environment
        )
        stack.enter_context(child)
        try:
            monitor.accept(_QMP_DEADLINE_S)
            monitor.settimeout(_QMP_DEADLINE_S)
        except Exception as error:  # the library raises its own, asyncio's and socket's errors
            raise NodeLost("QEMU did not start", child.why() if child.ended else str(error)) from error
        yield Running(child, console, monitor)


def save(vm: Running, state: Path, *, deadline_s: float) -> None:
    """Stop the machine and write its state, without its memory file, to `state`. Raises NodeLost."""
    with _asking(vm):
        vm.monitor.cmd("stop")
        _prepare(vm)
        vm.monitor.cmd("migrate", uri=f"file:{state}")
    _wait_for_migration(vm, deadline_s)


def restore(vm: Running, state: Path, *, deadline_s: float) -> None:
    """Let a machine that waits go on from `state`. Raises NodeLost."""
    with _asking(vm):
        _prepare(vm)
        vm.monitor.cmd("migrate-incoming", uri=f"file:{state}")
    _wait_for_migration(vm, deadline_s)
    with _asking(vm):
        vm.monitor.cmd("cont")  # it was stopped when it was saved, and remembers that


def _prepare(vm: Running) -> None:
    """Leave out the memory, which is a file, and tell of each step."""
    wanted = [{"capability": name, "state": True} for name in ("x-ignore-shared", "events")]
    vm.monitor.cmd("migrate-set-capabilities", capabilities=wanted)


@contextmanager
def _asking(vm: Running) -> Iterator[None]:
    """NodeLost in the place of the library's errors."""
    try:
        yield
    except (TimeoutError, QMPError, OSError) as error:
        raise NodeLost("QEMU refuses", vm.child.why() if vm.child.ended else str(error)) from error


def _wait_for_migration(vm: Running, deadline_s: float) -> None:
    end = time.monotonic() + deadline_s
    while True:
        with _asking(vm):
            event = vm.monitor.pull_event(wait=max(end - time.monotonic(), 0.01))
        status = event["data"].get("status") if event and event["event"] == "MIGRATION" else None
        if status == "completed":
            return
        if status == "failed":
            raise NodeLost("QEMU could not move the machine's state", vm.child.why())


def available_mib() -> int:
    """MiB of memory that this machine could give to processes now."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) >> 10 for line in lines if line.startswith("MemAvailable"))


def require_memory(memory_mib: int, nodes: int) -> None:
    """Raise MachineError if the machine has not the memory for `nodes` nodes of `memory_mib` each."""
    available = available_mib()
    if available < memory_mib * nodes:
        raise MachineError(
            f"{nodes} nodes of {memory_mib} MiB need more memory than the {available} MiB available",
            "use fewer with --nodes, or set node.memory_mib in the config",
        )
