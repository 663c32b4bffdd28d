"""What the local engine hands to a build."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import binpkgs
import pytest
from factories import package

from cluster.master import engines
from cluster.model import Cpv, Distfile, Job, Usage, Verdict
from cluster.node.build import Built
from cluster.node.job import Materials


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[Materials]:
    """The materials of the builds, all of which fail."""
    seen: list[Materials] = []

    def build(*arguments: object, materials: Materials, **rest: object) -> Built:
        seen.append(materials)
        return Built(None, (), "", "compile: exit status 1")

    monkeypatch.setattr(engines.builds, "build", build)
    return seen


@pytest.fixture
def engine(tmp_path: Path) -> engines.LocalEngine:
    @contextmanager
    def node_directory(name: str) -> Iterator[Path]:
        yield tmp_path / name

    def path(cpv: Cpv) -> Path:
        return tmp_path / f"{cpv}.gpkg.tar"

    nothing: Any = None
    return engines.LocalEngine(
        hardware=nothing,
        settings=cast(Any, SimpleNamespace(jobs=2)),
        limits=nothing,
        live=cast(Any, SimpleNamespace(node_directory=node_directory, own=lambda pgid: None)),
        binhost=cast(Any, SimpleNamespace(path=path, index_of=lambda cpvs: "index")),
        distdir=tmp_path / "distfiles",
        providers=(),
        logs=tmp_path / "logs",
        cache=tmp_path / "cache",
        provides=("dev-build/make-4.3",),
    )


def run(engine: engines.LocalEngine, *requires: str) -> str:
    """Build c/x-1 and return its log."""
    outcome = engine.run(Job(package("c/x-1", *requires), 1), "node-1", lambda phase: None)
    assert outcome.verdict is Verdict.FAILED
    assert outcome.log is not None
    *log, last = outcome.log.read_text().splitlines()
    assert last.startswith("cluster: compiles: ")
    return "\n".join(log)


def test_prerequisites_come_as_an_image(tmp_path: Path, engine: engines.LocalEngine, given: list[Materials]) -> None:
    binpkgs.gpkg(tmp_path / "c/lib-1.gpkg.tar", "c/lib-1", [binpkgs.regular("usr/lib/x")])
    assert run(engine, "c/lib-1") == ""
    assert run(engine, "c/lib-1") == ""
    first, second = given
    assert first.prerequisites == second.prerequisites
    assert first.prerequisites is not None
    assert first.prerequisites.parent == tmp_path / "cache/prerequisites"


def test_no_prerequisites_are_no_image(tmp_path: Path, engine: engines.LocalEngine, given: list[Materials]) -> None:
    run(engine)
    assert given[0].prerequisites is None
    assert not (tmp_path / "cache").exists()


def test_the_node_installs_what_has_a_phase_for_it(
    tmp_path: Path, engine: engines.LocalEngine, given: list[Materials]
) -> None:
    binpkgs.gpkg(tmp_path / "c/lib-1.gpkg.tar", "c/lib-1", [], DEFINED_PHASES="install postinst")
    log = run(engine, "c/lib-1")
    assert log == "The node installs the prerequisites with emerge: c/lib-1 has pkg_postinst"
    assert given[0].prerequisites is None
    assert given[0].binpkgs == {"c/lib-1": tmp_path / "c/lib-1.gpkg.tar"}


def test_a_damaged_prerequisite_is_not_the_packages_fault(
    tmp_path: Path, engine: engines.LocalEngine, given: list[Materials]
) -> None:
    binpkgs.gpkg(tmp_path / "c/lib-1.gpkg.tar", "c/lib-1", []).write_bytes(b"not a tar file")
    outcome = engine.run(Job(package("c/x-1", "c/lib-1"), 1), "node-1", lambda phase: None)
    assert outcome.verdict is Verdict.LOST
    assert "lib-1.gpkg.tar is not a sound GPKG" in outcome.reason
    assert given == []


def test_an_outcome_says_what_the_job_took(engine: engines.LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    took = Usage(cpu_s=60.5, memory_mib=700.0, disk_mib=250.5)
    monkeypatch.setattr(engines.builds, "build", lambda *arguments, **rest: Built(None, (), "", "compile", took))
    monkeypatch.setattr(engines.distfiles, "fetch", lambda *arguments: None)
    sources = (Distfile("x.tar", 70000, (), ()), Distfile("x.patch", 500, (), ()))
    outcome = engine.run(Job(package("c/x-1", distfiles=sources), 1), "node-1", lambda phase: None)
    assert (outcome.usage, outcome.jobs, outcome.speed, outcome.source_bytes) == (took, 2, 1.0, 70500)
