"""What of the master's cache a host is to have: the stages of its targets, and what runs and compiles for them.

Each is a directory that is copied as one tar, by content: what a host has in the same bytes is not sent again.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from cluster import target as targets
from cluster.node import emulator, kernel, stage
from cluster.node import toolchain as toolchains

_CHUNK = 1 << 20
# What a host makes itself of a stage: kernels in it, saved nodes, what came of trying KVM.
_MADE = ("./kernels", "./warm-*", "./kvm-*", "./*.lock", "./.content")
# What compilers do not read of it.
_NODES = ("./disk.qcow2", "./kernel", "./initrd", "./keys")


@dataclass(frozen=True, slots=True)
class Part:
    """A directory of the cache."""

    place: str
    """Where it is, below a cache."""
    directory: Path
    without: tuple[str, ...] = ()
    """What of it the host does not need."""

    def sealed(self) -> Sealed:
        """It with what its tar comes to."""
        digest, size = hashlib.sha256(), 0
        with _output(shlex.join(self._tar())) as stream:
            while data := stream.read(_CHUNK):
                digest.update(data)
                size += len(data)
        return Sealed(self, digest.hexdigest(), size >> 20)

    @contextmanager
    def compressed(self) -> Iterator[IO[bytes]]:
        """Its tar, compressed by zstd."""
        with _output(f"{shlex.join(self._tar())} | zstd -q -3 -T0") as stream:
            yield stream

    def _tar(self) -> list[str]:
        # What is left out changes the time of the directory that it is in: times are left out too.
        how = ["--create", "--format=gnu", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"]
        return [
            "tar",
            *how,
            "--anchored",
            *(f"--exclude={name}" for name in (*_MADE, *self.without)),
            f"--directory={self.directory}",
            ".",
        ]


@dataclass(frozen=True, slots=True)
class Sealed:
    """A part as it is now."""

    part: Part
    sha256: str
    """Of its tar."""
    size_mib: int
    """Of that."""


@contextmanager
def _output(command: str) -> Iterator[IO[bytes]]:
    """What the shell's `command` prints. Whoever reads it notices by its digest if it failed."""
    child = subprocess.Popen(
        ["sh", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert child.stdout is not None
        yield child.stdout
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


def of(name: str, arch: str, cache: Path, say: Callable[[str], None]) -> tuple[Part, ...]:
    """The parts for nodes of the target `name` on a host of `arch`, as uname has it; made if they are not there.

    A host of another architecture than this one's fetches programs itself.
    """
    target, recipe = targets.load(name), targets.load_recipe()
    built = stage.ensure(target, recipe, cache, say)
    found = [built.directory]
    own = kernel.find(target, cache)
    if own is not None:
        found.append(own.directory)
    if arch == platform.machine():
        say(f"looking for QEMU and the cross compiler for {name}")
        emulator.ensure(target, recipe, cache)
        found.append(emulator.private(target, recipe, cache))
        found.append(toolchains.ensure(target, built.facts["release"], cache).prefix)
    return tuple(_part(path, cache) for path in found if path.is_dir())


def of_compiles(name: str, arch: str, cache: Path, say: Callable[[str], None]) -> tuple[Part, ...]:
    """As `of`, for a host that only compiles for nodes of the target."""
    target = targets.load(name)
    built = stage.ensure(target, targets.load_recipe(), cache, say)
    headers = replace(_part(built.directory, cache), without=_NODES)
    if arch != platform.machine():
        return (headers,)
    say(f"looking for the cross compiler for {name}")
    compiler = toolchains.ensure(target, built.facts["release"], cache).prefix
    return (headers, _part(compiler, cache)) if compiler.is_dir() else (headers,)


def _part(directory: Path, cache: Path) -> Part:
    return Part(str(directory.relative_to(cache)), directory)
