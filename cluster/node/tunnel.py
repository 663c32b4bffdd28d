"""What an ssh tunnel does on this side: connections to a port, and bytes both ways between two streams."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

_CHUNK = 65536
_LOOPBACK = "127.0.0.1"
_CONNECT_S = 10.0


class Stream(Protocol):
    """A socket, or a channel of ssh, which is used like one."""

    def recv(self, count: int, /) -> bytes:
        """Up to `count` bytes, none at the end."""

    def sendall(self, data: bytes, /) -> object:
        """Send all of it."""

    def shutdown(self, how: int, /) -> object:
        """End one direction, or both."""

    def close(self) -> object:
        """End it."""


def join(one: Stream, other: Stream) -> None:
    """Carry what comes from each to the other, in threads of their own, until both have ended or one breaks."""
    left = threading.Semaphore(1)
    for source, sink in ((one, other), (other, one)):
        threading.Thread(target=_carry, args=(source, sink, left), daemon=True).start()


def _carry(source: Stream, sink: Stream, other_goes_on: threading.Semaphore) -> None:
    try:
        while data := source.recv(_CHUNK):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
        if other_goes_on.acquire(blocking=False) and not getattr(source, "closed", False):
            return  # the other direction may still have something to carry, and closes then
    except (OSError, EOFError):
        pass
    for stream in (source, sink):
        with suppress(OSError, EOFError):
            stream.shutdown(socket.SHUT_RDWR)  # wakes whoever reads it
        with suppress(OSError, EOFError):
            stream.close()


def reach(port: int) -> socket.socket | None:
    """A connection to `port` of this machine's loopback; None if nobody listens."""
    try:
        found = socket.create_connection((_LOOPBACK, port), timeout=_CONNECT_S)
    except OSError:
        return None
    found.settimeout(None)
    return found


@contextmanager
def listening(open_other: Callable[[tuple[str, int]], Stream]) -> Iterator[int]:
    """A port of this machine's loopback, each connection to which is joined to what `open_other` opens for its peer."""
    with socket.create_server((_LOOPBACK, 0)) as server:
        threading.Thread(target=_accept, args=(server, open_other), daemon=True).start()
        try:
            yield server.getsockname()[1]
        finally:
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in accept(2)


def _accept(server: socket.socket, open_other: Callable[[tuple[str, int]], Stream]) -> None:
    while True:
        try:
            came, peer = server.accept()
        except OSError:
            return
        threading.Thread(target=_lead, args=(came, peer, open_other), daemon=True).start()


def _lead(came: socket.socket, peer: tuple[str, int], open_other: Callable[[tuple[str, int]], Stream]) -> None:
    try:
        other = open_other(peer)
    except (OSError, EOFError):
        came.close()
        return
    join(came, other)
