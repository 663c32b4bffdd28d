"""One package built on this machine's own kernel, in a root of layered directories: no node at all.

The root is either the host's own, with Portage over it, or a stage's under qemu-user. Namespaces of
its own let an ordinary user do it, and leave nothing of it in the machine: no mount, no registration.
Made to compare nodes with; what a build does to its host's kernel nobody keeps in bounds here.
"""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster import paths
from cluster.errors import MachineError
from cluster.model import Package
from cluster.node import disk, rootfs
from cluster.node import job as jobs
from cluster.node.build import Built, Limits, phases, unfinished
from cluster.node.emulator import Emulator
from cluster.node.installed import write_installed
from cluster.node.stage import Stage
from cluster.process import Child, find_program, run
from cluster.target import Target

_UNPACK_S = 600.0
_PROBE_S = 60.0
_POLL_S = 0.2
_HOST_LAYERS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc", "opt")
_BINFMT = Path("/usr/lib/binfmt.d")
_NAMESPACES = ("--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--net")
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    # The namespace has one user: Portage is to give its files to no other.
    "PORTAGE_USERNAME": "root",
    "PORTAGE_GRPNAME": "root",
}


@dataclass(frozen=True, slots=True)
class Root:
    """What a container's root is made of."""

    layers: Mapping[str, tuple[Path, ...]]
    """For each directory of the root the directories it is layered of, the topmost first."""
    links: Mapping[str, str]
    """Symbolic links of the root."""
    registration: Path | None = None
    """A file of binfmt.d(5) that names the target's interpreter."""


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


def stage_root(directory: Path, stage: Stage, emulator: Emulator, target: Target) -> Root:
    """The stage's root, unpacked in `directory`, run by qemu-user. Raises MachineError where there is none."""
    registration = registration_of(target)
    image = directory.with_suffix(".raw")
    directory.mkdir()
    disk.expand(emulator, stage.disk, image)
    run([find_program("debugfs", "e2fsprogs"), "-R", f"rdump / {directory}", image], deadline_s=_UNPACK_S)
    image.unlink()
    links = {path.name: str(path.readlink()) for path in directory.iterdir() if path.is_symlink()}
    kept = {"usr", "etc", "opt", "var", *_HOST_LAYERS}
    layers = {path.name: (path,) for path in directory.iterdir() if path.name in kept and path.name not in links}
    return Root(layers, links, registration)


def _prepare(root: Root, directory: Path) -> None:
    """Write what stage-images/host/enter reads."""
    place = directory / "root"
    place.mkdir(parents=True)
    for name, to in root.links.items():
        (place / name).symlink_to(to)
    lines = [f"{name} {':'.join(str(path) for path in lower)}\n" for name, lower in root.layers.items()]
    (directory / "layers").write_text("".join(lines))


def _argv(root: Root, directory: Path, job: Path, command: Iterable[str]) -> list[str | Path]:
    enter: list[str | Path] = [
        "sh",
        paths.data("stage-images", "host", "enter"),
        directory,
        job,
        root.registration or "",
    ]
    return [find_program("unshare", "util-linux"), *_NAMESPACES, *enter, *command]


def _open_up(directory: Path) -> None:
    """overlayfs leaves directories that only root could remove."""
    for path in directory.glob("work/*/work"):
        path.chmod(0o700)


def check(root: Root, directory: Path) -> None:
    """Run `true` in `root`, with scratch space in `directory`. Raises MachineError if that is not possible here."""
    _prepare(root, directory)
    try:
        run(_argv(root, directory, directory, ["/bin/true"]), deadline_s=_PROBE_S, env=_ENVIRONMENT)
    finally:
        _open_up(directory)


def build(
    package: Package,
    settings: jobs.Settings,
    root: Root,
    limits: Limits,
    *,
    directory: Path,
    materials: jobs.Materials,
    log: Path,
    own: Callable[[int], None],
) -> Built:
    """Build `package` in `root` as a node would, with everything it writes in the empty `directory`.

    What it prints goes to the file `log`; `own` is told the process group. A build that fails is a value.
    """
    content = directory / "job"
    content.mkdir()
    jobs.fill(content, package, settings, materials)
    _prepare(root, directory)
    log.write_bytes(b"")
    argv = _argv(root, directory, content, ["/bin/sh", str(jobs.MOUNT / "build")])
    try:
        with Child(argv, log_path=log, env=_ENVIRONMENT) as child:
            own(child.pid)
            failure = _wait(child, log, limits)
    finally:
        _open_up(directory)
    out = content / jobs.OUT.relative_to(jobs.MOUNT)
    marks = (out / "marks").read_text() if (out / "marks").exists() else ""
    if failure:
        return Built(None, phases(marks), "", f"{unfinished(marks)}: {failure}")
    return Built(out / "packages" / f"{package.cpv}.gpkg.tar", phases(marks), "")


def _wait(child: Child, log: Path, limits: Limits) -> str:
    """Wait for its end; returns why it failed, "" if it did not."""
    end = time.monotonic() + limits.total_s
    while True:
        try:
            status = child.wait(_POLL_S)
            return f"exit status {status}" if status else ""
        except subprocess.TimeoutExpired:
            if time.monotonic() > end:
                return f"not done after {limits.total_s:g} s"
            if time.time() - log.stat().st_mtime > limits.silence_s:
                return f"printed nothing for {limits.silence_s:g} s"


def host_arch() -> str:
    """The host's architecture as Portage's profiles name it."""
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv"}.get(machine, machine)


def host_chost() -> str:
    """The CHOST of the host's own compiler."""
    return run([find_program("gcc", "gcc"), "-dumpmachine"], deadline_s=_PROBE_S, env=dict(os.environ)).strip()
