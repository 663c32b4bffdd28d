"""Where a job runs. One engine so far: QEMU nodes on this machine."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from cluster.errors import ClusterError, NodeLost
from cluster.master import distcc, distfiles
from cluster.master.binhost import AdmitError, Binhost, joined
from cluster.master.hostcompiler import CrossCompiler, HostCompiler
from cluster.master.runs import Run
from cluster.model import Compiles, Cpv, Job, Outcome, Package, Usage, Verdict
from cluster.node import build as builds
from cluster.node import composed, pilot
from cluster.node.compileserver import Tally
from cluster.node.job import Materials, Settings
from cluster.node.layout import Unfit
from cluster.node.node import Hardware
from cluster.node.sysroot import Root

Entered = Callable[[str], None]

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


class Engine(Protocol):
    """Runs one job at a time on each of its nodes; may be called from several threads."""

    def run(self, job: Job, node: str, entered: Entered) -> Outcome:
        """Run `job` on `node` to its outcome, telling `entered` of each phase."""
        ...

    def share(self, slots: Mapping[str, int]) -> None:
        """How many of the compile slots each node has from now on, where all want more than there are."""
        ...

    def stop(self) -> None:
        """End all that runs, so that `run` returns soon."""
        ...


@dataclass(frozen=True, slots=True)
class FirstRound:
    """What was built before the plan and is in its nodes."""

    binhost: Binhost
    base: Mapping[Cpv, tuple[Cpv, ...]]
    """The packages of it that the node of each package of the plan has."""


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """QEMU nodes on this machine, each booted for one package and thrown away."""

    hardware: Hardware
    settings: Settings
    limits: builds.Limits
    live: Run
    binhost: Binhost
    distdir: Path
    providers: Sequence[distfiles.Provider]
    logs: Path
    cache: Path
    provides: Sequence[str]
    """What the stage has already, as its recipe says."""
    composed: bool = True
    """Whether the host unpacks prerequisites."""
    compiler: HostCompiler | None = None
    first: FirstRound | None = None
    """What is in the nodes besides what each package requires."""

    def run(self, job: Job, node: str, entered: Entered) -> Outcome:
        """Fetch, build in a fresh node, admit."""
        start = time.monotonic()
        package = job.package
        settings = self.settings if job.jobs is None else replace(self.settings, jobs=job.jobs)
        log = self.logs / package.category / f"{package.pf}.log"
        log.parent.mkdir(parents=True, exist_ok=True)

        tally = Tally()

        def ended(verdict: Verdict, reason: str = "", built: builds.Built | None = None) -> Outcome:
            return Outcome(
                cpv=package.cpv,
                verdict=verdict,
                node=node,
                attempt=job.attempt,
                phases=built.phases if built else (),
                seconds=round(time.monotonic() - start, 2),
                usage=_with_compiles(built.usage, tally) if built else Usage(),
                jobs=settings.jobs,
                source_bytes=package.source_bytes,
                compiles=distcc.count(built.distcc_log if built else "") + _counted(tally),
                log=log,
                binpkg=self.binhost.path(package.cpv) if verdict is Verdict.BUILT else None,
                reason=reason,
            )

        try:
            entered("fetch")
            for distfile in package.distfiles:
                distfiles.fetch(distfile, self.distdir, self.providers)
            with self.live.node_directory(node) as directory:
                built, tally = self._build(package, settings, directory, log, entered)
                _conclude(log, built, distcc.count(built.distcc_log) + _counted(tally), tally)
                if tally.differing:
                    return ended(Verdict.FAILED, _audit_failure(tally), built)
                if built.binpkg is None:
                    return ended(Verdict.FAILED, built.failure, built)
                entered("admit")
                self.binhost.admit(built.binpkg, package)
            return ended(Verdict.BUILT, built=built)
        except NodeLost as error:
            return ended(Verdict.LOST, str(error))
        except (AdmitError, distfiles.FetchFailed) as error:
            return ended(Verdict.FAILED, str(error))
        except ClusterError as error:  # this machine's fault: no disk space, a missing program
            return ended(Verdict.LOST, str(error))

    def share(self, slots: Mapping[str, int]) -> None:
        """How many of the compile server's slots each node has."""
        if self.compiler is not None:
            self.compiler.server.share(slots)

    def stop(self) -> None:
        """End the nodes."""
        self.live.stop()

    def _build(
        self, package: Package, settings: Settings, directory: Path, log: Path, entered: Entered
    ) -> tuple[builds.Built, Tally]:
        with log.open("wb", buffering=0) as stream, ExitStack() as stack:
            entered("prerequisites")
            package, binpkgs, index = self._prerequisites(package)
            image = self._composed(tuple(binpkgs.values()), stream.write)
            materials = Materials(
                distfiles=self.distdir,
                binpkgs=binpkgs,
                index=index,
                prerequisites=image,
            )
            tally, ahead = Tally(), Tally()
            if self.compiler is not None and (image is not None or not binpkgs):
                root = self._root(self.compiler.cross, tuple(binpkgs.values()))
                if self.compiler.pilot is not None:
                    # A package is not to fail, nor a node to be lost, for want of a pilot.
                    with suppress(ClusterError):
                        flight = self._ahead(self.compiler, package, settings, materials, root, directory, log)
                        ahead = stack.enter_context(flight)
                access, tally = stack.enter_context(self.compiler.job(root, directory / "compiles", directory.name))
                materials = replace(materials, compile=access)
            built = builds.build(
                package,
                settings,
                self.hardware,
                self.limits,
                directory=directory,
                materials=materials,
                output=_watched(stream.write, entered),
                own=self.live.own,
                entered=entered,
            )
            if ahead.compiled:
                stream.write(f"cluster: {ahead.compiled} compiles done by a pilot ahead of the node\n".encode())
        return built, tally

    def _prerequisites(self, package: Package) -> tuple[Package, dict[Cpv, Path], str]:
        """`package` with all that its node is to have, the files of that, and an index of them."""
        own = {cpv: self.binhost.path(cpv) for cpv in package.requires}
        index = self.binhost.index_of(package.requires)
        if self.first is None or not (base := self.first.base.get(package.cpv)):
            return package, own, index
        earlier = {cpv: self.first.binhost.path(cpv) for cpv in base}
        package = replace(package, requires=(*base, *package.requires))
        return package, {**earlier, **own}, joined((self.first.binhost.index_of(base), index))

    @contextmanager
    def _ahead(
        self,
        compiler: HostCompiler,
        package: Package,
        settings: Settings,
        materials: Materials,
        root: Root,
        directory: Path,
        log: Path,
    ) -> Iterator[Tally]:
        """Let a pilot build `package` too; what the compile server did for it."""
        assert compiler.pilot is not None
        place = directory / "pilot"
        place.mkdir()
        with compiler.ahead(root, place / "compiles", directory.name) as (access, tally):
            flight = pilot.flying(
                compiler.pilot,
                package,
                settings,
                replace(materials, compile=access),
                root.directory,
                self.provides,
                directory=place,
                log=log.with_suffix(".pilot.log"),
                socket=compiler.socket,
                own=self.live.own,
            )
            with flight:
                yield tally

    def _root(self, cross: CrossCompiler, binpkgs: Sequence[Path]) -> Root:
        """The root that the node has when it compiles."""
        if not binpkgs:
            return cross.bare
        return cross.root(partial(composed.unpack, binpkgs), composed.key(binpkgs, self.provides))

    def _composed(self, binpkgs: Sequence[Path], output: Callable[[bytes], object]) -> Path | None:
        """The image of `binpkgs`; None if there are none, or if only Portage in the node can install them."""
        if not binpkgs or not self.composed:
            return None
        try:
            return composed.image(binpkgs, self.provides, self.cache)
        except Unfit as error:
            output(f"The node installs the prerequisites with emerge: {error}\n".encode())
            return None


def _with_compiles(usage: Usage, tally: Tally) -> Usage:
    return usage if usage.cpu_s is None else replace(usage, cpu_s=round(usage.cpu_s + tally.seconds, 2))


def _counted(tally: Tally) -> Compiles:
    wire = tally.received + tally.sent
    return Compiles(host=tally.compiled + tally.cached, cached=tally.cached, wire_bytes=wire)


def _audit_failure(tally: Tally) -> str:
    return f"audit: {len(tally.differing)} of {tally.audited} compiles are not the node's own, as {tally.differing[0]}"


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
