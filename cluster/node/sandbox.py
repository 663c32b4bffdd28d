"""Run a compiler on the host as if it were in the node: its root is the node's, its build tree a copy.

The compiler sees a sealed root, read-only, and the files of one request, and nothing else: no
other file of the host, no network, no other process. bubblewrap makes that without root.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from cluster.errors import ClusterError, MachineError
from cluster.process import find_program

BUILD_PLACES: Final = (PurePosixPath("/var/tmp"), PurePosixPath("/tmp"))
"""The directories of a node that are part of its build tree, and of no sealed root."""
_MEMORY_BYTES = 4 << 30
_FILE_BYTES = 1 << 30
_USER = 1000  # any but root, as which distccd does not serve


class Unfinished(ClusterError):
    """A compiler did not end in time."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a program in the sandbox ended."""

    status: int
    """128 and the signal if a signal ended it."""
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A root made of directories of the host, by the places where the compiler sees them."""

    binds: tuple[tuple[Path, PurePosixPath], ...]
    environment: Mapping[str, str]
    """Of every program that runs in it."""

    def host_path(self, path: PurePosixPath) -> Path | None:
        """Where the sealed file `path` is on the host; None if it is in no sealed directory."""
        wanted = str(path)
        for source, place in self.binds:
            prefix = str(place).rstrip("/")  # as text, because pathlib is slow and this is asked often
            if wanted == prefix or wanted.startswith(f"{prefix}/"):
                return source / wanted[len(prefix) :].lstrip("/")
        return None

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: PurePosixPath,
        tree: Path,
        environment: Mapping[str, str],
        deadline_s: float,
    ) -> Ran:
        """Run `argv` in `cwd` over the build tree `tree`, a directory with the BUILD_PLACES in it.

        Raises Unfinished after `deadline_s` seconds, when all its processes are gone.
        """
        words = self.command(tree, cwd, environment)
        child = subprocess.Popen(
            [*words, *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            stdout, stderr = child.communicate(timeout=deadline_s)
        except subprocess.TimeoutExpired as error:
            raise Unfinished(f"{argv[0]} did not end within {deadline_s:g} s") from error
        finally:
            if child.poll() is None:  # the sandbox's processes die with its first
                os.killpg(child.pid, signal.SIGKILL)
                child.communicate()
        return Ran(child.returncode if child.returncode >= 0 else 128 - child.returncode, stdout, stderr)

    def command(
        self,
        tree: Path,
        cwd: PurePosixPath | None,
        environment: Mapping[str, str],
        *,
        shared: Sequence[Path] = (),
        network: bool = False,
    ) -> list[str]:
        """The words that go before a command to run it as `run` does, with the host's network if wanted.

        It sees the host's directories `shared`, and may write to them, in their own places, which a sealed
        root is to have. Without `cwd` it runs where its caller is, in one of these.
        """
        words = [
            find_program("prlimit", "util-linux"),
            *[f"--as={_MEMORY_BYTES}", f"--fsize={_FILE_BYTES}", "--core=0"],
            find_program("bwrap", "bubblewrap"),
            *["--unshare-all", *(["--share-net"] if network else []), "--die-with-parent"],
            *["--cap-drop", "ALL", "--uid", str(_USER), "--gid", str(_USER), "--clearenv"],
        ]
        for name, value in {**self.environment, **environment}.items():
            words += ["--setenv", name, value]
        for source, place in self.binds:
            words += ["--ro-bind", str(source), str(place)]
        for place in BUILD_PLACES:
            words += ["--bind", str(tree / place.relative_to("/")), str(place)]
        for directory in shared:
            words += ["--bind", str(directory), str(directory)]
        words += ["--dev-bind", "/dev/null", "/dev/null"]
        return words if cwd is None else [*words, "--chdir", str(cwd)]


def make_places(tree: Path) -> None:
    """Make the BUILD_PLACES of a new build tree in `tree`, which need not exist."""
    for place in BUILD_PLACES:
        (tree / place.relative_to("/")).mkdir(parents=True)


def works() -> bool:
    """Whether this user may make a sandbox on this machine."""
    try:
        probe = [find_program("bwrap", "bubblewrap"), "--unshare-all", "--ro-bind", "/", "/", "true"]
        return subprocess.run(probe, capture_output=True, check=False, timeout=30).returncode == 0
    except (ClusterError, subprocess.TimeoutExpired, OSError):
        return False


def require() -> None:
    """Raise MachineError if this user may not make a sandbox on this machine."""
    if not works():
        raise MachineError("bwrap cannot make namespaces here", "apt-get install bubblewrap, and allow user namespaces")
