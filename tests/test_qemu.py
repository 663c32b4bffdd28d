"""QEMU's command line, and its console seen through a socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from cluster import target
from cluster.errors import MachineError, NodeLost
from cluster.node.console import Console
from cluster.node.emulator import Emulator
from cluster.node.qemu import Disk, Machine, arguments, require_memory, running

EMULATOR = Emulator((Path("/q/qemu-system-aarch64"),), (Path("/q/qemu-img"),), "10.0")
MACHINE = Machine(
    target=target.load("arm64"),
    kernel=Path("/s/kernel"),
    initrd=Path("/s/initrd"),
    disks=(Disk(Path("/n/root.qcow2"), "qcow2"), Disk(Path("/n/job.ext4"), "raw")),
    memory_mib=1024,
    cpus=2,
    ssh_port=4022,
)
READY = "cluster: node ready"


def pairs(words: list[str]) -> set[tuple[str, str]]:
    return set(pairwise(words))


def values(words: list[str], option: str) -> list[str]:
    return [value for word, value in pairwise(words) if word == option]


@pytest.mark.parametrize("name", target.names())
def test_the_machine_is_the_targets(name: str) -> None:
    chosen = target.load(name)
    emulator = Emulator((Path("/q") / chosen.qemu.binary,), (Path("/q/qemu-img"),), "10.0")
    words = arguments(emulator, replace(MACHINE, target=chosen, agent=True), Path("/n"))
    assert words[0] == f"/q/{chosen.qemu.binary}"
    assert {
        ("-machine", chosen.qemu.machine),
        ("-cpu", chosen.qemu.cpu),
        ("-accel", "tcg"),
        ("-smp", "2"),
        ("-m", "1024M"),
        ("-kernel", "/s/kernel"),
        ("-initrd", "/s/initrd"),
        ("-device", chosen.qemu.random_bus),
        ("-device", chosen.qemu.serial_bus),
        ("-device", f"{chosen.qemu.disk_bus},drive=disk0"),
    } <= pairs(words)
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} <= set(words)
    (append,) = values(words, "-append")
    assert append.split() == [
        f"console={chosen.qemu.console}",
        *chosen.kernel.arguments.split(),
        "cluster.init=/sbin/cluster-init",
    ]


def test_another_target_changes_the_words_and_no_code() -> None:
    other = MACHINE.target.model_copy(
        update={"qemu": MACHINE.target.qemu.model_copy(update={"machine": "q35", "disk_bus": "virtio-blk-ccw"})}
    )
    words = arguments(EMULATOR, replace(MACHINE, target=other), Path("/n"))
    assert ("-machine", "q35") in pairs(words)
    assert "virtio-blk-ccw,drive=disk0" in values(words, "-device")


def test_the_disks_keep_their_order() -> None:
    first, second = values(arguments(EMULATOR, MACHINE, Path("/n")), "-drive")
    assert first.startswith("file=/n/root.qcow2,format=qcow2,")
    assert second.startswith("file=/n/job.ext4,format=raw,")
    devices = values(arguments(EMULATOR, MACHINE, Path("/n")), "-device")
    buses = [device for device in devices if "drive=" in device]
    assert [bus.partition("drive=")[2] for bus in buses] == ["disk0", "disk1"]


def test_only_a_read_only_disk_is_read_only() -> None:
    disks = (Disk(Path("/a"), "raw"), Disk(Path("/b"), "raw", read_only=True))
    words = values(arguments(EMULATOR, replace(MACHINE, disks=disks), Path("/n")), "-drive")
    assert ["readonly=on" in word for word in words] == [False, True]


def test_a_comma_in_a_path_is_not_an_option_of_qemu() -> None:
    words = arguments(EMULATOR, replace(MACHINE, disks=(Disk(Path("/a,b/c"), "raw"),)), Path("/n,o"))
    assert values(words, "-drive")[0].startswith("file=/a,,b/c,format=raw")
    assert any("path=/n,,o/console.sock,logfile=/n,,o/console.log" in word for word in values(words, "-chardev"))
    assert any("path=/n,,o/qmp.sock" in word for word in values(words, "-chardev"))


def test_ssh_is_forwarded_from_loopback_only() -> None:
    (net,) = values(arguments(EMULATOR, MACHINE, Path("/n")), "-netdev")
    assert "hostfwd=tcp:127.0.0.1:4022-:22" in net
    assert "hostfwd=tcp::" not in net


def test_no_ssh_port_is_no_network() -> None:
    words = arguments(EMULATOR, replace(MACHINE, ssh_port=None), Path("/n"))
    assert not values(words, "-netdev")
    assert not any("net" in word for word in values(words, "-device"))


def test_a_private_emulator_is_told_its_data() -> None:
    assert "-L" not in arguments(EMULATOR, MACHINE, Path("/n"))
    private = replace(EMULATOR, data=(Path("/q/share"), Path("/q/bios")), env={"LD_LIBRARY_PATH": "/q/lib"})
    assert values(arguments(private, MACHINE, Path("/n")), "-L") == ["/q/share", "/q/bios"]
    assert private.environment["LD_LIBRARY_PATH"] == "/q/lib"
    assert "PATH" in private.environment


def test_an_emulator_that_ends_at_once_is_a_lost_node(public_path: Path) -> None:
    fake = public_path / "qemu"
    fake.write_text("#!/bin/sh\necho no such cpu >&2\nexit 1\n")
    fake.chmod(0o755)
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(NodeLost, match=r"QEMU did not start"),
    ):
        patch.setattr("cluster.node.qemu._QMP_DEADLINE_S", 1.0)
        with running(replace(EMULATOR, system=(fake,)), MACHINE, public_path / "vm"):
            pytest.fail("it never started")


def test_memory_that_the_machine_does_not_have() -> None:
    require_memory(1, 1)
    with pytest.raises(MachineError, match="--nodes"):
        require_memory(1 << 30, 2)


Peer = Callable[..., None]


@pytest.fixture
def console(public_path: Path) -> Iterator[Console]:
    with Console(public_path / "console.sock") as console:
        yield console


@pytest.fixture
def peer(public_path: Path) -> Iterator[Peer]:
    """QEMU's side: peer(DATA…, close=True) connects, writes the data and closes, in a thread."""
    threads: list[threading.Thread] = []
    sockets: list[socket.socket] = []

    def talk(data: tuple[bytes, ...], close: bool) -> None:
        connection = socket.socket(socket.AF_UNIX)
        sockets.append(connection)
        connection.connect(str(public_path / "console.sock"))
        for part in data:
            connection.sendall(part)
        if close:
            connection.close()

    def start(*data: bytes, close: bool = False) -> None:
        thread = threading.Thread(target=talk, args=(data, close))
        thread.start()
        threads.append(thread)

    yield start
    for thread in threads:
        thread.join(10)
    for connection in sockets:
        connection.close()


