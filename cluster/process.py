"""Child processes: one way to run a command to its end, one to keep a child and end it."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Self

from cluster.errors import CommandFailed, MachineError

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_TAIL_LINES = 6
_libc = ctypes.CDLL(None, use_errno=True)


def _die_with_parent(signal_number: int = signal.SIGKILL) -> None:
    """Ask the kernel to end this child when the thread that started it is gone (prctl(2)).

    A master killed with SIGKILL runs no handler of its own; this is what ends its nodes.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal_number)


def find_program(name: str, package: str) -> str:
    """The path of program `name`; MachineError names the Debian package that has it."""
    return find_programs({name: package})[name]


def find_programs(packages: Mapping[str, str]) -> dict[str, str]:
    """The paths of the programs that are the keys of `packages`; MachineError names the packages of all missing."""
    paths = {name: shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin") for name in packages}
    missing = [name for name, path in paths.items() if path is None]
    if missing:
        what = f"program {missing[0]} is missing" if len(missing) == 1 else f"programs {', '.join(missing)} are missing"
        wanted = dict.fromkeys(packages[name] for name in missing)
        raise MachineError(what, f"apt-get install {' '.join(wanted)}")
    return {name: path for name, path in paths.items() if path is not None}


def tail(text: str, lines: int = _TAIL_LINES) -> str:
    """The last non-empty lines of `text`, joined for a one-line message."""
    kept = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(kept[-lines:])


def run(
    argv: Sequence[str | Path],
    *,
    deadline_s: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    output: IO[bytes] | None = None,
) -> str:
    """Run `argv` to its end with closed stdin and return its stdout.

    `output` receives both streams instead (then "" is returned). Raises CommandFailed on a
    non-zero exit, on a missing program and after `deadline_s` seconds, when the whole
    process group is killed.
    """
    words = [str(word) for word in argv]
    log.debug("run: %s", shlex.join(words))
    try:
        child = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output or subprocess.PIPE,
            stderr=subprocess.STDOUT if output else subprocess.PIPE,
            env=None if env is None else dict(env),
            cwd=cwd,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    except OSError as error:
        raise CommandFailed(f"cannot run {words[0]}", str(error.strerror)) from error
    try:
        out, err = child.communicate(timeout=deadline_s)
    except subprocess.TimeoutExpired as error:
        _kill_group(child.pid)
        child.communicate()
        raise CommandFailed(f"{words[0]} did not end within {deadline_s:g} s", shlex.join(words)) from error
    except BaseException:
        _kill_group(child.pid)
        child.wait()
        raise
    if child.returncode:
        said = (err or out or b"").decode(errors="replace")
        raise CommandFailed(f"{words[0]} failed with exit status {child.returncode}", tail(said) or shlex.join(words))
    return (out or b"").decode(errors="replace")


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


class Child:
    """A long-lived child process in its own process group, ended on leaving the context.

    Its output goes to `log_path`. The process group dies with the context. The child, though
    not its own children, gets the signal `orphaned` when the thread that started it is gone:
    a program that has children and ends them on SIGTERM is to be given that.
    """

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        log_path: Path,
        env: Mapping[str, str] | None = None,
        orphaned: signal.Signals = signal.SIGKILL,
    ) -> None:
        self.argv = [str(word) for word in argv]
        self.log_path = log_path
        log.debug("start: %s", shlex.join(self.argv))
        with log_path.open("ab") as stream:
            try:
                self._process = subprocess.Popen(
                    self.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=stream,
                    env=None if env is None else dict(env),
                    start_new_session=True,
                    preexec_fn=lambda: _die_with_parent(orphaned),
                )
            except OSError as error:
                raise CommandFailed(f"cannot run {self.argv[0]}", str(error.strerror)) from error

    @property
    def pid(self) -> int:
        """Process id, which is also the id of its process group."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the child is gone."""
        return self._process.poll() is not None

    def why(self) -> str:
        """How it ended, with the end of its log, for a message."""
        said = tail(self.log_path.read_text(errors="replace"), 3) if self.log_path.exists() else ""
        return f"exit status {self._process.poll()}{': ' + said if said else ''}"

    def wait(self, deadline_s: float | None) -> int:
        """Wait for its end, for ever if there is no deadline; raises subprocess.TimeoutExpired."""
        return self._process.wait(deadline_s)

    def kill(self) -> None:
        """Kill the process group and reap the child."""
        _kill_group(self._process.pid)
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()
