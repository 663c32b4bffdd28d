"""What a node takes of its host."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.model import Usage
from cluster.node import usage

BUSY = """
import time
while time.process_time() < 0.2: pass
held = bytearray(b"x" * (64 << 20))
del held
print("done", flush=True)
input()
"""


@contextmanager
def having_been_busy() -> Iterator[int]:
    """A process that has computed for 0.2 s and had 64 MiB, and now waits."""
    with subprocess.Popen([sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child.pid
        child.communicate(b"\n")


def test_a_process_is_asked_while_it_lives(tmp_path: Path) -> None:
    with having_been_busy() as pid:
        found = usage.of(pid, tmp_path)
    assert found.cpu_s is not None
    assert found.memory_mib is not None
    assert found.cpu_s >= 0.2
    assert found.memory_mib >= 64  # though it has given that back
    assert usage.of(pid, tmp_path) == Usage(disk_mib=0.0)


def test_only_what_is_allocated_takes_disk(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below/data").write_bytes(b"x" * (3 << 20))
    with (tmp_path / "sparse").open("wb") as stream:
        stream.truncate(1 << 30)
    (tmp_path / "away").symlink_to("/usr")
    (tmp_path / "link").symlink_to(tmp_path / "below")
    disk = usage.of(0, tmp_path).disk_mib
    assert disk is not None
    assert 3 <= disk < 4
    assert usage.of(0, tmp_path / "link").disk_mib == usage.of(0, tmp_path / "below").disk_mib
