"""A QEMU that is new enough: the machine's own, or one unpacked into a private prefix."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cluster.apt import PrivateApt, machine_mirror
from cluster.errors import ClusterError, MachineError
from cluster.paths import locked
from cluster.process import find_program, run
from cluster.target import Target

OLDEST_MAJOR = 9
"""QEMU 10 emulates arm64 about twice as fast as 7.2; below this one is fetched from backports."""

_UNPACK_DEADLINE_S = 120.0


@dataclass(frozen=True, slots=True)
class Emulator:
    """A QEMU for one target: its binary, qemu-img, its data directory and environment."""

    binary: Path
    img: Path
    version: str
    data: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """The environment to start it in."""
        return {**os.environ, **self.env}


def _version(binary: Path, env: Mapping[str, str]) -> str:
    told = run([binary, "--version"], deadline_s=30, env={**os.environ, **env})
    found = re.search(r"version (\d+\.\d+[.\d]*)", told)
    return found.group(1) if found else "0"


def _installed(target: Target, oldest: int) -> Emulator | None:
    """The QEMU on PATH if its major version is at least `oldest`."""
    binary, img = shutil.which(target.qemu.binary), shutil.which("qemu-img")
    if not binary or not img:
        return None
    version = _version(Path(binary), {})
    if int(version.split(".")[0]) < oldest:
        return None
    return Emulator(Path(binary), Path(img), version)


def _private(prefix: Path, target: Target) -> Emulator:
    """The QEMU in `prefix`, told where its libraries, modules and data are."""
    libraries = [*prefix.glob("usr/lib/*-linux-gnu"), *prefix.glob("lib/*-linux-gnu")]
    modules = next(iter(prefix.glob("usr/lib/*-linux-gnu/qemu")), prefix)
    env = {"LD_LIBRARY_PATH": ":".join(map(str, libraries)), "QEMU_MODULE_DIR": str(modules)}
    binary = prefix / "usr/bin" / target.qemu.binary
    img = prefix / "usr/bin/qemu-img"
    if not img.exists():  # the machine has this very version of it
        img = Path(find_program("qemu-img", "qemu-utils"))
    return Emulator(binary, img, _version(binary, env), prefix / "usr/share/qemu", env)


def _fetch(cache: Path, prefix: Path, target: Target, suite: str) -> None:
    suites = tuple(dict.fromkeys((machine_mirror().codename, suite)))
    apt = PrivateApt(cache / "apt" / ("host" if len(suites) > 1 else "release"), suites, host_status=True)
    debs = apt.download([target.qemu.package, "qemu-utils"], suite=suite)
    scratch = Path(f"{prefix}.new")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    for deb in debs:
        if not deb.name.startswith("qemu-user"):
            run([find_program("dpkg-deb", "dpkg"), "-x", deb, scratch], deadline_s=_UNPACK_DEADLINE_S)
    scratch.rename(prefix)


def ensure(target: Target, cache: Path) -> Emulator:
    """A QEMU for `target` of version 9 or newer, fetched into `cache` if the machine has none.

    Raises MachineError when there is none to be had.
    """
    found = _installed(target, OLDEST_MAJOR)
    if found:
        return found
    try:
        return _ensure_private(target, cache, target.qemu.package, f"{machine_mirror().codename}-backports")
    except ClusterError as error:
        raise MachineError(
            f"no QEMU {OLDEST_MAJOR} or newer for {target.name}: {error}", f"install {target.qemu.package}"
        ) from error


def of_release(target: Target, cache: Path) -> Emulator:
    """The QEMU that the machine has, however old, else its release's own, fetched into `cache`.

    For comparison only: it is what one has who does not look for a newer one. Raises MachineError.
    """
    found = _installed(target, 0)
    return found or _ensure_private(target, cache, f"{target.qemu.package}-release", machine_mirror().codename)


def _ensure_private(target: Target, cache: Path, name: str, suite: str) -> Emulator:
    prefix = cache / "qemu" / name
    with locked(prefix.parent / "lock"):
        if not prefix.exists():
            _fetch(cache, prefix, target, suite)
    return _private(prefix, target)


def user_version(target: Target) -> str:
    """Name and version of the machine's qemu-user for `target`. Raises MachineError without one."""
    name = target.qemu.binary.replace("qemu-system", "qemu", 1)
    binary = find_program(f"{name}-static", "qemu-user-static")
    return f"qemu-user {_version(Path(binary), {})}"
