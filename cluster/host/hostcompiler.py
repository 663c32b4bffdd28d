"""The compile server as a build uses it: started if it can be trusted, with a root for each job's prerequisites."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import MachineError
from cluster.node import compileserver, pilot, sandbox, sysroot
from cluster.node import toolchain as toolchains
from cluster.node.compilecache import CompileCache
from cluster.node.compileserver import CompileServer
from cluster.node.drivers import Driver
from cluster.node.halves import Away
from cluster.node.job import CompileAccess
from cluster.node.stage import Stage
from cluster.target import Target


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the config's `[compile]` says."""

    slots: int
    cache: Path
    """The directory of finished compiles."""
    cache_mib: int
    audit_percent: float
    pilot: pilot.Kit | None
    """What pilots are made of; None for none."""


@dataclass(frozen=True, slots=True)
class CrossCompiler:
    """A cross compiler that is the same as the nodes' own, and the root of a bare stage with it."""

    toolchain: toolchains.Toolchain
    stage: Stage
    cache: Path
    bare: sysroot.Root

    def root(self, prerequisites: Callable[[Path], object], name: str) -> sysroot.Root:
        """The root of a node that has prerequisites; `prerequisites` unpacks them, `name` identifies them."""
        return sysroot.compose(
            self.stage.sysroot, self.stage.directory.name, self.toolchain, prerequisites, name, self.cache
        )


def find(target: Target, stage: Stage, cache: Path) -> CrossCompiler:
    """The cross compiler for nodes of `stage`. Raises MachineError if there is none to be had or trusted."""
    sandbox.require()
    stage = stage.base  # which kernel nodes boot is nothing to compilers
    toolchain = toolchains.ensure(target, stage.facts["release"], cache)
    bare = sysroot.compose(stage.sysroot, stage.directory.name, toolchain, None, "", cache)
    difference = sysroot.disagreement(bare, stage.signature)
    if difference:
        raise MachineError("the host's cross compiler is not the nodes' own", difference)
    return CrossCompiler(toolchain, stage, cache, bare)


@dataclass(frozen=True, slots=True)
class HostCompiler:
    """A running compile server with its compiler."""

    server: CompileServer
    cross: CrossCompiler
    socket: Path
    """The server's, for those that have no network."""
    pilot: pilot.Kit | None

    @contextmanager
    def job(
        self, driver: Driver, root: sysroot.Root, directory: Path, node: str, away: Away | None
    ) -> Iterator[tuple[CompileAccess | None, compileserver.Tally]]:
        """Serve the job of `node`, which is of `driver`, over `root`; its files go to the new `directory`.

        What finds no turn may go `away`.
        """
        with self.server.job(root, directory, name=node, away=away) as (token, job):
            yield driver.access(self.server.port, self.socket, token), job.tally

    @contextmanager
    def ahead(
        self, root: sysroot.Root, directory: Path, node: str
    ) -> Iterator[tuple[CompileAccess, compileserver.Tally]]:
        """Serve the pilot of a job likewise."""
        with self.server.job(root, directory, name=node, audited=False) as (token, job):
            yield pilot.access(token), job.tally


@contextmanager
def serving(cross: CrossCompiler, wanted: Wanted) -> Iterator[HostCompiler]:
    """Run a compile server as long as the context lasts."""
    compiles = CompileCache(wanted.cache, wanted.cache_mib << 20)
    compiles.prune()
    with tempfile.TemporaryDirectory(prefix="portage-cluster-") as place:  # a socket's path is to be short
        local = Path(place) / "compile"
        with CompileServer(compiles, slots=wanted.slots, audit_percent=wanted.audit_percent, local=local) as server:
            yield HostCompiler(server, cross, local, wanted.pilot)
