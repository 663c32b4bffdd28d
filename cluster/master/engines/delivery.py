"""What the master does for a job, wherever it is built: sources and prerequisites before, verdict and binhost after."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cluster.errors import ClusterError
from cluster.host.builder import Entered
from cluster.host.work import Product, Work
from cluster.master import distfiles
from cluster.master.binhost import AdmitError, Binhost, joined
from cluster.model import Compiles, Cpv, Job, Outcome, Package, Usage, Verdict
from cluster.node.build import Limits
from cluster.node.job import Settings


@dataclass(frozen=True, slots=True)
class FirstRound:
    """What was built before the plan and is in its nodes."""

    binhost: Binhost
    base: Mapping[Cpv, tuple[Cpv, ...]]
    """The packages of it that the node of each package of the plan has."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """The master's part in the jobs of a run; may be used from several threads."""

    settings: Settings
    limits: Limits
    binhost: Binhost
    distdir: Path
    providers: Sequence[distfiles.Provider]
    logs: Path
    first: FirstRound | None = None
    """What is in the nodes besides what each package requires."""

    def prepare(self, job: Job, entered: Entered) -> Work:
        """Fetch the sources of `job` and find its prerequisites. Raises ClusterError."""
        entered("fetch")
        for distfile in job.package.distfiles:
            distfiles.fetch(distfile, self.distdir, self.providers)
        entered("prerequisites")
        package, binpkgs, index = self._prerequisites(job.package)
        return Work(package, self._settings(job), self.limits, self.distdir, binpkgs, index, job.attempt)

    def log(self, package: Package) -> Path:
        """The file that the log of `package` is to be; its directory is there."""
        path = self.logs / package.category / f"{package.pf}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def conclude(self, job: Job, node: str, began: float, came: Product | ClusterError, entered: Entered) -> Outcome:
        """Admit what came of `job`, which was given to `node` when time.monotonic() was `began`; how it ended."""
        product = came if isinstance(came, Product) else None
        verdict, reason = self._verdict(job.package, came, entered)
        return Outcome(
            cpv=job.package.cpv,
            verdict=verdict,
            node=node,
            attempt=job.attempt,
            phases=product.built.phases if product else (),
            seconds=round(time.monotonic() - began, 2),
            usage=product.built.usage if product else Usage(),
            jobs=self._settings(job).jobs,
            source_bytes=job.package.source_bytes,
            compiles=product.compiles if product else Compiles(),
            served=product.served if product else (),
            log=self.log(job.package),
            binpkg=self.binhost.path(job.package.cpv) if verdict is Verdict.BUILT else None,
            reason=reason,
        )

    def _verdict(self, package: Package, came: Product | ClusterError, entered: Entered) -> tuple[Verdict, str]:
        """Whose fault it is if it is not built, and why."""
        try:
            if isinstance(came, ClusterError):
                raise came
            if came.failure or came.built.binpkg is None:
                return Verdict.FAILED, came.failure
            entered("admit")
            self.binhost.admit(came.built.binpkg, package)
        except (AdmitError, distfiles.FetchFailed) as error:
            return Verdict.FAILED, str(error)
        except ClusterError as error:  # the node's, or its host's: no disk space, a missing program
            return Verdict.LOST, str(error)
        return Verdict.BUILT, ""

    def _settings(self, job: Job) -> Settings:
        return self.settings if job.jobs is None else replace(self.settings, jobs=job.jobs)

    def _prerequisites(self, package: Package) -> tuple[Package, dict[Cpv, Path], str]:
        """`package` with all that its node is to have, the files of that, and an index of them."""
        own = {cpv: self.binhost.path(cpv) for cpv in package.requires}
        index = self.binhost.index_of(package.requires)
        if self.first is None or not (base := self.first.base.get(package.cpv)):
            return package, own, index
        earlier = {cpv: self.first.binhost.path(cpv) for cpv in base}
        package = replace(package, requires=(*base, *package.requires))
        return package, {**earlier, **own}, joined((self.first.binhost.index_of(base), index))