def test_the_console_waits_for_the_line(console: Console, peer: Peer) -> None:
    peer(b"booting\r\n", b"cluster: node", b" ready\r\n")
    assert console.wait_for((READY,), deadline_s=10, alive=lambda: True) == READY
    assert "booting" in console.seen


def test_the_console_tells_which_line_came(console: Console, peer: Peer) -> None:
    peer(b"cluster: configuration failed\n")
    lines = ("cluster: configured", "cluster: configuration failed")
    assert console.wait_for(lines, deadline_s=10, alive=lambda: True) == lines[1]


def test_a_line_that_came_before_the_end_counts(console: Console, peer: Peer) -> None:
    peer(b"x" * 100_000, b"\n" + READY.encode() + b"\n", close=True)
    assert console.wait_for((READY,), deadline_s=10, alive=lambda: False) == READY


def test_bytes_that_are_not_text_do_no_harm(console: Console, peer: Peer) -> None:
    peer(b"\xff\xfe\x00", READY.encode())
    assert console.wait_for((READY,), deadline_s=10, alive=lambda: True) == READY


def test_a_console_that_closes_is_a_lost_node(console: Console, peer: Peer) -> None:
    peer(b"one\nKernel panic\n", close=True)
    with pytest.raises(NodeLost, match=r"QEMU ended while the node was starting: one \| Kernel panic"):
        console.wait_for((READY,), deadline_s=10, alive=lambda: False)


def test_qemu_that_never_connects_is_a_lost_node(console: Console) -> None:
    with pytest.raises(NodeLost, match="QEMU ended"):
        console.wait_for((READY,), deadline_s=10, alive=lambda: False)


def test_a_silent_node_is_lost_after_the_deadline(console: Console, peer: Peer) -> None:
    peer(b"waiting for the root disk\n")
    with pytest.raises(NodeLost, match=r"did not say 'cluster: node ready' within 0\.3 s: waiting for the root disk"):
        console.wait_for((READY,), deadline_s=0.3, alive=lambda: True)


def test_a_disks_cache_mode_is_its_own() -> None:
    machine = replace(MACHINE, disks=(MACHINE.disks[0], replace(MACHINE.disks[1], cache="writeback")))
    first, second = values(arguments(EMULATOR, machine, Path("/n")), "-drive")
    assert ",cache=unsafe," in first
    assert ",cache=writeback," in second
