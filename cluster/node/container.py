"""One package built on this machine's own kernel, in a root of layered directories.

The root is either the host's own, with Portage over it, or a stage's, whose programs run by qemu-user
or, where the host is of the target's architecture, by themselves. Namespaces of
its own let an ordinary user do it, and leave nothing of it in the machine: no mount, no registration.
What a build does to its host's kernel nobody keeps in bounds here, and there is one user: root.
"""

from __future__ import annotations

import os
import platform
import select
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from cluster.errors import BuildFailed, MachineError, NodeLost
from cluster.model import Package, Usage
from cluster.node import job as jobs
from cluster.node import rootfs, roots, usage
from cluster.node.build import Built, Limits, phases, unfinished
from cluster.node.installed import write_installed
from cluster.node.roots import Root
from cluster.node.shell import Patience
from cluster.process import Child, find_program, run, tail
from cluster.target import Target

_PROBE_S = 60.0
_POLL_S = 0.2
_HOST_LAYERS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc", "opt")
_BINFMT = Path("/usr/lib/binfmt.d")
COMPILE_SOCKET, COMPILE_CLIENTS = "run/compile", "run/compilers"
"""Where a container has the compile server's socket and its clients, if it is given them."""


def host_root(directory: Path, provides: Iterable[str], arch: str) -> Root:
    """The host's own root, with Portage and its database of installed packages over it in `directory`."""
    rootfs.install_portage(directory, rootfs.python_of(Path("/")))
    write_installed(provides, directory, arch)
    (directory / "usr/bin").mkdir(parents=True, exist_ok=True)
    (directory / "usr/bin/gtar").symlink_to("tar")
    host = Path("/")
    links = {name: str((host / name).readlink()) for name in _HOST_LAYERS if (host / name).is_symlink()}
    ours = {path.name: (path,) for path in directory.iterdir()}
    theirs = {
        name: (*ours.pop(name, ()), host / name)
        for name in _HOST_LAYERS
        if name not in links and (host / name).is_dir()
    }
    return Root({**theirs, **ours}, links)


def registration_of(target: Target) -> Path:
    """The distribution's file of binfmt.d(5) that names the target's qemu-user. Raises MachineError without one."""
    registration = _BINFMT / f"{target.qemu.binary.replace('qemu-system', 'qemu', 1)}.conf"
    if not registration.exists():
        raise MachineError(f"{registration} is missing", "apt-get install qemu-user-static")
    return registration


def tree_root(tree: Path, registration: Path | None) -> Root:
    """The root that is unpacked in `tree`; its programs run by what `registration` names, or by themselves."""
    links = {path.name: str(path.readlink()) for path in tree.iterdir() if path.is_symlink()}
    kept = {"var", *_HOST_LAYERS}.difference(links)
    return Root({path.name: (path,) for path in tree.iterdir() if path.name in kept}, links, registration)


def build(
    package: Package,
    settings: jobs.Settings,
    root: Root,
    limits: Limits,
    *,
    directory: Path,
    materials: jobs.Materials,
    output: Callable[[bytes], object],
    own: Callable[[int], None],
    entered: Callable[[str], None] = lambda phase: None,
) -> Built:
    """Build `package` in `root` as a node would, with everything it writes in the empty `directory`.

    What it prints goes to `output` as it comes; `own` is told the process group, `entered` of each step.
    `materials.prerequisites` are a layer (`cluster.node.composed`). A build that fails is a value; NodeLost is
    raised when the root cannot be entered, and when the build is ended from outside.
    """
    entered("job directory")
    content = directory / "job"
    content.mkdir()
    jobs.fill(content, package, settings, materials)
    (directory / "tmp").mkdir()
    if materials.prerequisites is not None:
        root = root.over(materials.prerequisites)
    # Builds are not slowed by a layer.
    roots.prepare(replace(root, binds={**root.binds, "job": content, "var/tmp": directory / "tmp"}), directory)
    argv = roots.entering(root, directory, ["/bin/sh", str(jobs.MOUNT / "build")], roots.OWN_USERS)
    entered("build")
    try:
        with Child(argv, log_path=directory / "output", env=roots.ENVIRONMENT) as child:
            own(child.pid)
            failure = _run(child, limits, output)
            used = usage.of_all(child.pid, directory)
    finally:
        roots.open_up(directory)
    out = content / jobs.OUT.relative_to(jobs.MOUNT)
    if not (out / "marks").exists():
        raise NodeLost("the root cannot be entered", tail(child.log_path.read_text(errors="replace")) or failure)
    return _result(package, out, failure, used)


def _result(package: Package, out: Path, failure: str, used: Usage) -> Built:
    marks = (out / "marks").read_text()
    if failure:
        return Built(None, phases(marks), "", f"{unfinished(marks)}: {failure}", used)
    return Built(out / "packages" / f"{package.cpv}.gpkg.tar", phases(marks), "", usage=used)


def _run(child: Child, limits: Limits, output: Callable[[bytes], object]) -> str:
    """Pass on what it prints until it ends, but do not wait for it; returns why it failed, "" if it did not."""
    patience = Patience(limits.total_s, limits.silence_s)
    ended = os.pidfd_open(child.pid)
    try:
        with child.log_path.open("rb") as stream:
            while not select.select([ended], [], [], _POLL_S)[0]:
                if data := stream.read():
                    patience.heard()
                    output(data)
                patience.check()
            output(stream.read())
    except BuildFailed as error:
        return str(error)
    finally:
        os.close(ended)
    status = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert status is not None
    if status.si_code != os.CLD_EXITED:
        raise NodeLost("the build was ended from outside", f"signal {status.si_status}")
    return f"exit status {status.si_status}" if status.si_status else ""


def host_arch() -> str:
    """The host's architecture as Portage's profiles name it."""
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv"}.get(machine, machine)


def host_chost() -> str:
    """The CHOST of the host's own compiler."""
    return run([find_program("gcc", "gcc"), "-dumpmachine"], deadline_s=_PROBE_S, env=dict(os.environ)).strip()
