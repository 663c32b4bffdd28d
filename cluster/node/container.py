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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from cluster import paths
from cluster.errors import BuildFailed, MachineError, NodeLost
from cluster.model import Package, Usage
from cluster.node import job as jobs
from cluster.node import rootfs, usage
from cluster.node.build import Built, Limits, phases, unfinished
from cluster.node.installed import write_installed
from cluster.node.shell import Patience
from cluster.process import Child, find_program, run, tail
from cluster.target import Target

_PROBE_S = 60.0
_POLL_S = 0.2
_HOST_LAYERS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc", "opt")
_BINFMT = Path("/usr/lib/binfmt.d")
_NAMESPACES = ("--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--net", "--uts", "--ipc")
_OWN_USERS = ("--user", "--map-root-user")
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    # The namespace has one user: Portage is to give its files to no other.
    "PORTAGE_USERNAME": "root",
    "PORTAGE_GRPNAME": "root",
}
_PREREQUISITES = "run/prerequisites"  # where job/build looks for them
COMPILE_SOCKET, COMPILE_CLIENTS = "run/compile", "run/compilers"
"""Where a container has the compile server's socket and its clients, if it is given them."""


@dataclass(frozen=True, slots=True)
class Root:
    """What a container's root is made of."""

    layers: Mapping[str, tuple[Path, ...]]
    """For each directory of the root the directories it is layered of, the topmost first."""
    links: Mapping[str, str]
    """Symbolic links of the root."""
    registration: Path | None = None
    """A file of binfmt.d(5) that names the target's interpreter."""
    sealed: frozenset[str] = frozenset()
    """Those of the directories that nothing can be written to."""
    binds: Mapping[str, Path] = field(default_factory=dict)
    """Files and directories of the host, by their places in the root."""

    def moved(self, tree: Path, to: Path) -> Root:
        """This root where what is in `tree` is in `to`."""

        def place(path: Path) -> Path:
            return to / path.relative_to(tree) if path.is_relative_to(tree) else path

        return replace(self, layers={name: tuple(map(place, lower)) for name, lower in self.layers.items()})

    def over(self, layer: Path) -> Root:
        """This root with the prerequisites in `layer` (`cluster.node.composed`), as job/build lays them in a node."""
        entries = tuple(path / "db/pkg" for path in self.layers["var"] if (path / "db/pkg").is_dir())
        laid = {"usr": (layer / "usr", *self.layers["usr"]), "var/db/pkg": (layer / "installed", *entries)}
        return replace(
            self,
            layers={**self.layers, **laid},
            sealed=self.sealed.union(laid),
            binds={**self.binds, _PREREQUISITES: layer},
        )


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


def prepare(root: Root, directory: Path) -> None:
    """Write what stage-images/host/enter reads."""
    place = directory / "root"
    place.mkdir(parents=True)
    for name, to in root.links.items():
        (place / name).symlink_to(to)
    lines = [
        f"{name} {'ro' if name in root.sealed else 'rw'} {':'.join(map(str, lower))}\n"
        for name, lower in root.layers.items()
    ]
    (directory / "layers").write_text("".join(lines))
    (directory / "binds").write_text("".join(f"{name} {source}\n" for name, source in root.binds.items()))


def _argv(root: Root, directory: Path, command: Iterable[str]) -> list[str | Path]:
    enter: list[str | Path] = ["sh", paths.data("stage-images", "host", "enter"), directory, root.registration or ""]
    return [find_program("unshare", "util-linux"), *_OWN_USERS, *_NAMESPACES, *enter, *command]


def _open_up(directory: Path) -> None:
    """overlayfs leaves directories that only root could remove."""
    for path in directory.glob("work/*/work"):
        path.chmod(0o700)


def check(root: Root, directory: Path) -> None:
    """Run `true` in `root`, with scratch space in `directory`. Raises MachineError if that is not possible here."""
    prepare(root, directory)
    try:
        run(_argv(root, directory, ["/bin/true"]), deadline_s=_PROBE_S, env=_ENVIRONMENT)
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
    prepare(replace(root, binds={**root.binds, "job": content, "var/tmp": directory / "tmp"}), directory)
    argv = _argv(root, directory, ["/bin/sh", str(jobs.MOUNT / "build")])
    entered("build")
    try:
        with Child(argv, log_path=directory / "output", env=_ENVIRONMENT) as child:
            own(child.pid)
            failure = _run(child, limits, output)
            used = usage.of_all(child.pid, directory)
    finally:
        _open_up(directory)
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
