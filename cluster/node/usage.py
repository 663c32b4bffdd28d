"""What a node takes of its host, as the host sees it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from cluster.model import Usage

_MIB = 1 << 20
_BLOCK = 512  # bytes of st_blocks, whatever the file system's own are (stat(2))


def of(pid: int, directory: Path) -> Usage:
    """What process `pid`, which runs, has used so far, and the files of `directory` take now.

    A process that is gone has None for CPU and memory.
    """
    with suppress(OSError, KeyError):
        return Usage(round(_cpu_s(pid), 2), round(_peak_mib(pid), 1), _disk_mib(directory))
    return Usage(disk_mib=_disk_mib(directory))


def of_all(pid: int, directory: Path) -> Usage:
    """The same of process `pid`, which may have ended but not been waited for, with all that it has waited for.

    The most memory that these had at once the kernel does not know.
    """
    with suppress(OSError):
        return Usage(round(_cpu_s(pid) + _cpu_s(pid, first=16), 2), disk_mib=_disk_mib(directory))
    return Usage(disk_mib=_disk_mib(directory))


def _cpu_s(pid: int, first: int = 14) -> float:
    """CPU seconds of all threads of a process, in user and kernel mode.

    Those are fields 14 and 15 of proc(5); of children that have been waited for, 16 and 17.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[first - 3 : first - 1])) / os.sysconf("SC_CLK_TCK")


def _peak_mib(pid: int) -> float:
    """The most memory that a process had at once, what it shares with others included."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines)
    return int(values["VmHWM"].split()[0]) / 1024


def _disk_mib(directory: Path) -> float:
    """What is allocated to the files below `directory`; holes of sparse ones take nothing."""
    blocks = 0
    for place, _, names in os.walk(directory):
        for name in names:
            with suppress(FileNotFoundError):  # others may still write there, and remove
                blocks += Path(place, name).lstat().st_blocks
    return round(blocks * _BLOCK / _MIB, 1)
