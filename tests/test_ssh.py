"""ssh to a real sshd on loopback."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
import sshd
from sshd import Server

from cluster.errors import BuildFailed, NodeLost
from cluster.node.qemu import free_port
from cluster.node.ssh import Connection

pytestmark = [pytest.mark.slow, sshd.needed]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with sshd.serving(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture(scope="module")
def shared(server: Server) -> Iterator[Connection]:
    with server.connect() as connection:
        yield connection


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def said(connection: Connection, command: str) -> tuple[int, bytes]:
    chunks: list[bytes] = []
    status = connection.run(command, total_s=30, silence_s=30, output=chunks.append)
    return status, b"".join(chunks)


def test_both_streams_and_the_status_come_back(shared: Connection) -> None:
    status, text = said(shared, "echo out; echo err >&2; exit 7")
    assert status == 7
    assert sorted(text.splitlines()) == [b"err", b"out"]
    assert said(shared, "true") == (0, b"")


def test_output_comes_while_the_command_runs(shared: Connection, tmp_path: Path) -> None:
    # The command waits for a file that is written only once its first line has come.
    go = tmp_path / "go"
    heard: list[bytes] = []

    def output(data: bytes) -> None:
        heard.append(data)
        go.touch()

    script = f"echo first; while [ ! -e {go} ]; do sleep 0.02; done; echo second"
    assert shared.run(script, total_s=30, silence_s=30, output=output) == 0
    assert b"".join(heard) == b"first\nsecond\n"
    assert len(heard) > 1


def test_much_output_is_whole(shared: Connection) -> None:
    status, text = said(shared, "seq 1 200000")
    assert status == 0
    assert text.splitlines()[-1] == b"200000"
    assert len(text) == sum(len(str(n)) + 1 for n in range(1, 200_001))


def test_a_command_that_takes_too_long_is_the_packages_fault(shared: Connection) -> None:
    with pytest.raises(BuildFailed, match=r"not done after 0\.3 s.*limits\.total_s"):
        shared.run("while :; do echo x; sleep 0.05; done", total_s=0.3, silence_s=30, output=lambda data: None)


def test_a_silent_command_is_the_packages_fault(shared: Connection) -> None:
    heard: list[bytes] = []
    with pytest.raises(BuildFailed, match=r"printed nothing for 2 s.*limits\.silence_s"):
        shared.run("echo configuring; exec sleep 30", total_s=60, silence_s=2, output=heard.append)
    assert heard == [b"configuring\n"]


def test_a_command_that_closed_its_output_is_held_to_the_limits(server: Server) -> None:
    with server.connect() as connection, pytest.raises(BuildFailed, match=r"not done after 0\.3 s"):
        connection.run("exec >&- 2>&-; exec sleep 5", total_s=0.3, silence_s=30, output=lambda data: None)


def test_the_connection_serves_after_a_limit(server: Server) -> None:
    with server.connect() as connection:
        with pytest.raises(BuildFailed):
            connection.run("exec sleep 5", total_s=0.1, silence_s=30, output=lambda data: None)
        assert said(connection, "echo marks") == (0, b"marks\n")


def test_another_host_key_is_refused(server: Server) -> None:
    with pytest.raises(NodeLost, match="ssh keys are not the stage's"):
        server.connect(host_key="stranger")


def test_another_identity_is_refused(server: Server) -> None:
    with pytest.raises(NodeLost, match="ssh keys are not the stage's"):
        server.connect(identity="stranger")


def test_nobody_listening_is_a_lost_node(server: Server) -> None:
    nobody = Server(free_port(), server.keys)
    with pytest.raises(NodeLost, match="does not answer on ssh"):
        Connection(nobody.port, host_key=server.keys / "host_key.pub", identity=server.keys / "id", deadline_s=0.2)


def test_a_connection_cut_under_a_command_is_a_lost_node(server: Server) -> None:
    def cut(data: bytes) -> None:
        command, session = map(int, data.split())
        os.kill(session, signal.SIGKILL)
        os.kill(command, signal.SIGKILL)

    with server.connect() as connection:
        with pytest.raises(NodeLost, match="connection to the node broke"):
            connection.run("echo $$ $PPID; exec sleep 30", total_s=30, silence_s=30, output=cut)
        with pytest.raises(NodeLost):
            said(connection, "true")


def test_a_command_killed_by_a_signal_has_failed_and_the_node_is_not_lost(shared: Connection) -> None:
    assert said(shared, "exec sh -c 'kill -9 $$'")[0] == 128 + signal.SIGKILL
    assert said(shared, "true")[0] == 0


def test_fetch_brings_the_whole_file(shared: Connection, empty: Path) -> None:
    content = os.urandom(300_000)
    (empty / "remote").write_bytes(content)
    shared.fetch(PurePosixPath(empty / "remote"), empty / "local", deadline_s=30)
    assert (empty / "local").read_bytes() == content
    assert sorted(path.name for path in empty.iterdir()) == ["local", "remote"]


def test_put_leaves_the_whole_file(shared: Connection, empty: Path) -> None:
    content = os.urandom(300_000)
    (empty / "local").write_bytes(content)
    shared.put(empty / "local", PurePosixPath(empty / "remote"), deadline_s=30)
    assert (empty / "remote").read_bytes() == content
    with pytest.raises(NodeLost, match=r"cannot put .*/missing/remote into the node"):
        shared.put(empty / "local", PurePosixPath(empty / "missing/remote"), deadline_s=30)


def test_fetch_of_a_missing_file_leaves_nothing(shared: Connection, empty: Path) -> None:
    with pytest.raises(NodeLost, match=r"cannot fetch .*/missing from the node"):
        shared.fetch(PurePosixPath(empty / "missing"), empty / "local", deadline_s=30)
    assert not list(empty.iterdir())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # paramiko's, which asks ahead
def test_fetch_over_a_cut_connection_leaves_nothing(server: Server, empty: Path) -> None:
    with (empty / "long").open("wb") as stream:
        stream.truncate(1 << 29)  # sparse, and too long to have come whole before the cut

    def cut(session: int) -> None:
        end = time.monotonic() + 20
        part = empty / "local.part"
        while not (part.exists() and part.stat().st_size) and time.monotonic() < end:
            time.sleep(0.001)
        os.kill(session, signal.SIGKILL)

    with server.connect() as connection:
        _, text = said(connection, "echo $PPID")
        cutter = threading.Thread(target=cut, args=(int(text),), daemon=True)
        cutter.start()
        with pytest.raises(NodeLost, match="cannot fetch"):
            connection.fetch(PurePosixPath(empty / "long"), empty / "local", deadline_s=30)
        cutter.join(30)
    assert [path.name for path in empty.iterdir()] == ["long"]


def test_sshd_itself_was_not_harmed(server: Server) -> None:
    assert shutil.which("sshd", path="/usr/sbin")
    with server.connect() as connection:
        assert said(connection, "echo still here") == (0, b"still here\n")
