"""Asking the kernel about processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def alive(pid: int) -> bool:
    """Whether `pid` runs; one that is only waiting to be reaped does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def members(pgid: int) -> set[int]:
    """The running processes of a process group."""
    found = set()
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            stat = (directory / "stat").read_text()
        except OSError:
            continue
        if stat.rpartition(")")[2].split()[2] == str(pgid) and alive(int(directory.name)):
            found.add(int(directory.name))
    return found


def eventually(condition: Callable[[], bool], deadline_s: float = 60.0) -> bool:
    """Whether `condition` becomes true; the kernel ends a killed process a moment after kill(2)."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
