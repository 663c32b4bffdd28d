"""Build one package in one node, from the job's disk to the files that come back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from cluster.errors import BuildFailed, NodeLost
from cluster.model import Package, Usage
from cluster.node import disk, usage
from cluster.node import job as jobs
from cluster.node.node import Hardware, Node
from cluster.node.shell import Shell
from cluster.node.warm import started

_FETCH_S = 300.0
_ROOM_MIB = 512  # on the job's disk, for the binpkg


@dataclass(frozen=True, slots=True)
class Limits:
    """When a build is given up, in seconds."""

    total_s: float
    silence_s: float


@dataclass(frozen=True, slots=True)
class Built:
    """What a build leaves behind on the host."""

    binpkg: Path | None
    """None if it failed."""
    phases: tuple[tuple[str, float], ...]
    distcc_log: str
    failure: str = ""
    """The phase that failed and how, in one line."""
    usage: Usage = field(default_factory=Usage)


def phases(marks: str) -> tuple[tuple[str, float], ...]:
    """Seconds per phase from the marks that job/build and job/bashrc wrote.

    A line is NAME SECONDS-SINCE-BOOT; `begin:PHASE` and `end:PHASE` bracket an ebuild phase,
    `prerequisites`, `ebuild` and `end` the steps around them. A phase that did not end is left out.
    `start` is Portage's from the `ebuild` command to the first phase, `between` what it takes from one
    phase to the next, all together: of a whole build nothing is missing.
    """
    times = {name: float(at) for name, _, at in (line.partition(" ") for line in marks.splitlines()) if at}
    begun = {name[6:]: at for name, at in times.items() if name.startswith("begin:")}
    ended = {phase: times[f"end:{phase}"] - at for phase, at in begun.items() if f"end:{phase}" in times}
    first = min(begun.values(), default=0.0)
    spent: dict[str, float] = {}
    if "ebuild" in times:
        spent["prerequisites"] = times["ebuild"] - times["prerequisites"]
        if begun:
            spent["start"] = first - times["ebuild"]
    spent |= ended
    if "end" in times and "install" in ended:
        spent["between"] = times["end:install"] - first - sum(ended.values())
        spent["package"] = times["end"] - times["end:install"]
    return tuple((name, round(seconds, 2)) for name, seconds in spent.items())


def unfinished(marks: str) -> str:
    """The phase in which the marks stop."""
    names = [line.partition(" ")[0] for line in marks.splitlines()]
    open_phases = [name[6:] for name in names if name.startswith("begin:") and f"end:{name[6:]}" not in names]
    if open_phases:
        return open_phases[-1]
    last = names[-1] if names else "start"
    return {"ebuild": "setup", "end:install": "package"}.get(last, last.removeprefix("end:"))


def build(
    package: Package,
    settings: jobs.Settings,
    hardware: Hardware,
    limits: Limits,
    *,
    directory: Path,
    materials: jobs.Materials,
    output: Callable[[bytes], object],
    own: Callable[[int], None],
    entered: Callable[[str], None] = lambda phase: None,
) -> Built:
    """Build `package` in a fresh node whose files are in `directory`.

    The build's output goes to `output` as it comes; `entered` is told of each step. A build
    that fails is a value; NodeLost is raised when the node is at fault.
    """
    entered("job disk")
    content = directory / "job"
    content.mkdir()
    jobs.fill(content, package, settings, materials)
    image = disk.from_directory(content, room_mib=_ROOM_MIB)
    entered("boot")
    with started(hardware, directory, image, own, materials.prerequisites) as node:
        entered("build")
        boot = ("boot", round(node.boot_seconds, 2))
        try:
            failure = _run(node, limits, output)
        except BuildFailed as error:  # a node that hangs may take no other command, and is thrown away
            return Built(None, (boot,), "", str(error), usage.of(node.machine.child.pid, directory))
        entered("results")
        marks = text(node.shell, jobs.OUT / "marks")
        spent = (boot, *phases(marks))
        log = text(node.shell, jobs.OUT / "distcc.log")
        if failure:
            failed = f"{unfinished(marks)}: {failure}"
            return Built(None, spent, log, failed, usage.of(node.machine.child.pid, directory))
        binpkg = directory / f"{package.pf}.gpkg.tar"
        node.shell.fetch(jobs.OUT / "packages" / f"{package.cpv}.gpkg.tar", binpkg, deadline_s=_FETCH_S)
        return Built(binpkg, spent, log, usage=usage.of(node.machine.child.pid, directory))


def _run(node: Node, limits: Limits, output: Callable[[bytes], object]) -> str:
    """Run job/build; returns why it failed, "" if it did not. Raises BuildFailed when it takes too long."""
    # A restored node's kernel may hold blocks of the disk that was there before.
    mount = f"mkdir -p {jobs.MOUNT} && blockdev --flushbufs /dev/vdb && mount -o noatime /dev/vdb {jobs.MOUNT}"
    command = f"{mount} && exec sh {jobs.MOUNT}/build"
    status = node.shell.run(command, total_s=limits.total_s, silence_s=limits.silence_s, output=output)
    if status and node.machine.child.ended:
        raise NodeLost("QEMU ended during the build", node.machine.child.why())
    return f"exit status {status}" if status else ""


def text(shell: Shell, path: PurePosixPath) -> str:
    """A small file of a node, "" if it does not have it."""
    chunks: list[bytes] = []
    shell.run(f"cat {path} 2>/dev/null || :", total_s=60, silence_s=60, output=chunks.append)
    return b"".join(chunks).decode(errors="replace")
