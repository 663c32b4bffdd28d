"""One run of the master: a directory that it owns while it lives, and the sweeping of dead ones.

runs/ID/
    lock        held (flock) as long as the master lives
    children    process groups it started, a line each: PGID START-TIME
    public      the path of its directory under the system's temporary directory
    nodes/      sockets, disks and consoles of its nodes
    results/    the binary package that each node built last
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from cluster.errors import NodeLost

_STARTING = "starting-"
_STARTING_S = 600.0  # an older one has died between two lines


class Run:
    """A live run's directory below `state`/runs, removed with all it holds on leaving."""

    def __init__(self, state: Path) -> None:
        runs = state / "runs"
        runs.mkdir(parents=True, exist_ok=True)
        # Another master sweeps what is called run-* and has no lock: it gets that name with the lock held.
        fresh = Path(tempfile.mkdtemp(prefix=_STARTING, dir=runs))
        self._lock = (fresh / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.directory = fresh.rename(runs / fresh.name.replace(_STARTING, "run-", 1))
        self._writing = threading.Lock()
        self._children: list[tuple[int, str, str]] = []
        self._ended: set[str] = set()
        self._stopped = False
        # distccd started by root becomes a user who cannot pass into root's home.
        self.public = Path(tempfile.mkdtemp(prefix="portage-cluster-"))
        self.public.chmod(0o755)
        (self.directory / "public").write_text(str(self.public))

    def own(self, pgid: int, name: str = "") -> None:
        """Note a process group, of the node `name` if of any, which the next run ends if this one cannot.

        Raises NodeLost when the run is being stopped, or the node has been ended.
        """
        with self._writing:
            if self._stopped:
                raise NodeLost("the run is being stopped")
            if name in self._ended:
                raise NodeLost("the node was abandoned")
            started = _start_time(pgid)
            self._children.append((pgid, started, name))
            with (self.directory / "children").open("a") as stream:
                stream.write(f"{pgid} {started}\n")

    def stop(self) -> None:
        """End every process group of the run, and let no new one start."""
        with self._writing:
            self._stopped = True
            for pgid, started, _ in self._children:
                _end(pgid, started, str(self.public))

    def end(self, name: str) -> None:
        """End every process group of the node `name`, and let no new one start in the directory that it has."""
        with self._writing:
            self._ended.add(name)
            for pgid, started, owner in self._children:
                if owner == name:
                    _end(pgid, started, str(self.public))

    @contextlib.contextmanager
    def node_directory(self, name: str) -> Iterator[Path]:
        """A directory for a node, by a name short enough for sockets (at most 107 bytes)."""
        directory = self.directory / "nodes" / name
        directory.mkdir(parents=True)
        self._ended.discard(name)
        link = self.public / name
        link.symlink_to(directory)
        try:
            yield link
        finally:
            link.unlink(missing_ok=True)
            shutil.rmtree(directory, ignore_errors=True)

    def results(self, name: str) -> Path:
        """An empty directory for what the node `name` leaves behind, there until the next one of that name asks."""
        directory = self.directory / "results" / name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        return directory

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        shutil.rmtree(self.public, ignore_errors=True)
        shutil.rmtree(self.directory, ignore_errors=True)
        self._lock.close()


def _start_time(pid: int) -> str:
    """When a process started (field 22 of /proc/PID/stat), "" if it is gone: tells a reused id."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]


def _end(pgid: int, started: str, mark: str) -> None:
    """Kill a process group, unless its id has become another's.

    A leader that is gone (distccd's dies with its master) cannot tell; a member with `mark`
    in its environment does.
    """
    now = _start_time(pgid)
    if (now == started) if now else _has_member(pgid, mark):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pgid, signal.SIGKILL)


def _has_member(pgid: int, mark: str) -> bool:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if stat.read_text().rpartition(")")[2].split()[2] == str(pgid):
                return mark.encode() in stat.with_name("environ").read_bytes()
    return False


def lives(state: Path, name: str) -> bool:
    """Whether the master of the run whose directory below `state`/runs is called `name` is still there."""
    return not _is_dead(state / "runs" / name)


def _is_dead(run: Path) -> bool:
    try:
        with (run / "lock").open("r+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def sweep(state: Path) -> int:
    """End what dead runs left behind: processes, disks, directories. Returns how many runs."""
    swept = 0
    for start in (state / "runs").glob(f"{_STARTING}*"):
        with contextlib.suppress(OSError):
            if time.time() - start.stat().st_mtime > _STARTING_S:
                shutil.rmtree(start)
    for run in sorted((state / "runs").glob("run-*")):
        if not _is_dead(run):
            continue
        publics = _lines(run / "public")
        for line in _lines(run / "children"):
            pgid, _, started = line.partition(" ")
            if started and publics:
                _end(int(pgid), started, publics[0])
        for public in publics:
            shutil.rmtree(public, ignore_errors=True)
        shutil.rmtree(run, ignore_errors=True)
        swept += 1
    return swept


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
