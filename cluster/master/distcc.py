"""The compile offload: a distccd for one target, proof that it works, and counts from its clients' logs."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import InputError, MachineError
from cluster.model import Compiles
from cluster.process import Child, find_program, run
from cluster.target import Target

_START_S = 10.0
_PROBE_S = 30.0
_C_NAMES = ("gcc", "cc", "c99", "c89")
_CXX_NAMES = ("g++", "c++")

_FINISHED = re.compile(r"^distcc\[\d+\] (?P<error>ERROR: )?compile .* on (?P<host>\S+) (completed ok|failed)")
_COMPILE = re.compile(r"^distcc\[(?P<pid>\d+)\] compile from ")
_PID = re.compile(r"^distcc\[(?P<pid>\d+)\]")


@dataclass(frozen=True, slots=True)
class Offload:
    """Where nodes send their compiles: distcc's host words as a node sees them, and slots."""

    port: int
    slots: int
    compiler: str
    """`-dumpfullversion` of the cross compiler."""

    @property
    def hosts(self) -> str:
        """DISTCC_HOSTS for a node; 10.0.2.2 is the host in QEMU's user network."""
        return f"10.0.2.2:{self.port}/{self.slots}"


def compiler_names(prefix: str, major: str) -> dict[str, str]:
    """Every name the node's compiler has, with the host's cross compiler for it."""
    names: dict[str, str] = {}
    for plain, cross in ((_C_NAMES, "gcc"), (_CXX_NAMES, "g++")):
        for name in plain:
            names[name] = f"{prefix}{cross}"
        for name in (cross, f"{cross}-{major}"):
            names[name] = names[f"{prefix}{name}"] = f"{prefix}{cross}"
    return names


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


def cross_compiler(target: Target) -> Path:
    """The host's cross C compiler. MachineError names the packages when it is missing."""
    found = shutil.which(f"{target.cross.prefix}gcc")
    cxx = shutil.which(f"{target.cross.prefix}g++")
    if found is None or cxx is None:
        missing = f"{target.cross.prefix}{'gcc' if found is None else 'g++'}"
        raise MachineError(
            f"the cross compiler {missing} for target {target.name} is missing",
            f"apt-get install {' '.join(target.cross.packages)}, or set distcc.enabled = false",
        )
    return Path(found)


def compiler_version(compiler: Path) -> str:
    """The full version of a gcc."""
    return run([compiler, "-dumpfullversion"], deadline_s=_PROBE_S).strip()


@contextmanager
def offloading(
    target: Target, directory: Path, *, port: int, slots: int, own: Callable[[int], None] = lambda pgid: None
) -> Iterator[Offload]:
    """Run a distccd for `target` on loopback, and end it on leaving.

    `directory` takes its log and the links to the cross compiler, and every user must be able
    to pass into it: distccd started by root becomes another user. `port` 0 is any free one.
    `own` is told the process group.
    Raises MachineError when distccd or the cross compiler is missing or one file cannot be
    compiled through it, InputError when `port` is in use.
    """
    compiler = cross_compiler(target)
    version = compiler_version(compiler)
    links = _link_compilers(target, directory / "bin", version.split(".")[0])
    port = _claim_port(port)
    temporary = directory / "tmp"
    temporary.mkdir(exist_ok=True)
    temporary.chmod(0o1777)
    with Child(
        _argv(port, slots),
        log_path=directory / "distccd.log",
        env={
            "PATH": str(links),
            "TMPDIR": str(temporary),
            "DISTCC_CMDLIST": str(_command_list(links)),
            "DISTCC_CMDLIST_NUMWORDS": "1",
        },
        orphaned=signal.SIGTERM,  # on which it ends its workers, that would go on to listen
    ) as child:
        own(child.pid)
        _wait_until_listening(child, port)
        _probe(target, directory, port)
        yield Offload(port=port, slots=slots, compiler=version)


def _argv(port: int, slots: int) -> list[str | Path]:
    daemon = [find_program("distccd", "distcc"), "--no-detach", "--daemon", "--log-stderr", "--log-level", "info"]
    return [*daemon, "--listen", "127.0.0.1", "--allow", "127.0.0.1", "--port", str(port), "--jobs", str(slots)]


def _link_compilers(target: Target, links: Path, major: str) -> Path:
    """A directory that holds the cross compiler under the node's names, and nothing else."""
    links.mkdir(parents=True, exist_ok=True)
    for name, cross in compiler_names(target.cross.prefix, major).items():
        link = links / name
        link.unlink(missing_ok=True)
        link.symlink_to(Path(find_program(cross, " ".join(target.cross.packages))).resolve())
    return links


def _command_list(links: Path) -> Path:
    """distccd's list of the programs that a client may name."""
    path = links.parent / "commands"
    path.write_text("".join(f"{links}/{name.name}\n" for name in sorted(links.iterdir())))
    return path


def _claim_port(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(
                f"port {port} for distccd is in use", "set distcc.port to another one, or 0 for any"
            ) from error
        found: int = probe.getsockname()[1]
        return found


def _wait_until_listening(child: Child, port: int) -> None:
    end = time.monotonic() + _START_S
    while not child.ended and time.monotonic() < end:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise MachineError("distccd did not start", child.why())


def _probe(target: Target, directory: Path, port: int) -> None:
    """Compile one file through distccd and look at what came back."""
    source, result = directory / "probe.c", directory / "probe.o"
    source.write_text("int probe(void) { return 42; }\n")
    env = {
        "PATH": f"{directory / 'bin'}:/usr/bin:/bin",
        "DISTCC_HOSTS": f"127.0.0.1:{port}",
        "DISTCC_FALLBACK": "0",
        "DISTCC_DIR": str(directory),
        "HOME": str(directory),
    }
    argv: list[str | Path] = [find_program("distcc", "distcc"), f"{target.cross.prefix}gcc", "-c", source, "-o", result]
    ended = subprocess.run(argv, env=env, capture_output=True, stdin=subprocess.DEVNULL, timeout=_PROBE_S, check=False)
    if ended.returncode or result.read_bytes()[:4] != b"\x7fELF":
        raise MachineError(
            "distccd does not compile", ended.stderr.decode(errors="replace").strip().replace("\n", " | ")
        )
