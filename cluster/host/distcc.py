"""The compile offload: a distccd for one target, proof that it works, and counts from its clients' logs."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from cluster.errors import InputError, MachineError
from cluster.model import Compiles
from cluster.node.sandbox import Sandbox, make_places
from cluster.process import Child, find_program

_START_S = 10.0
_PROBE_S = 30.0
_COMPILERS = (PurePosixPath("/usr/bin"),)
_COMPILER = re.compile(r"(.+-)?(gcc|g\+\+|cc|c\+\+)(-\d+)?")

_FINISHED = re.compile(r"^distcc\[\d+\] (?P<error>ERROR: )?compile .* on (?P<host>\S+) (completed ok|failed)")
_COMPILE = re.compile(r"^distcc\[(?P<pid>\d+)\] compile from ")
_PID = re.compile(r"^distcc\[(?P<pid>\d+)\]")


@dataclass(frozen=True, slots=True)
class Interface:
    """Where distccd listens, and to whom: loopback, unless the user says that a network is to be trusted.

    distccd knows nobody: who reaches it may run its compilers on any source.
    """

    address: str = "127.0.0.1"
    allowed: tuple[str, ...] = ("127.0.0.1",)
    """The addresses, or networks as ADDRESS/BITS, of those whom it serves; on a network, the members of the pool."""


LOOPBACK: Final = Interface()


@dataclass(frozen=True, slots=True)
class Offload:
    """Where nodes send their compiles: distcc's host words as a node sees them, and slots."""

    port: int
    slots: int
    lzo: bool = False
    """Whether they compress what they send."""

    @property
    def hosts(self) -> str:
        """DISTCC_HOSTS for a node; 10.0.2.2 is the host in QEMU's user network."""
        return f"10.0.2.2:{self.port}/{self.slots}{',lzo' if self.lzo else ''}"


def count(log: str) -> Compiles:
    """Count compiles in what distcc wrote with DISTCC_LOG at its default level.

    Only invocations that compile one file to an object count (distcc's line `compile from`);
    links and configure's compile-and-link runs never leave the node. A compiler that rejects
    its source, as configure asks it to, counts as failed.
    """
    compiling: set[str] = set()
    remote = local = failed = 0
    for line in log.splitlines():
        pid = _PID.match(line)
        if pid and _COMPILE.match(line):
            compiling.add(pid["pid"])
            continue
        finished = _FINISHED.match(line)
        if not (finished and pid and pid["pid"] in compiling):
            continue
        compiling.discard(pid["pid"])
        if finished["error"]:
            failed += 1
        elif finished["host"] == "localhost":
            local += 1
        else:
            remote += 1
    return Compiles(remote, local, failed)


@contextmanager
def offloading(
    sandbox: Sandbox,
    chost: str,
    directory: Path,
    *,
    port: int,
    slots: int,
    interface: Interface = LOOPBACK,
    spare: int = 0,
    own: Callable[[int], None] = lambda pgid: None,
) -> Iterator[Offload]:
    """Run `sandbox`'s distccd for its compilers, of `chost`, on `interface`, and end it on leaving.

    `directory`, which must not exist, takes its files. `port` 0 is any free one. It serves `spare` more at once
    than `slots`: what other hosts probe it with is not to wait for compiles. `own` is told the process group.
    Raises MachineError when distccd does not start or one file cannot be compiled through it, InputError when
    `port` is in use.
    """
    make_places(directory)
    port = _claim_port(interface.address, port)
    commands = PurePosixPath("/tmp/commands")
    names = (f"{place}/{name}\n" for place in _COMPILERS for name in _names_in(sandbox, place))
    (directory / commands.relative_to("/")).write_text("".join(names))
    environment = {
        "PATH": ":".join(map(str, _COMPILERS)),
        "DISTCC_CMDLIST": str(commands),
        "DISTCC_CMDLIST_NUMWORDS": "1",
    }
    words = sandbox.command(directory, PurePosixPath("/tmp"), environment, network=True)
    with Child([*words, *_argv(interface, port, slots + spare)], log_path=directory / "distccd.log") as child:
        own(child.pid)
        _wait_until_listening(child, interface.address, port)
        _probe(f"{chost}-gcc", directory, interface.address, port)
        yield Offload(port=port, slots=slots)


def _names_in(sandbox: Sandbox, place: PurePosixPath) -> Iterator[str]:
    """The compilers in a directory of the sandbox."""
    directory = sandbox.host_path(place)
    if directory is not None and directory.is_dir():
        yield from (path.name for path in directory.iterdir() if _COMPILER.fullmatch(path.name))


def _argv(interface: Interface, port: int, jobs: int) -> list[str]:
    daemon = ["distccd", "--no-detach", "--daemon", "--log-stderr", "--log-level", "info"]
    allowed = [word for address in interface.allowed for word in ("--allow", address)]
    return [*daemon, "--listen", interface.address, *allowed, "--port", str(port), "--jobs", str(jobs)]


def _claim_port(address: str, port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise InputError(
                f"port {port} for distccd is in use", "set distcc.port to another one, or 0 for any"
            ) from error
        found: int = probe.getsockname()[1]
        return found


def _wait_until_listening(child: Child, address: str, port: int) -> None:
    end = time.monotonic() + _START_S
    while not child.ended and time.monotonic() < end:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((address, port)) == 0:
                return
        time.sleep(0.05)
    raise MachineError("distccd did not start", child.why())


def _probe(compiler: str, directory: Path, address: str, port: int) -> None:
    """Compile one file through distccd and look at what came back."""
    source, result = directory / "probe.i", directory / "probe.o"
    source.write_text("int probe(void) { return 42; }\n")
    env = {
        "PATH": "/usr/bin:/bin",
        "DISTCC_HOSTS": f"{address}:{port}",
        "DISTCC_FALLBACK": "0",
        "DISTCC_DIR": str(directory),
        "HOME": str(directory),
    }
    argv: list[str | Path] = [find_program("distcc", "distcc"), compiler, "-c", source, "-o", result]
    ended = subprocess.run(argv, env=env, capture_output=True, stdin=subprocess.DEVNULL, timeout=_PROBE_S, check=False)
    if ended.returncode or result.read_bytes()[:4] != b"\x7fELF":
        raise MachineError(
            "distccd does not compile", ended.stderr.decode(errors="replace").strip().replace("\n", " | ")
        )
