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
from cluster.target import Recipe, Target

NEWEST_MAJOR = 11
"""QEMU 11 emulates arm64 a tenth faster than 10: an older one of the machine's is taken only if there is no other."""
_OLDEST_MAJOR = 9
"""QEMU 10 is about twice as fast as 7.2."""

_UNPACK_DEADLINE_S = 120.0
_DATA = ("qemu", "seabios")  # Debian's path of firmware

Words = tuple[str | Path, ...]
"""A program, with what has to go before it."""


@dataclass(frozen=True, slots=True)
class Emulator:
    """A QEMU for one target: its program, qemu-img, its data directories and environment."""

    system: Words
    img: Words
    version: str
    data: tuple[Path, ...] = ()
    """Where its firmware is; empty where it knows by itself."""
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """The environment to start it in."""
        return {**os.environ, **self.env}


def _version(program: Words) -> str:
    told = run([*program, "--version"], deadline_s=30)
    found = re.search(r"version (\d+\.\d+[.\d]*)", told)
    return found.group(1) if found else "0"


def _installed(target: Target, oldest: int) -> Emulator | None:
    """The QEMU on PATH if its major version is at least `oldest`."""
    system, img = shutil.which(target.qemu.binary), shutil.which("qemu-img")
    if not system or not img:
        return None
    version = _version((Path(system),))
    if int(version.split(".")[0]) < oldest:
        return None
    return Emulator((Path(system),), (Path(img),), version)


def _private(prefix: Path, target: Target) -> Emulator:
    """The QEMU in `prefix`, with the C library that it was made for, whichever the machine has."""
    libraries = [*prefix.glob("usr/lib/*-linux-gnu"), *prefix.glob("lib/*-linux-gnu")]
    loader = next((path for place in libraries for path in place.glob("ld-linux*.so.*")), None)
    if loader is None:
        raise MachineError(f"there is no loader in {prefix}", f"rm -r {prefix}, and it is fetched anew")
    words = (loader, "--library-path", ":".join(map(str, libraries)))
    modules = next((place / "qemu" for place in libraries if (place / "qemu").is_dir()), prefix)
    system, img = ((*words, prefix / "usr/bin" / name) for name in (target.qemu.binary, "qemu-img"))
    data = tuple(place for name in _DATA if (place := prefix / "usr/share" / name).is_dir())
    return Emulator(system, img, _version(system), data, {"QEMU_MODULE_DIR": str(modules)})


def _fetch(cache: Path, prefix: Path, target: Target, suite: str) -> None:
    suites = tuple(dict.fromkeys((suite.removesuffix("-backports"), suite)))
    apt = PrivateApt(cache / "apt" / f"qemu-{suite}", suites)
    debs = apt.download([target.qemu.package, "qemu-utils"], suite=suite)
    scratch = Path(f"{prefix}.new")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    for deb in debs:
        run([find_program("dpkg-deb", "dpkg"), "-x", deb, scratch], deadline_s=_UNPACK_DEADLINE_S)
    scratch.rename(prefix)


def ensure(target: Target, recipe: Recipe, cache: Path) -> Emulator:
    """The fastest QEMU for `target`: the machine's own, or a newer one fetched into `cache`.

    Raises MachineError when there is none to be had that is fast enough to work with.
    """
    found = _installed(target, NEWEST_MAJOR)
    if found:
        return found
    try:
        return _ensure_private(target, cache, target.qemu.suite.format(suite=recipe.suite))
    except ClusterError as error:
        older = _installed(target, _OLDEST_MAJOR)
        if older:
            return older
        raise MachineError(
            f"no QEMU {_OLDEST_MAJOR} or newer for {target.name}: {error}", f"install {target.qemu.package}"
        ) from error


def private(target: Target, recipe: Recipe, cache: Path) -> Path:
    """Where `ensure` puts a QEMU that it fetches."""
    return _prefix(target, cache, target.qemu.suite.format(suite=recipe.suite))


def of_release(target: Target, cache: Path) -> Emulator:
    """The QEMU that the machine has, however old, else its release's own, fetched into `cache`.

    For comparison only: it is what one has who does not look for a newer one. Raises MachineError.
    """
    return _installed(target, 0) or _ensure_private(target, cache, machine_mirror().codename)


def _ensure_private(target: Target, cache: Path, suite: str) -> Emulator:
    prefix = _prefix(target, cache, suite)
    with locked(prefix.parent / "lock"):
        if not prefix.exists():
            _fetch(cache, prefix, target, suite)
    return _private(prefix, target)


def _prefix(target: Target, cache: Path, suite: str) -> Path:
    return cache / "qemu" / f"{target.qemu.package}-{suite}"


def user_version(target: Target) -> str:
    """Name and version of the machine's qemu-user for `target`. Raises MachineError without one."""
    name = target.qemu.binary.replace("qemu-system", "qemu", 1)
    binary = find_program(f"{name}-static", "qemu-user-static")
    return f"qemu-user {_version((Path(binary),))}"
