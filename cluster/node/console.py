"""The serial console of a node: QEMU connects to a socket of ours and we read lines."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from cluster.errors import NodeLost

_POLL_S = 0.5
_KEPT = 20_000


class Console:
    """Listens at `path` before QEMU starts, so that no line is missed."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._connection: socket.socket | None = None
        self._seen = ""

    @property
    def seen(self) -> str:
        """The last of what the console printed."""
        return self._seen

    def wait_for(self, lines: tuple[str, ...], *, deadline_s: float, alive: Callable[[], bool]) -> str:
        """The first of `lines` that the console prints.

        Raises NodeLost after `deadline_s` seconds, or as soon as `alive` says that QEMU is gone.
        """
        end = time.monotonic() + deadline_s
        while True:
            found = next((line for line in lines if line in self._seen), None)
            if found is not None:
                return found
            said = self._seen.strip().splitlines()[-3:]
            if time.monotonic() > end:
                raise NodeLost(f"the console did not say {lines[0]!r} within {deadline_s:g} s", " | ".join(said))
            if not self._read() and not alive():
                raise NodeLost("QEMU ended while the node was starting", " | ".join(said))

    def _read(self) -> bool:
        """Take what has come; False if nothing did."""
        try:
            if self._connection is None:
                self._listener.settimeout(_POLL_S)
                self._connection, _ = self._listener.accept()
                self._connection.settimeout(_POLL_S)
            data = self._connection.recv(65536)
        except OSError:  # a time-out above all
            return False
        if not data:
            # The other end closed: waiting for another is what keeps the caller from spinning.
            self._connection.close()
            self._connection = None
            return False
        self._seen = (self._seen + data.decode(errors="replace"))[-_KEPT:]
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._connection is not None:
            self._connection.close()
        self._listener.close()
