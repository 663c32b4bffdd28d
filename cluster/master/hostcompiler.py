"""The compile server as a build uses it: started if it can be trusted, with a root for each job's prerequisites."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import MachineError
from cluster.master import distcc
from cluster.node import compileserver, sandbox, sysroot
from cluster.node.compilecache import CompileCache
from cluster.node.compileserver import CompileServer
from cluster.node.job import CompileAccess
from cluster.node.stage import Stage
from cluster.target import Target

_SCRIPTS = ("c89", "c99")  # of the distribution's own, around gcc


@dataclass(frozen=True, slots=True)
class Wanted:
    """The config's `[compile]`."""

    slots: int
    cache_mib: int
    audit_percent: float


@dataclass(frozen=True, slots=True)
class HostCompiler:
    """The cross compiler behind a running compile server."""

    server: CompileServer
    cross: sysroot.Cross
    stage: Stage
    cache: Path

    @contextmanager
    def job(
        self, prerequisites: Callable[[Path], object] | None, name: str, directory: Path
    ) -> Iterator[tuple[CompileAccess, compileserver.Tally]]:
        """Serve one job, whose files go to the new `directory`.

        `prerequisites` unpacks into a directory what the node has beside its stage, `name` identifies it.
        """
        root = self._root(prerequisites, name)
        with self.server.job(root, directory) as (token, job):
            yield CompileAccess(self.server.port, token), job.tally

    def _root(self, prerequisites: Callable[[Path], object] | None, name: str) -> sysroot.Root:
        return sysroot.compose(
            self.stage.sysroot, self.stage.directory.name, self.cross, prerequisites, name, self.cache
        )


@contextmanager
def serving(target: Target, stage: Stage, cache: Path, wanted: Wanted) -> Iterator[HostCompiler]:
    """Run a compile server for nodes of `stage` as long as the context lasts.

    Raises MachineError where the host's compiler cannot stand in for the stage's own.
    """
    if not sandbox.works():
        raise MachineError("bwrap cannot make namespaces here", "apt-get install bubblewrap, and allow user namespaces")
    major = stage.facts["compiler"].split(".")[0]
    names = distcc.compiler_names(target.cross.prefix, major)
    cross = sysroot.find_cross(target, {name: path for name, path in names.items() if name not in _SCRIPTS})
    bare = sysroot.compose(stage.sysroot, stage.directory.name, cross, None, "", cache)
    difference = sysroot.disagreement(bare, stage.signature)
    if difference:
        raise MachineError("the host's cross compiler is not the nodes'", difference)
    compiles = CompileCache(cache / "compiles" / target.name, wanted.cache_mib << 20)
    compiles.prune()
    with CompileServer(compiles, slots=wanted.slots, audit_percent=wanted.audit_percent) as server:
        yield HostCompiler(server, cross, stage, cache)
