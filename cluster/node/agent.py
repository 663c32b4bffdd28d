"""Commands and files in a node, through guest/agent at the other end of a virtio serial port.

The host has the socket and QEMU connects to it. Requests are JSON objects, one a line; what comes
back are frames: a kind (one byte), the payload's length (four bytes, network order), the payload.
`o` is output; `x` ends the answer and has the exit status.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Self

from cluster.errors import BuildFailed, NodeLost
from cluster.node.shell import Patience

_POLL_S = 0.5
_CHUNK = 1 << 18
_HEAD = struct.Struct("!cI")
_MOST = 1 << 20  # bytes of a frame; the agent's own have at most 64 KiB
_ENTROPY = 64  # bytes


def frames(held: bytearray) -> Iterator[tuple[bytes, bytes]]:
    """Take the whole frames, each a kind and a payload, off the front of `held`. Raises NodeLost for nonsense."""
    while len(held) >= _HEAD.size:
        kind, size = _HEAD.unpack_from(held)
        if kind not in (b"o", b"x") or size > _MOST:
            raise NodeLost("the node's agent does not speak its protocol", repr(bytes(held[:16])))
        end = _HEAD.size + size
        if len(held) < end:
            return
        payload = bytes(held[_HEAD.size : end])
        del held[:end]
        yield kind, payload


class Agent:
    """The agent of the node whose QEMU connects to the socket at `path`; listens before QEMU starts."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._connection: socket.socket | None = None

    def wake(self, *, deadline_s: float) -> None:
        """Set the node's clock, give it random numbers of its own. Raises NodeLost if it does not answer."""
        try:
            self._listener.settimeout(deadline_s)
            self._connection, _ = self._listener.accept()
        except OSError as error:
            raise NodeLost("QEMU does not connect to the agent's socket", str(error)) from error
        request = {"do": "wake", "clock": time.time(), "entropy": os.urandom(_ENTROPY).hex()}
        try:
            status = self._ask(request, Patience(deadline_s, deadline_s), lambda data: None)
        except BuildFailed as error:
            raise NodeLost("the node's agent does not answer", error.what) from error
        if status:
            raise NodeLost("the node cannot set its clock", f"status {status}")

    def run(self, command: str, *, total_s: float, silence_s: float, output: Callable[[bytes], object]) -> int:
        """Run a shell command; as in `Shell`."""
        return self._ask({"do": "run", "command": command}, Patience(total_s, silence_s), output)

    def fetch(self, remote: PurePosixPath, local: Path, *, deadline_s: float) -> None:
        """Copy a file of the node; as in `Shell`."""
        part = local.with_name(local.name + ".part")
        try:
            with part.open("wb") as stream:
                request = {"do": "fetch", "path": str(remote)}
                status = self._ask(request, Patience(deadline_s, deadline_s), stream.write)
            if status:
                raise NodeLost(f"cannot fetch {remote} from the node", os.strerror(status))
        except BuildFailed as error:  # it is not the package that is slow here
            raise NodeLost(f"cannot fetch {remote} from the node", error.what) from error
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        part.rename(local)

    def _ask(self, request: Mapping[str, object], patience: Patience, output: Callable[[bytes], object]) -> int:
        """Send `request`, pass its output on, return its status."""
        connection = self._connection
        if connection is None:
            raise NodeLost("the node's agent has not been woken")
        held = bytearray()
        try:
            connection.settimeout(_POLL_S)
            connection.sendall(json.dumps(request).encode() + b"\n")
            while True:
                patience.check()
                try:
                    data = connection.recv(_CHUNK)
                except TimeoutError:
                    continue
                if not data:
                    raise NodeLost("the connection to the node broke")
                held += data
                for kind, payload in frames(held):
                    if kind == b"x":
                        return int(payload)
                    patience.heard()
                    output(payload)
        except (OSError, ValueError) as error:
            raise NodeLost("the connection to the node broke", str(error)) from error

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
