"""What a node offers to its host: commands and files. By ssh (`ssh`), or by the agent of a warm node (`agent`)."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Protocol

from cluster.errors import BuildFailed


class Shell(Protocol):
    """A way to run commands as root of a node."""

    def run(self, command: str, *, total_s: float, silence_s: float, output: Callable[[bytes], object]) -> int:
        """Run `command`, give what it prints to `output` as it comes, return its exit status.

        The status of a command that a signal ended is 128 + the signal, as a shell has it.

        Raises BuildFailed when it runs for `total_s` or prints nothing for `silence_s`
        seconds, and NodeLost when the connection breaks.
        """
        ...

    def fetch(self, remote: PurePosixPath, local: Path, *, deadline_s: float) -> None:
        """Copy a file of the node to `local`, whole or not at all. Raises NodeLost."""
        ...


class Patience:
    """How long a command may run, and how long it may say nothing; both in seconds."""

    def __init__(self, total_s: float, silence_s: float) -> None:
        self._total_s, self._silence_s = total_s, silence_s
        self._start = self._last = time.monotonic()

    def heard(self) -> None:
        """It said something."""
        self._last = time.monotonic()

    def check(self) -> None:
        """Raise BuildFailed if it is over."""
        now = time.monotonic()
        if now - self._start > self._total_s:
            raise BuildFailed(f"not done after {self._total_s:g} s", "raise limits.total_s if it is only slow")
        if now - self._last > self._silence_s:
            raise BuildFailed(f"printed nothing for {self._silence_s:g} s", "raise limits.silence_s if it is only slow")
