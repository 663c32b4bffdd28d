"""The offload on loopback: the real distccd and its client, with this machine's compiler for the cross compiler."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from factories import host_sandbox
from processes import eventually, members

from cluster import target
from cluster.errors import InputError, MachineError
from cluster.host.distcc import Interface, Offload, count, offloading
from cluster.model import Compiles
from cluster.node import sandbox
from cluster.node.job import Settings, make_conf

ARM64 = target.load("arm64")
GCC = "gcc"
CHOST = subprocess.run(["gcc", "-dumpmachine"], capture_output=True, text=True, check=True).stdout.strip()

pytestmark = pytest.mark.skipif(
    not (shutil.which("distcc") and shutil.which("distccd") and sandbox.works()), reason="needs distcc and bwrap"
)


@pytest.fixture(scope="module")
def offload() -> Iterator[Offload]:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cluster-test-")))
        yield stack.enter_context(offloading(host_sandbox(), CHOST, directory / "run", port=0, slots=2))


def node_settings() -> dict[str, str]:
    """What a node's make.conf sets for distcc."""
    text = make_conf(Settings(ARM64.chost, Path("/profile"), (), jobs=1, distcc_hosts="x"))
    return dict(re.findall(r'^(DISTCC_\w+)="(.*)"$', text, re.MULTILINE))


def compile_with(directory: Path, port: int, *words: str, source: str = "int f(void) { return 1; }\n") -> int:
    """Run the compiler as a node does, through distcc to `port`; its log is `directory`/log."""
    (directory / "a.c").write_text(source)
    env = {
        **node_settings(),
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "DISTCC_HOSTS": f"127.0.0.1:{port}/2",
        "DISTCC_DIR": str(directory / "state"),
        "DISTCC_LOG": str(directory / "log"),
    }
    (directory / "state").mkdir(exist_ok=True)
    argv = ["distcc", GCC, *words]
    return subprocess.run(argv, env=env, cwd=directory, capture_output=True, timeout=60, check=False).returncode


def counted(directory: Path) -> Compiles:
    return count((directory / "log").read_text())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_remote_compile_counts_as_remote(tmp_path: Path, offload: Offload) -> None:
    assert compile_with(tmp_path, offload.port, "-c", "a.c", "-o", "a.o") == 0
    assert counted(tmp_path) == Compiles(remote=1)
    assert (tmp_path / "a.o").read_bytes()[:4] == b"\x7fELF"


def test_compiles_add_up(tmp_path: Path, offload: Offload) -> None:
    for number in range(3):
        compile_with(tmp_path, offload.port, "-c", "a.c", "-o", f"{number}.o")
    compile_with(tmp_path, free_port(), "-c", "a.c", "-o", "local.o")
    assert counted(tmp_path) == Compiles(remote=3, local=1)


def test_a_fallback_counts_as_local(tmp_path: Path) -> None:
    assert compile_with(tmp_path, free_port(), "-c", "a.c", "-o", "a.o") == 0
    # Falling back is one attempt, not a loop over the dead host.
    assert (tmp_path / "log").read_text().count("Connection refused") == 1
    assert counted(tmp_path) == Compiles(local=1)


@pytest.mark.parametrize("up", [True, False])
def test_a_rejected_source_counts_as_failed(tmp_path: Path, offload: Offload, up: bool) -> None:
    port = offload.port if up else free_port()
    assert compile_with(tmp_path, port, "-c", "a.c", "-o", "a.o", source="int f( {\n") != 0
    assert counted(tmp_path) == Compiles(failed=1)


def test_a_link_is_not_counted(tmp_path: Path, offload: Offload) -> None:
    assert compile_with(tmp_path, offload.port, "-c", "a.c", "-o", "a.o") == 0
    assert compile_with(tmp_path, offload.port, "-shared", "a.o", "-o", "a.so") == 0
    assert compile_with(tmp_path, offload.port, "-shared", "-fPIC", "a.c", "-o", "b.so") == 0
    assert counted(tmp_path) == Compiles(remote=1)


