"""A target: an architecture, how it is emulated and how it is compiled for. Data, never a branch."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from cluster import paths
from cluster.errors import InputError


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Qemu(_Data):
    """How QEMU emulates the target."""

    binary: str
    package: str
    suite: str
    """Where the newest one is, `{suite}` being the stage's."""
    machine: str
    cpu: str
    console: str
    disk_bus: str
    network_bus: str
    random_bus: str
    serial_bus: str


class OwnKernel(_Data):
    """How a kernel is built that suits emulated nodes better than the distribution's."""

    source: str
    """The binary package that has the source in `usr/src`."""
    config: str
    """The file of `stage-images/kernel` with what is set over tinyconfig."""
    arch: str
    """The kernel's own name of the architecture."""
    image: str
    """What `make` is asked for."""
    built: str
    """Where that is then, in the source tree."""


class Kernel(_Data):
    """Which kernel the nodes boot, and the modules their initramfs loads."""

    package: str
    suite: str
    image: str
    arguments: str
    modules: tuple[str, ...]
    own: OwnKernel | None = None
    """None where nobody has written a configuration."""


class Cross(_Data):
    """The host's cross compiler."""

    packages: tuple[str, ...]
    prefix: str


class Target(_Data):
    """One file of `stage-images/targets`."""

    name: str
    chost: str
    profile: str
    debian_arch: str
    machines: tuple[str, ...]
    """Hosts whose processors run its programs, as uname(2) calls them: a chroot there needs no emulation."""
    qemu: Qemu
    kernel: Kernel
    cross: Cross

    def runs_on(self, machine: str = "") -> bool:
        """Whether a host of `machine`, as uname(2) has it, runs the target's programs; this host by default."""
        return (machine or os.uname().machine) in self.machines


class Recipe(_Data):
    """How a stage is made: one file of `stage-images`."""

    name: str
    suite: str
    packages: tuple[str, ...]
    busybox: str
    shell: str
    """The source package of the fast shell, which `stage-images/shell` builds."""
    provides: tuple[str, ...]


class Plain(_Data):
    """What replaces parts of a target in a node that nobody has tuned: one file of `stage-images/plain`."""

    machine: str
    cpu: str
    package: str
    suite: str
    arguments: str


_T = TypeVar("_T", Target, Recipe, Plain)


def _load(path: Path, kind: type[_T]) -> _T:
    try:
        return kind.model_validate(tomllib.loads(path.read_text()))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not TOML", str(error)) from error
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{path}: {'.'.join(map(str, first['loc']))}", first["msg"]) from error


def names() -> tuple[str, ...]:
    """The targets that have a data file."""
    return tuple(sorted(path.stem for path in paths.data("stage-images", "targets").glob("*.toml")))


def load(name: str) -> Target:
    """The target called `name`. Raises InputError for an unknown one or a broken file."""
    if name not in names():
        raise InputError(f"unknown target {name!r}", f"known targets: {', '.join(names())}")
    return _load(paths.data("stage-images", "targets", f"{name}.toml"), Target)


def load_recipe(name: str = "debian") -> Recipe:
    """The stage recipe called `name`."""
    return _load(paths.data("stage-images", f"{name}.toml"), Recipe)


def plain(target: Target) -> Target:
    """The target as it is without tuning: QEMU's and the distribution's defaults. For comparison only."""
    path = paths.data("stage-images", "plain", f"{target.name}.toml")
    if not path.exists():
        raise InputError(f"nothing says what a plain node for {target.name} is", f"write {path}")
    defaults = _load(path, Plain)
    return target.model_copy(
        update={
            "qemu": target.qemu.model_copy(update={"machine": defaults.machine, "cpu": defaults.cpu}),
            "kernel": target.kernel.model_copy(update=defaults.model_dump(include={"package", "suite", "arguments"})),
        }
    )
