"""What a host does to build one package: prerequisites in an image, a root for its compiles, a pilot, a node.

It knows nothing of the master's binhost or sources, so that it may run in another process, on another machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from cluster.errors import ClusterError
from cluster.host import distcc
from cluster.host.hostcompiler import CrossCompiler, HostCompiler
from cluster.host.pool import Offer, Pool
from cluster.host.relay import Access, Relay
from cluster.host.runs import Run
from cluster.host.work import Product, Work
from cluster.model import Compiles, Usage
from cluster.node import build as builds
from cluster.node import composed, pilot
from cluster.node.compileserver import Tally
from cluster.node.drivers import Driver
from cluster.node.halves import Away
from cluster.node.job import Materials
from cluster.node.layout import Unfit
from cluster.node.sysroot import Root

Entered = Callable[[str], None]
"""Is told of each phase of a build as it begins."""

_PHASES = {
    b">>> Unpacking": "unpack",
    b">>> Preparing": "prepare",
    b">>> Configuring": "configure",
    b">>> Compiling": "compile",
    b">>> Test phase": "test",
    b">>> Install ": "install",
    b">>> Completed installing": "package",
    b">>> Emerging binary": "prerequisites",
}
_PHASE = re.compile(b"|".join(map(re.escape, _PHASES)))


@dataclass(frozen=True, slots=True)
class Builder:
    """Nodes of one driver, each for one package; may be used from several threads."""

    driver: Driver
    live: Run
    """Owns the files and processes of its nodes."""
    provides: Sequence[str]
    """What the stage has already, as its recipe says."""
    composed: bool = True
    """Whether the host unpacks prerequisites."""
    distcc_hosts: str = ""
    """DISTCC_HOSTS of its nodes; "" for no distccd."""
    compiler: HostCompiler | None = None
    relay: Relay | None = None
    """To the distccds of this host and others; None where there is no pool."""
    offer: Offer | None = None
    """What this host has for a pool; None if nothing, or for no pool."""

    def build(self, work: Work, node: str, log: Path, entered: Entered) -> Product:
        """Build `work` in the fresh node `node`, a name that no other node of this host has, short enough for sockets.

        What the build says goes to the new file `log`, what its pilot says to a second one beside it, and `entered`
        is told of each phase. A build that fails is a value. Raises NodeLost when the node is at fault, and other
        ClusterErrors when this machine is.
        """
        with self._pooled(work) as access, self.live.node_directory(node) as directory:
            hosts = access.offload.hosts if access and self.distcc_hosts else self.distcc_hosts
            work = replace(work, settings=replace(work.settings, distcc_hosts=hosts))
            away = access.away if access else None
            with log.open("wb", buffering=0) as stream:
                built, tally = self._build(work, directory, log, stream.write, entered, away)
            compiles = distcc.count(built.distcc_log) + _counted(tally)
            _conclude(log, built, compiles, tally)
            if built.binpkg is not None:
                built = replace(built, binpkg=built.binpkg.rename(self.live.results(node) / built.binpkg.name))
        pooled = access.served() if access else ()
        elsewhere_s = tally.seconds + sum(one.seconds for one in pooled)
        built = replace(built, usage=_with_compiles(built.usage, elsewhere_s))
        return Product(built, compiles, tally.audited, tuple(tally.differing), pooled)

    def pool(self, pool: Pool) -> None:
        """Which distccds packages that are being built may use from now on."""
        if self.relay is not None:
            self.relay.use(pool)

    def share(self, slots: Mapping[str, int]) -> None:
        """How many of the compile server's slots each node has."""
        if self.compiler is not None:
            self.compiler.server.share(slots)

    def abandon(self, node: str) -> None:
        """End what is being built in `node`, which is then lost."""
        self.live.end(node)

    def stop(self) -> None:
        """End all nodes, and let no new one start."""
        self.live.stop()

    def _pooled(self, work: Work) -> AbstractContextManager[Access | None]:
        """The pool for the compiles of `work`; None where there is none."""
        return nullcontext() if self.relay is None else self.relay.job(work.package.cpv, work.settings.jobs)

    def _build(
        self,
        work: Work,
        directory: Path,
        log: Path,
        output: Callable[[bytes], object],
        entered: Entered,
        away: Away | None,
    ) -> tuple[builds.Built, Tally]:
        with ExitStack() as stack:
            binpkgs = tuple(work.binpkgs.values())
            image = self._composed(binpkgs, output)
            materials = Materials(work.distfiles, binpkgs=work.binpkgs, index=work.index, prerequisites=image)
            tally, ahead = Tally(), Tally()
            if self.compiler is not None and (image is not None or not binpkgs):
                root = self._root(self.compiler.cross, binpkgs)
                if self.compiler.pilot is not None:
                    # A package is not to fail, nor a node to be lost, for want of a pilot.
                    with suppress(ClusterError):
                        flight = self._ahead(self.compiler, work, materials, root, directory, log)
                        ahead = stack.enter_context(flight)
                access, tally = stack.enter_context(
                    self.compiler.job(self.driver, root, directory / "compiles", directory.name, away)
                )
                materials = replace(materials, compile=access)
            built = self.driver.build(
                work.package,
                work.settings,
                work.limits,
                directory=directory,
                materials=materials,
                output=_watched(output, entered),
                own=partial(self.live.own, name=directory.name),
                entered=entered,
            )
            if ahead.compiled:
                output(f"cluster: {ahead.compiled} compiles done by a pilot ahead of the node\n".encode())
        return built, tally

    @contextmanager
    def _ahead(
        self, compiler: HostCompiler, work: Work, materials: Materials, root: Root, directory: Path, log: Path
    ) -> Iterator[Tally]:
        """Let a pilot build `work` too; what the compile server did for it."""
        assert compiler.pilot is not None
        place = directory / "pilot"
        place.mkdir()
        with compiler.ahead(root, place / "compiles", directory.name) as (access, tally):
            flight = pilot.flying(
                compiler.pilot,
                work.package,
                work.settings,
                replace(materials, compile=access),
                root.directory,
                self.provides,
                directory=place,
                log=log.with_suffix(".pilot.log"),
                socket=compiler.socket,
                own=partial(self.live.own, name=directory.name),
            )
            with flight:
                yield tally

    def _root(self, cross: CrossCompiler, binpkgs: Sequence[Path]) -> Root:
        """The root that the node has when it compiles."""
        if not binpkgs:
            return cross.bare
        return cross.root(partial(composed.unpack, binpkgs), composed.key(binpkgs, self.provides))

    def _composed(self, binpkgs: Sequence[Path], output: Callable[[bytes], object]) -> Path | None:
        """What the driver makes of `binpkgs`; None if there are none or only Portage in the node can install them."""
        if not binpkgs or not self.composed:
            return None
        try:
            return self.driver.compose(binpkgs)
        except Unfit as error:
            output(f"The node installs the prerequisites with emerge: {error}\n".encode())
            return None


