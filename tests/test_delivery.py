"""The master's part in a job: what a host is given, and whose fault it is when nothing comes of it."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from factories import package

from cluster.errors import ClusterError, MachineError, NodeLost
from cluster.host.work import Product
from cluster.master.binhost import AdmitError
from cluster.master.distfiles import FetchFailed
from cluster.master.engines import delivery as deliveries
from cluster.master.engines.delivery import Delivery, FirstRound
from cluster.model import Compiles, Cpv, Distfile, Job, Outcome, Package, Usage, Verdict
from cluster.node.build import Built, Limits
from cluster.node.job import Settings

SETTINGS = Settings("aarch64-linux-gnu", Path("/profile"), (), 2)
JOB = Job(package("c/x-1", "c/lib-1"), 1)
TOOK = Usage(cpu_s=60.5, memory_mib=700.0, disk_mib=250.5)


class FakeBinhost:
    """Admits all but what is in `refused`."""

    def __init__(self, directory: Path, refused: tuple[str, ...] = ()) -> None:
        self.directory = directory
        self.refused = refused
        self.admitted: list[Path] = []

    def path(self, cpv: Cpv) -> Path:
        return self.directory / f"{cpv}.gpkg.tar"

    def index_of(self, cpvs: tuple[Cpv, ...]) -> str:
        return "PACKAGES: 1\n\n" + "".join(f"CPV: {cpv}\n\n" for cpv in cpvs)

    def admit(self, binpkg: Path, what: Package) -> Path:
        if what.cpv in self.refused:
            raise AdmitError(f"{what.cpv} is not admitted")
        self.admitted.append(binpkg)
        return self.path(what.cpv)


def delivery(tmp_path: Path, *refused: str, first: FirstRound | None = None) -> Delivery:
    binhost: Any = FakeBinhost(tmp_path / "binhost", refused)
    return Delivery(SETTINGS, Limits(60, 60), binhost, tmp_path / "distfiles", (), tmp_path / "logs", first)


def conclude(what: Delivery, came: Product | ClusterError, job: Job = JOB) -> tuple[Outcome, list[str]]:
    phases: list[str] = []
    return what.conclude(job, "node-1", time.monotonic(), came, phases.append), phases


def product(binpkg: Path | None = None, failure: str = "", **fields: Any) -> Product:
    return Product(Built(binpkg, (("compile", 2.0),), "", failure, TOOK), Compiles(host=3), **fields)


def test_work_has_what_the_package_requires_and_its_own_j(tmp_path: Path) -> None:
    phases: list[str] = []
    work = delivery(tmp_path).prepare(Job(JOB.package, 2, jobs=5), phases.append)
    assert work.package == JOB.package
    assert (work.settings.jobs, work.attempt) == (5, 2)
    assert work.binpkgs == {"c/lib-1": tmp_path / "binhost/c/lib-1.gpkg.tar"}
    assert "CPV: c/lib-1" in work.index
    assert phases == ["fetch", "prerequisites"]


def test_work_of_a_second_round_has_what_the_first_made_too(tmp_path: Path) -> None:
    earlier = cast(Any, FakeBinhost(tmp_path / "first"))
    first = FirstRound(earlier, {Cpv("c/x-1"): (Cpv("c/gcc-1"),)})
    work = delivery(tmp_path, first=first).prepare(JOB, lambda phase: None)
    assert work.package.requires == ("c/gcc-1", "c/lib-1")
    assert work.binpkgs[Cpv("c/gcc-1")] == tmp_path / "first/c/gcc-1.gpkg.tar"
    assert work.index == "PACKAGES: 2\n\nCPV: c/gcc-1\n\nCPV: c/lib-1\n\n"


def test_what_is_built_goes_to_the_binhost(tmp_path: Path) -> None:
    ours = delivery(tmp_path)
    outcome, phases = conclude(ours, product(tmp_path / "x-1.gpkg.tar"))
    assert outcome.verdict is Verdict.BUILT
    assert outcome.binpkg == tmp_path / "binhost/c/x-1.gpkg.tar"
    assert cast(Any, ours.binhost).admitted == [tmp_path / "x-1.gpkg.tar"]
    assert phases == ["admit"]


@pytest.mark.parametrize(
    ("came", "verdict", "reason"),
    [
        (product(failure="compile: exit status 1"), Verdict.FAILED, "compile: exit status 1"),
        (product(Path("x"), audited=2, differing=("cc",)), Verdict.FAILED, "audit: 1 of 2 compiles"),
        (FetchFailed("no source of x.tar"), Verdict.FAILED, "no source of x.tar"),
        (NodeLost("QEMU ended"), Verdict.LOST, "QEMU ended"),
        (MachineError("no disk space"), Verdict.LOST, "no disk space"),
    ],
)
def test_whose_fault_it_is(came: Product | ClusterError, verdict: Verdict, reason: str, tmp_path: Path) -> None:
    ours = delivery(tmp_path)
    outcome, phases = conclude(ours, came)
    assert (outcome.verdict, outcome.binpkg) == (verdict, None)
    assert outcome.reason.startswith(reason)
    assert cast(Any, ours.binhost).admitted == []
    assert phases == []


def test_a_package_that_is_not_what_was_asked_for_has_failed(tmp_path: Path) -> None:
    outcome, _ = conclude(delivery(tmp_path, "c/x-1"), product(tmp_path / "x-1.gpkg.tar"))
    assert (outcome.verdict, outcome.reason) == (Verdict.FAILED, "c/x-1 is not admitted")


def test_an_outcome_says_what_the_job_took(tmp_path: Path) -> None:
    sources = (Distfile("x.tar", 70000, (), ()), Distfile("x.patch", 500, (), ()))
    job = Job(package("c/x-1", distfiles=sources), 1)
    outcome, _ = conclude(delivery(tmp_path), product(failure="compile"), job)
    assert (outcome.usage, outcome.jobs, outcome.speed, outcome.source_bytes) == (TOOK, 2, 1.0, 70500)
    assert (outcome.phases, outcome.compiles) == ((("compile", 2.0),), Compiles(host=3))
    assert outcome.log == tmp_path / "logs/c/x-1.log"


def test_sources_are_fetched_before_a_host_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    fake = SimpleNamespace(fetch=lambda distfile, *rest: fetched.append(distfile.name), FetchFailed=FetchFailed)
    monkeypatch.setattr(deliveries, "distfiles", fake)
    job = Job(package("c/x-1", distfiles=(Distfile("x.tar", 7, (), ()),)), 1)
    work = delivery(tmp_path).prepare(job, lambda phase: None)
    assert fetched == ["x.tar"]
    assert work.distfiles == tmp_path / "distfiles"
