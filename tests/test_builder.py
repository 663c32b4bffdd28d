"""What a host hands to a build, and what it gives back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import binpkgs
import pytest
from factories import package

from cluster.errors import ClusterError
from cluster.host.builder import Builder
from cluster.host.distcc import Offload
from cluster.host.pool import Member, Pool
from cluster.host.relay import Access, Elsewhere, Relay
from cluster.host.runs import Run
from cluster.host.work import Product, Work
from cluster.model import Compiles, Cpv, Served, Usage
from cluster.node import drivers
from cluster.node.build import Built, Limits
from cluster.node.compileserver import Tally
from cluster.node.job import Materials, Settings

SETTINGS = Settings("aarch64-linux-gnu", Path("/profile"), (), 2)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[Materials]:
    """The materials of the builds, all of which fail."""
    seen: list[Materials] = []

    def build(*arguments: object, materials: Materials, **rest: object) -> Built:
        seen.append(materials)
        return Built(None, (), "", "compile: exit status 1")

    monkeypatch.setattr(drivers.builds, "build", build)
    return seen


@pytest.fixture
def builder(tmp_path: Path) -> Iterator[Builder]:
    nothing: Any = None
    with Run(tmp_path / "state") as live:
        provides = ("dev-build/make-4.3",)
        driver = drivers.QemuDriver(nothing, provides, tmp_path / "cache")
        yield Builder(driver, live, provides, distcc_hosts="10.0.2.2:3632/4")


def build(builder: Builder, place: Path, *requires: str) -> Product:
    """Build c/x-1, which needs `requires` from `place`."""
    files = {Cpv(cpv): place / f"{cpv}.gpkg.tar" for cpv in requires}
    work = Work(package("c/x-1", *requires), SETTINGS, Limits(60, 60), place / "distfiles", files, "index")
    return builder.build(work, "node-1", place / "x-1.log", lambda phase: None)


def log_of(place: Path) -> str:
    *log, last = (place / "x-1.log").read_text().splitlines()
    assert last.startswith("cluster: compiles: ")
    return "\n".join(log)


def test_prerequisites_come_as_an_image(tmp_path: Path, builder: Builder, given: list[Materials]) -> None:
    binpkgs.gpkg(tmp_path / "c/lib-1.gpkg.tar", "c/lib-1", [binpkgs.regular("usr/lib/x")])
    for _ in range(2):
        assert build(builder, tmp_path, "c/lib-1").failure == "compile: exit status 1"
        assert log_of(tmp_path) == ""
    first, second = given
    assert first.prerequisites == second.prerequisites
    assert first.prerequisites is not None
    assert first.prerequisites.parent == tmp_path / "cache/prerequisites"


def test_no_prerequisites_are_no_image(tmp_path: Path, builder: Builder, given: list[Materials]) -> None:
    build(builder, tmp_path)
    assert given[0].prerequisites is None
    assert not (tmp_path / "cache").exists()


def test_the_node_installs_what_has_a_phase_for_it(tmp_path: Path, builder: Builder, given: list[Materials]) -> None:
    binpkgs.gpkg(tmp_path / "c/lib-1.gpkg.tar", "c/lib-1", [], DEFINED_PHASES="install postinst")
    build(builder, tmp_path, "c/lib-1")
    assert log_of(tmp_path) == "The node installs the prerequisites with emerge: c/lib-1 has pkg_postinst"
    assert given[0].prerequisites is None
    assert given[0].binpkgs == {"c/lib-1": tmp_path / "c/lib-1.gpkg.tar"}


def test_a_damaged_prerequisite_is_told_and_nothing_is_built(
    tmp_path: Path, builder: Builder, given: list[Materials]
) -> None:
    binpkgs.gpkg(tmp_path / "c/lib-1.gpkg.tar", "c/lib-1", []).write_bytes(b"not a tar file")
    with pytest.raises(ClusterError, match=r"lib-1\.gpkg\.tar is not a sound GPKG"):
        build(builder, tmp_path, "c/lib-1")
    assert given == []


def test_a_package_outlives_its_node_until_the_next_one(
    tmp_path: Path, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    took = Usage(cpu_s=60.5, memory_mib=700.0)
    seen: list[Settings] = []

    def make(what: object, settings: Settings, *rest: object, directory: Path, entered: Any, **others: Any) -> Built:
        seen.append(settings)
        others["output"](b"* x\n>>> Compiling source\n")
        (directory / "x-1.gpkg.tar").write_text(f"build {len(seen)}")
        return Built(directory / "x-1.gpkg.tar", (("compile", 1.5),), "", usage=took)

    monkeypatch.setattr(drivers.builds, "build", make)
    first, second = (build(builder, tmp_path) for _ in range(2))
    assert first.built.binpkg == second.built.binpkg
    assert second.built.binpkg is not None
    assert second.built.binpkg.read_text() == "build 2"
    assert (second.failure, second.built.usage) == ("", took)
    assert list((builder.live.directory / "nodes").iterdir()) == []
    assert log_of(tmp_path) == "* x\n>>> Compiling source"


def test_where_distccd_listens_is_what_the_host_says(
    tmp_path: Path, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Settings] = []

    def fail(what: object, settings: Settings, *rest: object, **others: object) -> Built:
        seen.append(settings)
        return Built(None, (), "", "compile")

    monkeypatch.setattr(drivers.builds, "build", fail)
    build(builder, tmp_path)
    assert [(one.distcc_hosts, one.jobs) for one in seen] == [("10.0.2.2:3632/4", 2)]


def test_a_node_of_a_pool_uses_the_relay(tmp_path: Path, builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Settings] = []

    def fail(what: object, settings: Settings, *rest: object, **others: object) -> Built:
        seen.append(settings)
        return Built(None, (), "", "compile", usage=Usage(cpu_s=3.0))

    monkeypatch.setattr(drivers.builds, "build", fail)
    with Relay("gcc", "here") as relay:
        builder = replace(builder, relay=relay)
        builder.pool(Pool(tuple(Member(f"h{number}", "127.0.0.1", 3632, 4) for number in range(2))))
        product = build(builder, tmp_path)
    assert seen[0].distcc_hosts != "10.0.2.2:3632/4"
    assert seen[0].distcc_hosts.endswith("/2")  # as many as make starts
    assert product.served == ()
    assert product.built.usage.cpu_s == 3.0


def test_what_a_pool_compiled_was_used_by_the_package(
    tmp_path: Path, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def pooled(self: Builder, work: object) -> Iterator[Access]:
        did = Served("a", 2, seconds=4.0), Served("b", 1, seconds=1.5)
        nowhere: Any = None
        yield Access(Offload(3632, 4), lambda: did, nowhere)

    def succeed(*what: object, **others: object) -> Built:
        return Built(None, (), "", "compile", usage=Usage(cpu_s=3.0))

    monkeypatch.setattr(drivers.builds, "build", succeed)
    monkeypatch.setattr(Builder, "_pooled", pooled)
    assert build(builder, tmp_path).built.usage.cpu_s == 8.5


class Compiler:
    """A compile server's side, that has done some compiles by the end; notes who could do others."""

    pilot = None
    cross = SimpleNamespace(bare=None)

    def __init__(self) -> None:
        self.away: list[object] = []

    @contextmanager
    def job(self, driver: object, root: object, directory: Path, node: str, away: object) -> Iterator[Any]:
        self.away.append(away)
        yield None, Tally(compiled=5, cached=2, away=3)


def test_what_other_hosts_compile_for_the_compile_server_is_counted_apart(
    tmp_path: Path, builder: Builder, given: list[Materials]
) -> None:
    compiler: Any = Compiler()
    alone = build(replace(builder, compiler=compiler), tmp_path)
    with Relay("gcc", "here") as relay:
        pooled = build(replace(builder, compiler=compiler, relay=relay), tmp_path)
    assert alone.compiles == pooled.compiles == Compiles(host=4, cached=2, away=3)
    assert str(alone.compiles) == "4 on the host (2 cached), 3 on others, 0 by distcc, 0 local"
    assert compiler.away[0] is None
    assert isinstance(compiler.away[1], Elsewhere)


def test_a_compile_that_differs_fails_the_package_and_names_the_first() -> None:
    built = Built(Path("x.gpkg.tar"), (), "")
    from_audit = Product(built, compiles=Compiles(), audited=7, differing=("gcc -c a.c", "gcc -c b.c"))
    assert from_audit.failure == "audit: 2 of 7 compiles are not the node's own, as gcc -c a.c"