def _with_compiles(usage: Usage, compiles_s: float) -> Usage:
    return usage if usage.cpu_s is None else replace(usage, cpu_s=round(usage.cpu_s + compiles_s, 2))


def _counted(tally: Tally) -> Compiles:
    wire = tally.received + tally.sent
    here = tally.compiled - tally.away + tally.cached
    return Compiles(host=here, cached=tally.cached, away=tally.away, wire_bytes=wire)


def _conclude(log: Path, built: builds.Built, compiles: Compiles, tally: Tally) -> None:
    """The log's last lines: what the compile server left to others and why, audits, then the totals."""
    spent = ", ".join(f"{name} {seconds:g} s" for name, seconds in built.phases)
    with log.open("a") as stream:
        for reason, times in tally.refused.most_common():
            stream.write(f"cluster: {times} compiles not on the host: {reason}\n")
        for difference in tally.differing:
            stream.write(f"cluster: audit: {difference}\n")
        if tally.audited:
            stream.write(f"cluster: {tally.audited} compiles audited, {len(tally.differing)} differ\n")
        stream.write(f"cluster: compiles: {compiles}; {compiles.wire_bytes / 1e6:.1f} MB over the wire; {spent}\n")


def _watched(write: Callable[[bytes], object], entered: Entered) -> Callable[[bytes], None]:
    """Pass output on, and tell `entered` of the phases that Portage announces in it."""

    def output(data: bytes) -> None:
        write(data)
        found = _PHASE.findall(data)
        if found:
            entered(_PHASES[found[-1]])

    return output
