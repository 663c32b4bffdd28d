"""Builds on this machine's own kernel, with the real namespaces and the real Portage."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from factories import package as make_package
from processes import eventually
from repos import write_repository

from cluster import paths, target
from cluster.errors import MachineError
from cluster.model import Package
from cluster.node import container, roots
from cluster.node.build import Built, Limits
from cluster.node.job import Materials, Settings

pytestmark = pytest.mark.slow

LIMITS = Limits(total_s=120, silence_s=60)
UNPACK = "src_unpack() { mkdir -p ${S}; }\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("container")
    yield directory
    shutil.rmtree(directory)  # which fails if a layer left what cannot be removed


@pytest.fixture(scope="module")
def root(place: Path) -> roots.Root:
    (place / "host").mkdir()
    found = container.host_root(place / "host", ("sys-devel/gcc-12:12",), container.host_arch())
    try:
        roots.check(found, place / "check")
    except MachineError as error:
        pytest.skip(f"no namespaces here: {error}")
    return found


def build(place: Path, root: roots.Root, body: str, limits: Limits = LIMITS, **options: bool) -> tuple[Built, Path]:
    """Build an ebuild with `body`, in the directory that has the test's name."""
    directory = place / os.environ["PYTEST_CURRENT_TEST"].split("::")[1].split()[0][:60]
    directory.mkdir()
    ebuilds = {"app/small-1": {"KEYWORDS": container.host_arch(), "_body": body}}
    repository = write_repository(directory / "repo", ebuilds, name="small")
    ebuild = repository.location / "app/small/small-1.ebuild"
    package: Package = make_package("app/small-1", repository="small", ebuild=ebuild)
    settings = Settings(
        chost=container.host_chost(),
        profile=paths.data("profiles", container.host_arch()),
        repositories=(repository,),
        jobs=1,
        **options,
    )
    work = directory / "work"
    work.mkdir()
    with (directory / "log").open("wb", buffering=0) as log:
        built = container.build(
            package,
            settings,
            root,
            limits,
            directory=work,
            materials=Materials(directory, {}, ""),
            output=log.write,
            own=lambda pgid: None,
        )
    return built, directory / "log"


def test_a_package_is_built_natively_with_its_phases(place: Path, root: roots.Root) -> None:
    body = UNPACK + "src_compile() { echo 'int main(void) { return 0; }' > a.c; ${CHOST}-gcc a.c -o a || die; }\n"
    before = set(Path("/etc").iterdir())
    built, log = build(place, root, body + "src_install() { dobin a; }\n")
    assert built.failure == "", log.read_text()
    assert built.binpkg is not None
    assert built.binpkg.stat().st_size > 0
    assert {"unpack", "compile", "install", "package"} <= dict(built.phases).keys()
    assert set(Path("/etc").iterdir()) == before


def test_phases_that_do_nothing_are_not_begun(place: Path, root: roots.Root) -> None:
    body = UNPACK + "src_test() { die 'there are no tests'; }\nsrc_install() { :; }\n"
    built, log = build(place, root, body, skip_idle_phases=True)
    assert built.failure == "", log.read_text()
    said = log.read_text()
    assert "cluster: test has nothing to do in this build" in said
    assert "Test phase" not in said
    assert {"setup", "unpack", "prepare", "configure", "compile", "install"} <= dict(built.phases).keys()


def test_a_build_that_fails_names_its_phase_and_the_log_has_the_rest(place: Path, root: roots.Root) -> None:
    built, log = build(place, root, UNPACK + 'src_compile() { die "as asked"; }\n')
    assert built.binpkg is None
    assert built.failure == "compile: exit status 1"
    assert "as asked" in log.read_text()


def test_a_build_that_hangs_is_ended_with_all_its_processes(place: Path, root: roots.Root) -> None:
    body = UNPACK + "src_compile() { echo $$ > /job/out/started; exec -a hanging-build sleep 1000; }\n"
    built, _ = build(place, root, body, Limits(total_s=120, silence_s=8))
    assert built.failure.startswith("compile: printed nothing for 8 s")
    assert eventually(lambda: not any(b"hanging-build" in _read(path) for path in Path("/proc").glob("[0-9]*/cmdline")))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_machine_without_qemu_user_cannot_enter_a_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "_BINFMT", tmp_path)
    with pytest.raises(MachineError, match=r"qemu-aarch64\.conf is missing: apt-get install qemu-user-static"):
        container.registration_of(target.load("arm64"))


def test_a_machine_that_refuses_namespaces_is_told_apart_from_a_failed_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unshare").write_text("#!/bin/sh\necho 'unshare failed: Operation not permitted' >&2\nexit 1\n")
    (tmp_path / "unshare").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(MachineError, match="Operation not permitted"):
        roots.check(roots.Root({}, {}), tmp_path / "place")
