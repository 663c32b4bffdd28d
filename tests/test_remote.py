"""Builds over ssh on a machine that is this one, in a directory of its own."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import binpkgs
import pytest
import sshd
from processes import eventually
from smallbuilds import Builds

from cluster.errors import MachineError, NodeLost
from cluster.node import container, roots
from cluster.node.build import Limits
from cluster.node.remote import Board, SshDriver

pytestmark = [pytest.mark.slow, sshd.needed]

LOOK = """\
src_compile() {
	[[ $(< /usr/share/lib/data) == data ]] || die "the prerequisite is not there"
	has_version app/lib || die "Portage does not know it"
	has_version sys-devel/gcc || die "the stage's packages are gone"
	! touch /usr/written 2> /dev/null || die "/usr can be written to"
	echo 'int main(void) { return 0; }' > a.c; ${CHOST}-gcc a.c -o a || die
}
src_install() { dobin a; fowners 12:34 /usr/bin/a; }
"""
WAIT = 'src_compile() { einfo "as asked"; exec -a build-on-board sleep 1000; }\n'


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("remote")
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def driver(place: Path) -> Iterator[SshDriver]:
    """The machine's stage is its own root, with Portage in it."""
    stage, keys = place / "stage", place / "keys"
    stage.mkdir()
    keys.mkdir()
    root = container.host_root(stage, ("sys-devel/gcc-12:12",), container.host_arch())
    try:
        roots.check(root, place / "check")
    except MachineError as error:
        pytest.skip(f"no namespaces here: {error}")
    with sshd.serving(keys) as server:
        public = (keys / "host_key.pub").read_text()
        board = Board("board", "127.0.0.1", server.port, public, keys / "id", PurePosixPath(place / "board"))
        yield SshDriver(board, stage, root, ("sys-devel/gcc-12:12",), place / "cache")


@pytest.fixture
def builds(place: Path, driver: SshDriver) -> Builds:
    return Builds(place, driver)


def left_on(driver: SshDriver) -> list[str]:
    return [path.name for path in Path(driver.board.directory / "builds").iterdir()]


def running(name: bytes) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if name in path.read_bytes():
                return True
        except OSError:
            continue
    return False


def test_a_package_comes_back_and_nothing_of_it_stays(builds: Builds, driver: SshDriver) -> None:
    items = [
        *(binpkgs.directory("usr"), binpkgs.directory("usr/share"), binpkgs.directory("usr/share/lib")),
        binpkgs.regular("usr/share/lib/data", b"data\n"),
    ]
    binpkg = binpkgs.gpkg(builds.directory / "lib.gpkg.tar", "app/lib-1", items)
    built = builds.build(LOOK, binpkg)
    assert built.failure == "", builds.said.decode()
    assert built.binpkg is not None
    assert built.binpkg.stat().st_size > 0
    assert {"compile", "install", "package"} <= dict(built.phases).keys()
    assert builds.entered == ["copy", "build", "results"]
    assert left_on(driver) == []
    kept = Path(driver.board.directory)
    assert [path.name for path in (kept / "roots").iterdir()] == ["stage"]
    assert [path.name for path in (kept / "layers").iterdir()] == [driver.compose([binpkg]).stem]


def test_a_build_that_fails_names_its_phase_and_what_a_crash_left_is_swept(builds: Builds, driver: SshDriver) -> None:
    left = Path(driver.board.directory / "builds/earlier")
    (left / "job").mkdir(parents=True)
    left.with_name("earlier.lock").touch()
    built = builds.build('src_compile() { die "as asked"; }\n')
    assert built.failure == "compile: exit status 1"
    assert b"as asked" in builds.said
    assert left_on(driver) == []


def test_a_build_that_hangs_is_ended_there(builds: Builds, driver: SshDriver) -> None:
    built = builds.build(WAIT, limits=Limits(total_s=120, silence_s=8))
    assert built.failure.startswith("compile: printed nothing for 8 s")
    assert eventually(lambda: not running(b"build-on-board"))
    assert eventually(lambda: left_on(driver) == [])


def test_a_build_is_ended_with_the_connection_whoever_cuts_it(builds: Builds, driver: SshDriver) -> None:
    def cut(said: bytes) -> None:
        if b"as asked" in said:
            os.killpg(builds.groups[0], signal.SIGKILL)

    with pytest.raises(NodeLost, match="the connection to the node broke"):
        builds.build(WAIT, whenever=cut)
    assert eventually(lambda: not running(b"build-on-board"))
    assert eventually(lambda: left_on(driver) == [])


def test_a_machine_without_room_is_no_fault_of_the_package(builds: Builds, driver: SshDriver, place: Path) -> None:
    (place / "file").touch()
    full = replace(driver.board, directory=PurePosixPath(place / "file/below"))
    builds.driver = replace(driver, board=full)
    with pytest.raises(NodeLost, match=r"board cannot take roots/stage: .*Not a directory"):
        builds.build("")


def test_a_machine_with_another_key_is_not_spoken_to(builds: Builds, driver: SshDriver) -> None:
    stranger = (driver.board.identity or Path()).with_name("stranger.pub").read_text()
    builds.driver = replace(driver, board=replace(driver.board, host_key=stranger))
    with pytest.raises(NodeLost, match="ssh keys are not"):
        builds.build("")