def test_the_logs_of_parallel_compiles_mix(tmp_path: Path, offload: Offload) -> None:
    compile_with(tmp_path, offload.port, "-c", "a.c", "-o", "a.o")
    first = (tmp_path / "log").read_text().splitlines()
    second = [re.sub(r"^distcc\[\d+\]", "distcc[1]", line) for line in first]
    mixed = "\n".join(line for pair in zip(first, second, strict=True) for line in pair)
    assert count(mixed) == Compiles(remote=2)


def test_an_empty_or_strange_log_counts_nothing() -> None:
    assert count("") == count("distcc: what\nERROR: compile x on y failed\n\n") == Compiles()


def test_a_node_is_told_the_hosts_address_and_slots(offload: Offload) -> None:
    assert offload.hosts == f"10.0.2.2:{offload.port}/2"


def test_the_daemon_runs_nothing_but_the_compiler(tmp_path: Path, offload: Offload) -> None:
    (tmp_path / "a.c").write_text("int f(void) { return 1; }\n")
    (tmp_path / "mine").symlink_to("/usr/bin/gcc")
    env = {"PATH": os.environ["PATH"], "DISTCC_HOSTS": f"127.0.0.1:{offload.port}", "DISTCC_FALLBACK": "0"}
    env |= {"DISTCC_DIR": str(tmp_path), "HOME": str(tmp_path), "DISTCC_BACKOFF_PERIOD": "1"}

    def status(program: str) -> int:
        argv = ["distcc", program, "-c", "a.c", "-o", "a.o"]
        return subprocess.run(argv, env=env, cwd=tmp_path, capture_output=True, timeout=60, check=False).returncode

    assert status("/usr/bin/gcc") == 0
    (tmp_path / "a.o").unlink()
    assert status(str(tmp_path / "mine")) != 0
    assert not (tmp_path / "a.o").exists()


def test_distccd_is_gone_after_the_context(public_path: Path) -> None:
    groups: list[int] = []
    with offloading(host_sandbox(), CHOST, public_path / "run", port=0, slots=2, own=groups.append) as offload:
        assert len(members(groups[0])) > 1
    assert eventually(lambda: not members(groups[0]))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", offload.port), timeout=5).close()


def test_distccd_is_gone_after_an_error(public_path: Path) -> None:
    groups: list[int] = []
    with (
        pytest.raises(KeyError),
        offloading(host_sandbox(), CHOST, public_path / "run", port=0, slots=2, own=groups.append),
    ):
        raise KeyError
    assert eventually(lambda: not members(groups[0]))


def test_only_loopback_is_listened_on(offload: Offload) -> None:
    wanted = f"{offload.port:04X}"
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    rows = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
    addresses = {row[1].split(":")[0] for row in rows if row[1].endswith(f":{wanted}") and row[3] == "0A"}
    assert addresses == {"0100007F"}


def test_on_a_trusted_network_it_serves_those_who_are_named_and_nobody_else(public_path: Path) -> None:
    network = Interface("127.0.0.2", ("127.0.0.0/8",))
    with offloading(host_sandbox(), CHOST, public_path / "a", port=0, slots=1, interface=network) as offload:
        assert socket.create_connection(("127.0.0.2", offload.port), timeout=5).close() is None
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", offload.port), timeout=5).close()
    others = Interface("127.0.0.2", ("192.0.2.1",))
    with (
        pytest.raises(MachineError, match="distccd does not compile"),
        offloading(host_sandbox(), CHOST, public_path / "b", port=0, slots=1, interface=others),
    ):
        pytest.fail("a stranger compiled there")


def test_a_port_in_use_is_the_users_to_change(public_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with (
            pytest.raises(InputError, match=rf"port {port} .*distcc\.port"),
            offloading(host_sandbox(), CHOST, public_path / "run", port=port, slots=1),
        ):
            pytest.fail("it never started")
