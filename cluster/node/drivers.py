"""Node drivers: what a package is built in. A QEMU node, a chroot on this machine, or another machine (`remote`).

All of them give each package the same clean root: the stage, its prerequisites over it, /usr read-only.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache as once
from pathlib import Path
from typing import Literal, Protocol, get_args

from pydantic import BaseModel, ConfigDict

from cluster import paths, target
from cluster.errors import MachineError
from cluster.model import Package
from cluster.node import build as builds
from cluster.node import client, composed, container, job, roots, unpacked
from cluster.node.node import Hardware

Kind = Literal["qemu", "chroot", "ssh"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Driver(Protocol):
    """Builds packages, each in a fresh root; may be called from several threads."""

    def compose(self, binpkgs: Sequence[Path]) -> Path:
        """What `materials.prerequisites` is to be for these; raises as `cluster.node.composed.image`."""
        ...

    def access(self, port: int, socket: Path, token: str) -> job.CompileAccess | None:
        """How a build reaches the compile server on `port` of loopback and on `socket`; None if it cannot."""
        ...

    def build(
        self,
        package: Package,
        settings: job.Settings,
        limits: builds.Limits,
        *,
        directory: Path,
        materials: job.Materials,
        output: Callable[[bytes], object],
        own: Callable[[int], None],
        entered: Callable[[str], None],
    ) -> builds.Built:
        """Build `package` with the files of its node in `directory`.

        What it prints goes to `output` as it comes, `entered` is told of each step and `own` the process group
        whose end is the build's. A build that fails is a value; NodeLost is raised when the node is at fault.
        """
        ...


@dataclass(frozen=True, slots=True)
class QemuDriver:
    """QEMU nodes on this machine, each booted or restored for one package and thrown away."""

    hardware: Hardware
    provides: Sequence[str]
    """What the stage has already, as its recipe says."""
    cache: Path

    def compose(self, binpkgs: Sequence[Path]) -> Path:
        """An image, which is a disk of the node."""
        return composed.image(binpkgs, self.provides, self.cache)

    def access(self, port: int, socket: Path, token: str) -> job.CompileAccess:
        """The host's loopback in QEMU's user network."""
        return job.CompileAccess(f"10.0.2.2:{port}", token)

    def build(
        self,
        package: Package,
        settings: job.Settings,
        limits: builds.Limits,
        *,
        directory: Path,
        materials: job.Materials,
        output: Callable[[bytes], object],
        own: Callable[[int], None],
        entered: Callable[[str], None],
    ) -> builds.Built:
        """As `Driver.build`."""
        return builds.build(
            package,
            settings,
            self.hardware,
            limits,
            directory=directory,
            materials=materials,
            output=output,
            own=own,
            entered=entered,
        )


@dataclass(frozen=True, slots=True)
class ChrootDriver:
    """Chroots of the stage in namespaces of this machine: by qemu-user, or without emulation where it can do without.

    Only compiles are sent away, to the compile server: there is no network for distcc.
    """

    stage: Path
    """The directory in the cache that the root is made of."""
    root: roots.Root
    client: Path | None
    """Compile clients for the host's own processor; None for the stage's."""
    provides: Sequence[str]
    cache: Path

    def compose(self, binpkgs: Sequence[Path]) -> Path:
        """A directory, which is laid over the stage's."""
        return composed.layer(binpkgs, self.provides, self.cache)

    def access(self, port: int, socket: Path, token: str) -> job.CompileAccess:
        """The server's socket, bound into the root."""
        access = job.CompileAccess(f"/{container.COMPILE_SOCKET}", token, socket=socket)
        return access if self.client is None else replace(access, client=f"/{container.COMPILE_CLIENTS}")

    def build(
        self,
        package: Package,
        settings: job.Settings,
        limits: builds.Limits,
        *,
        directory: Path,
        materials: job.Materials,
        output: Callable[[bytes], object],
        own: Callable[[int], None],
        entered: Callable[[str], None],
    ) -> builds.Built:
        """As `Driver.build`."""
        root = self.root
        if materials.compile is not None and materials.compile.socket is not None:
            binds = {container.COMPILE_SOCKET: materials.compile.socket}
            if self.client is not None:
                binds[container.COMPILE_CLIENTS] = self.client
            root = replace(root, binds=binds)
        with ExitStack() as stack:
            for made in (self.stage, *filter(None, (materials.prerequisites,))):
                stack.enter_context(paths.used(made))
            return container.build(
                package,
                replace(settings, distcc_hosts=""),
                root,
                limits,
                directory=directory.resolve(),
                materials=materials,
                output=output,
                own=own,
                entered=entered,
            )


def chroot(hardware: Hardware, provides: Sequence[str], cache: Path, *, scratch: Path) -> ChrootDriver:
    """Chroots of the hardware's stage, tried once in `scratch`. Raises MachineError where this machine cannot."""
    tree = unpacked.ensure(hardware.stage, hardware.emulator, cache)
    native = hardware.target.runs_on()
    root = container.tree_root(tree, None if native else container.registration_of(hardware.target))
    roots.check(root, scratch)
    return ChrootDriver(tree, root, None if native else _client(tree, cache), provides, cache)


def _client(tree: Path, cache: Path) -> Path | None:
    """Compile clients under the names of those in the stage; None where this machine cannot make them."""
    names = [path.name for path in (tree / job.CLIENT.lstrip("/")).iterdir() if path.is_symlink()]
    try:
        return client.ensure(names, cache)
    except MachineError:
        return None


class _Facts(BaseModel):
    """stage-images/drivers.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dated: str
    speed: dict[str, dict[str, dict[Kind, float]]]


@once
def _facts() -> _Facts:
    return _Facts.model_validate(tomllib.loads(paths.data("stage-images", "drivers.toml").read_text()))


def suited(targets: Iterable[str], machine: str) -> dict[str, Kind]:
    """What nodes on a host of `machine` are best: chroots for targets whose programs it runs, QEMU's for others."""
    return {name: "chroot" if target.load(name).runs_on(machine) else "qemu" for name in targets}


def expected_speed(kind: Kind, target: str, machine: str = "") -> float:
    """How fast a node of `kind` on a host of `machine` is expected to be, where an emulated QEMU node there is 1.

    An estimate until builds of it have been timed. `ssh` is taken relative to a QEMU node of this host.
    """
    by_host = _facts().speed.get(target, {})
    known = by_host.get(machine or os.uname().machine, by_host.get("other", {}))
    return known.get(kind, 1.0)
