"""A kernel of our own for emulated nodes, built once from the distribution's source and kept in the cache.

kernels/own-TARGET-KEY/
    kernel        the image; whatever nodes need is built into it
    kernel.json   what it is made of

Building takes minutes of all processors, so that nothing but `cluster stage kernel` does it; without
one, nodes boot the distribution's.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster import paths
from cluster.apt import PrivateApt
from cluster.errors import InputError, MachineError
from cluster.node.stage import Say
from cluster.process import find_program, find_programs, run
from cluster.target import OwnKernel, Recipe, Target

_FORMAT = 1  # of the directory above; a change builds anew
_NEED_MIB = 3500  # the package, its archive, the tree and what is compiled
_UNPACK_S = 1800.0
_CONFIGURE_S = 600.0
_COMPILE_S = 4 * 3600.0  # 15 minutes of processor time, on a machine that is slow or busy
_OPTION = re.compile(r"(CONFIG_\w+)=(.+)")


@dataclass(frozen=True, slots=True)
class Kernel:
    """A built kernel in the cache."""

    directory: Path

    @property
    def image(self) -> Path:
        """What QEMU boots."""
        return self.directory / "kernel"

    @property
    def facts(self) -> dict[str, str]:
        """What `kernel.json` says of it."""
        facts: dict[str, str] = json.loads((self.directory / "kernel.json").read_text())
        return facts

    @property
    def release(self) -> str:
        """What `uname -r` says in a node that runs it."""
        return self.facts["release"]


def options(fragment: Path) -> dict[str, str]:
    """The options that a file of `stage-images/kernel` sets. Raises InputError, which names the line."""
    found: dict[str, str] = {}
    for number, line in enumerate(fragment.read_text().splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        match = _OPTION.fullmatch(line)
        if match is None:
            raise InputError(f"{fragment}, line {number}: {line!r}", "write CONFIG_NAME=VALUE, with =n for off")
        name, value = match.groups()
        if name in found:
            raise InputError(f"{fragment}, line {number}: {name} is set twice", "leave one of the lines")
        found[name] = value
    return found


def refused(wanted: Mapping[str, str], config: str) -> tuple[str, ...]:
    """The options of `wanted` that have another value in the kernel's configuration `config`.

    Kconfig drops what it does not know and what lacks a dependency, and says nothing.
    """
    matches = filter(None, map(_OPTION.fullmatch, config.splitlines()))
    has = {match[1]: match[2] for match in matches}
    return tuple(name for name, value in wanted.items() if has.get(name, "n") != value)


def _fragment(own: OwnKernel) -> Path:
    return paths.data("stage-images", "kernel", own.config)


def _make_words(target: Target, own: OwnKernel) -> tuple[str, ...]:
    return (f"ARCH={own.arch}", f"CROSS_COMPILE={target.cross.prefix}")


def _ingredients(target: Target, own: OwnKernel) -> str:
    """A hash of all that a kernel is made from but the version of its source."""
    lines = sorted(f"{name}={value}" for name, value in options(_fragment(own)).items())
    return _digest(str(_FORMAT), own.model_dump_json(), *_make_words(target, own), *lines)


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=6).hexdigest()


def find(target: Target, cache: Path) -> Kernel | None:
    """The kernel for `target` as its files are now, the one built last if there are several; asks no archive."""
    own = target.kernel.own
    if own is None:
        return None
    wanted = _ingredients(target, own)
    built = sorted((cache / "kernels").glob(f"own-{target.name}-*/kernel.json"), key=lambda path: path.stat().st_mtime)
    kernels = [Kernel(path.parent) for path in built]
    return next((kernel for kernel in reversed(kernels) if kernel.facts["ingredients"] == wanted), None)


def ensure(target: Target, recipe: Recipe, cache: Path, say: Say, *, newest: bool = False) -> Kernel:
    """The kernel for `target`, built if the cache has none; with `newest`, if the archive has a newer source.

    Of two runs at once, one builds. Raises InputError for a target without one, MachineError.
    """
    own = target.kernel.own
    if own is None:
        raise InputError(f"nothing says how to build a kernel for {target.name}", "write its [kernel.own]")
    kernels = cache / "kernels"
    with paths.locked(kernels / "own.lock"):
        found = find(target, cache)
        if found is not None and not newest:
            return found
        programs = _programs(target)
        apt = PrivateApt(cache / "apt" / target.debian_arch, (recipe.suite,), arch=target.debian_arch)
        say(f"looking for {own.source} in {recipe.suite}")
        version = apt.version(own.source, suite=recipe.suite)
        directory = kernels / f"own-{target.name}-{_digest(_ingredients(target, own), version)}"
        if not directory.exists():
            _build(target, own, apt, version, directory, programs, say)
    return Kernel(directory)


def _programs(target: Target) -> dict[str, str]:
    """What a kernel is built with. Raises MachineError."""
    packages = {f"{target.cross.prefix}gcc": target.cross.packages[0], "gcc": "gcc libc6-dev"}
    packages |= {name: name for name in ("make", "flex", "bison", "bc")}
    return find_programs({**packages, "tar": "tar", "xz": "xz-utils", "dpkg-deb": "dpkg"})


def _build(
    target: Target,
    own: OwnKernel,
    apt: PrivateApt,
    version: str,
    directory: Path,
    programs: Mapping[str, str],
    say: Say,
) -> None:
    """Build the kernel and publish it as `directory`."""
    kernels, ingredients = directory.parent, _ingredients(target, own)
    paths.require_space(kernels, _NEED_MIB, "building a kernel")
    for leftover in kernels.glob(".own-*"):
        shutil.rmtree(leftover)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=".own-", dir=kernels) as scratch:
        work = Path(scratch)
        say(f"fetching {own.source} {version} (150 MB)")
        (deb,) = apt.download_only([f"{own.source}={version}"], work / "deb")
        say("unpacking the kernel's source")
        tree = _unpack(own, deb, work)
        say("configuring the kernel")
        build = _Build(tree, (programs["make"], *_make_words(target, own)))
        build.configure(_fragment(own), f"{own.source} {version}")
        say("compiling the kernel, which takes some 10 minutes on two processors")
        build.make("-s", f"-j{len(os.sched_getaffinity(0))}", own.image, deadline_s=_COMPILE_S)
        result = work / "result"
        result.mkdir()
        shutil.copy(build.product(own.built), result / "kernel")
        facts = {
            "target": target.name,
            "release": build.product("include/config/kernel.release").read_text().strip(),
            "source": own.source,
            "version": version,
            "compiler": _first_line([programs[f"{target.cross.prefix}gcc"], "--version"]),
            "seconds": f"{time.monotonic() - start:.0f}",
            "ingredients": ingredients,
        }
        (result / "kernel.json").write_text(json.dumps(facts, indent=1) + "\n")
        result.rename(directory)


def _unpack(own: OwnKernel, deb: Path, work: Path) -> Path:
    """Unpack the archive of sources that the package `deb` has; returns the tree."""
    run([find_program("dpkg-deb", "dpkg"), "-x", deb, work / "package"], deadline_s=_UNPACK_S)
    deb.unlink()
    archive = next((work / "package/usr/src").glob(f"{own.source}.tar.*"), None)
    if archive is None:
        raise MachineError(f"{deb.name} has no usr/src/{own.source}.tar.*", "mend kernel.own.source of the target")
    tree = work / "tree"
    tree.mkdir()
    how = ("--extract", "--strip-components=1", f"--directory={tree}", "--file")
    run([find_program("tar", "tar"), *how, archive], deadline_s=_UNPACK_S)
    archive.unlink()
    return tree


def _first_line(argv: list[str]) -> str:
    return run(argv, deadline_s=60).partition("\n")[0]


@dataclass(frozen=True, slots=True)
class _Build:
    """A source tree and how `make` is called in it."""

    tree: Path
    argv: tuple[str, ...]

    @property
    def _environment(self) -> dict[str, str]:
        """The user's own settings for kernels are not meant for this one; what is left of the moment is fixed."""
        written = time.gmtime((self.tree / "Makefile").stat().st_mtime)
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LC_ALL": "C",
            "KBUILD_BUILD_USER": "cluster",
            "KBUILD_BUILD_HOST": "portage-cluster",
            "KBUILD_BUILD_TIMESTAMP": time.strftime("%Y-%m-%d %H:%M:%S UTC", written),
        }

    def make(self, *words: str, deadline_s: float) -> None:
        """Run make."""
        run([*self.argv, *words], deadline_s=deadline_s, env=self._environment, cwd=self.tree)

    def configure(self, fragment: Path, source: str) -> None:
        """Write the configuration: the smallest with `fragment` over it. Raises MachineError if not all of it took."""
        wanted = options(fragment)
        self.make("-s", "tinyconfig", deadline_s=_CONFIGURE_S)
        merge = ("sh", "scripts/kconfig/merge_config.sh", "-m", ".config")
        run([*merge, fragment], deadline_s=_CONFIGURE_S, env=self._environment, cwd=self.tree)
        self.make("-s", "olddefconfig", deadline_s=_CONFIGURE_S)
        names = refused(wanted, (self.tree / ".config").read_text())
        if names:
            what = f"{source} does not take {', '.join(f'{name}={wanted[name]}' for name in names)}"
            raise MachineError(what, f"mend {fragment}")

    def product(self, name: str) -> Path:
        """A file that make has made; MachineError if it has not."""
        path = self.tree / name
        if not path.exists():
            raise MachineError(f"building a kernel made no {name}", "mend the target's [kernel.own]")
        return path
