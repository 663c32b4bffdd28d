"""Where things live: the data the package carries, and the user's XDG directories."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import MachineError

_PACKAGE = Path(__file__).resolve().parent


def data(*parts: str) -> Path:
    """The path of a data file or directory (`overlays`, `profiles`, `stage-images`, `ec2`).

    In a wheel they lie under `cluster/data`; in a checkout beside the package.
    """
    installed = _PACKAGE / "data"
    root = installed if installed.is_dir() else _PACKAGE.parent
    return root.joinpath(*parts)


def _xdg(variable: str, default: str) -> Path:
    value = os.environ.get(variable, "")
    base = Path(value) if value.startswith("/") else Path.home() / default
    return base / "portage-cluster"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, made with its directory if missing; waits for whoever has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextmanager
def used(directory: Path) -> Iterator[None]:
    """Keep `directory` from `discard`; as many as like may use it at once."""
    with _opened(directory) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield


def discard(directory: Path) -> None:
    """Remove `directory` with all that is in it, unless somebody uses it."""
    with _opened(directory) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        shutil.rmtree(directory)


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Directories:
    """The directories of one installation.

    state/    journal.sqlite, runs/ID/ (a live run's sockets and disks), status/, logs/, hosts/, ec2/
    cache/    stages/ (system images), qemu/, apt/, distfiles/
    binhosts/ TARGET/ (a PKGDIR with its Packages index)
    """

    state: Path
    cache: Path
    binhosts: Path

    @property
    def logs(self) -> Path:
        """Build logs, one directory per target."""
        return self.state / "logs"

    @property
    def status(self) -> Path:
        """What is known of the latest run of each target and variant."""
        return self.state / "status"

    @property
    def hosts(self) -> Path:
        """What is known of other hosts."""
        return self.state / "hosts"

    @property
    def rentals(self) -> Path:
        """What was rented, and the keys to it."""
        return self.state / "ec2"

    @property
    def journal(self) -> Path:
        """The journal's file."""
        return self.state / "journal.sqlite"

    @property
    def distfiles(self) -> Path:
        """Checked source archives."""
        return self.cache / "distfiles"


def directories(state: Path | None = None) -> Directories:
    """The XDG directories, with `state` in the place of its own if given."""
    return Directories(
        state=(state or _xdg("XDG_STATE_HOME", ".local/state")).absolute(),
        cache=_xdg("XDG_CACHE_HOME", ".cache"),
        binhosts=_xdg("XDG_DATA_HOME", ".local/share") / "binhost",
    )


def free_mib(directory: Path) -> int:
    """MiB free on the file system of `directory`, which is made."""
    directory.mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(directory).free >> 20


def is_memory(directory: Path) -> bool:
    """Whether files in `directory`, which is there, take memory: a tmpfs (proc(5), mountinfo)."""
    device = directory.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    mounts = (line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return any(mount[2] == number and mount[mount.index("-") + 1] == "tmpfs" for mount in mounts)


def runtime() -> Path:
    """What is this user's own and need not outlast the machine's being up."""
    return _xdg("XDG_RUNTIME_DIR", ".cache")


def require_space(directory: Path, need_mib: int, purpose: str) -> None:
    """Raise MachineError unless the file system of `directory` has `need_mib` MiB free."""
    free = free_mib(directory)
    if free < need_mib:
        raise MachineError(
            f"{directory} has {free} MiB free and {purpose} needs {need_mib} MiB",
            "free some space or name another directory with --state, --binhost or XDG_CACHE_HOME",
        )


def publish(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a new file beside `path`, which then takes its name: a reader sees the whole file or none."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    temporary = Path(name)
    try:
        os.fchmod(handle, 0o644)
        os.close(handle)
        write(temporary)
        temporary.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise
