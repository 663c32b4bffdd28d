"""Ways between hosts, through real sshds on loopback."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import sshd
from sshd import Server

from cluster.errors import NodeLost
from cluster.master.hosts.outposts import Outposts, _Line
from cluster.master.hosts.registry import Registry

pytestmark = [pytest.mark.slow, sshd.needed]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with sshd.serving(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def answering() -> Iterator[int]:
    """A port that says hello to each who comes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"hello")

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def heard(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        return connection.recv(16)


def test_a_host_reaches_a_port_of_another_ones_loopback_as_long_as_both_are_connected(
    server: Server, answering: int, tmp_path: Path
) -> None:
    nothing: Any = None
    posts = Outposts(nothing, Registry(tmp_path), print)
    with ExitStack() as one, ExitStack() as other:
        for name, stack in (("one", one), ("other", other)):
            posts._open[name] = _Line(stack.enter_context(server.connect()), stack)
        port = posts.way("one", "other", answering)
        assert port != answering
        assert heard(port) == b"hello"
        assert heard(posts.way("one", "other", answering)) == b"hello"
        other.close()
        assert heard(port) == b""
        del posts._open["other"]
        with pytest.raises(NodeLost, match="no way from one to other"):
            posts.way("one", "other", answering)
