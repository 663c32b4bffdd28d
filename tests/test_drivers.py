"""Node drivers: which there are, and chroots of this machine's own root with a compile server beside them."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import binpkgs
import pytest
from factories import host_root
from processes import eventually, members
from smallbuilds import Builds

from cluster import paths, target
from cluster.errors import MachineError, NodeLost
from cluster.node import client, composed, container, drivers, roots, sandbox
from cluster.node.compilecache import CompileCache
from cluster.node.compileserver import CompileServer
from cluster.node.drivers import ChrootDriver

pytestmark = pytest.mark.slow

SEVEN = """\
src_compile() {
	echo 'int main(void) { return 7; }' > seven.c || die
	gcc -O2 -c seven.c || die
	gcc seven.o -o seven || die
}
src_install() { dobin seven; }
"""
LOOK = """\
src_compile() {
	[[ $(< /usr/share/lib/data) == data ]] || die "the prerequisite is not there"
	[[ $(< /opt/lib/data) == other ]] || die "what of it is not below /usr is not there"
	has_version app/lib || die "Portage does not know it"
	has_version sys-devel/gcc || die "the stage's packages are gone"
	! touch /usr/written 2> /dev/null || die "/usr can be written to"
	! compgen -G "/dev/[sv]d*" || die "the disks of the machine are there"
	[[ ! -e /home && ! -e /host ]] || die "the machine's files are there"
	[[ $(< /proc/sys/kernel/hostname) == node ]] || die "it knows the machine's name"
	! echo changed 2> /dev/null > /proc/sys/kernel/hostname || die "the kernel can be changed"
	: < /dev/fd/0 || die "no descriptors"
}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("drivers")
    yield directory
    shutil.rmtree(directory)  # which fails if a build left what cannot be removed


@pytest.fixture(scope="module")
def driver(place: Path) -> ChrootDriver:
    """Chroots of a stage that is this machine's own root, with Portage in it."""
    (place / "stage").mkdir()
    root = container.host_root(place / "stage", ("sys-devel/gcc-12:12",), container.host_arch())
    try:
        roots.check(root, place / "check")
    except MachineError as error:
        pytest.skip(f"no namespaces here: {error}")
    return ChrootDriver(place / "stage", root, _clients(place), ("sys-devel/gcc-12:12",), place / "cache")


def _clients(place: Path) -> Path:
    return client.ensure(("gcc", "cc"), place / "cache")


@pytest.fixture
def builds(place: Path, driver: ChrootDriver) -> Builds:
    return Builds(place, driver)


def test_compiles_of_a_chroot_are_done_by_the_host(builds: Builds) -> None:
    if not sandbox.works():
        pytest.skip("needs bwrap")
    socket = Path(tempfile.mkdtemp()) / "socket"
    server = CompileServer(CompileCache(builds.directory / "compiles", 1 << 20), slots=1, local=socket)
    with server, server.job(host_root(), builds.directory / "job") as (token, job):
        built = builds.build(SEVEN, access=builds.driver.access(server.port, socket, token))
    shutil.rmtree(socket.parent)
    assert built.failure == "", builds.said.decode()
    assert built.binpkg is not None
    assert job.tally.compiled >= 1, job.tally.refused
    assert built.usage.cpu_s is not None
    assert built.usage.cpu_s > 0.1
    assert built.usage.disk_mib is not None


def test_a_root_has_the_prerequisites_and_nothing_of_the_machine(builds: Builds) -> None:
    items = [
        *(binpkgs.directory("usr"), binpkgs.directory("usr/share"), binpkgs.directory("usr/share/lib")),
        binpkgs.regular("usr/share/lib/data", b"data\n"),
        *(binpkgs.directory("opt"), binpkgs.directory("opt/lib"), binpkgs.regular("opt/lib/data", b"other\n")),
    ]
    built = builds.build(LOOK, binpkgs.gpkg(builds.directory / "lib.gpkg.tar", "app/lib-1", items))
    assert built.failure == "", builds.said.decode()
    assert builds.entered == ["job directory", "build"]


def test_a_build_whose_process_group_is_ended_is_lost_and_not_failed(builds: Builds) -> None:
    def end(said: bytes) -> None:
        if b"as asked" in said:
            os.killpg(builds.groups[0], signal.SIGKILL)

    with pytest.raises(NodeLost, match="ended from outside"):
        builds.build('src_compile() { einfo "as asked"; exec -a ended-build sleep 1000; }\n', whenever=end)
    assert eventually(lambda: not members(builds.groups[0]))


def test_a_root_that_cannot_be_entered_is_no_fault_of_the_package(builds: Builds) -> None:
    missing = replace(builds.driver.root, layers={**builds.driver.root.layers, "opt": (builds.directory / "none",)})
    builds.driver = replace(builds.driver, root=missing)
    with pytest.raises(NodeLost, match=r"the root cannot be entered: .*opt"):
        builds.build("")


def test_a_layer_has_what_an_image_has(tmp_path: Path) -> None:
    items = [
        *(binpkgs.directory("usr", 0o755), binpkgs.directory("usr/closed", 0o500)),
        *(binpkgs.regular("usr/closed/tool", b"ELF", 0o4755), binpkgs.hard_link("usr/closed/same", "usr/closed/tool")),
        *(binpkgs.symlink("usr/link", "/etc/passwd"), binpkgs.directory("etc"), binpkgs.regular("etc/conf", b"conf")),
    ]
    binpkg = binpkgs.gpkg(tmp_path / "tool.gpkg.tar", "app/tool-2", items, SLOT="0")
    layer = composed.layer([binpkg], ("app/tool-1",), tmp_path / "cache")
    assert composed.layer([binpkg], ("app/tool-1",), tmp_path / "cache") == layer
    tool = (layer / "usr/closed/tool").stat()
    assert (tool.st_mode & 0o7777, tool.st_nlink, tool.st_mtime) == (0o4755, 2, binpkgs.BUILT)
    assert (layer / "usr/closed").stat().st_mode & 0o7777 == 0o500
    assert (layer / "usr/link").readlink() == Path("/etc/passwd")
    assert (layer / "other/etc/conf").read_text() == "conf"
    assert os.getxattr(layer / "installed/app/tool-2", "user.overlay.opaque") == b"y"
    whiteout = (layer / "installed/app/tool-1").stat()
    assert stat.S_ISCHR(whiteout.st_mode)
    assert whiteout.st_rdev == 0


def test_what_is_used_is_not_discarded(tmp_path: Path) -> None:
    (tmp_path / "layer").mkdir()
    with paths.used(tmp_path / "layer"), paths.used(tmp_path / "layer"):
        paths.discard(tmp_path / "layer")
        assert (tmp_path / "layer").exists()
    paths.discard(tmp_path / "layer")
    assert not (tmp_path / "layer").exists()


@pytest.mark.parametrize("name", target.names())
def test_every_target_has_expected_speeds(name: str) -> None:
    assert drivers.expected_speed("qemu", name, "x86_64") == 1.0
    chroot = drivers.expected_speed("chroot", name, "x86_64")
    assert chroot > 1 if target.load(name).runs_on("x86_64") else 0 < chroot < 1
    assert drivers.expected_speed("chroot", name, "of no known kind") == 1.0


def test_a_native_chroot_is_expected_to_be_faster_than_any_emulation() -> None:
    assert drivers.expected_speed("chroot", "arm64", "aarch64") > drivers.expected_speed("qemu", "arm64", "aarch64")


def test_a_host_that_runs_a_targets_programs_needs_no_emulator() -> None:
    assert drivers.suited(["amd64", "arm64"], "x86_64") == {"amd64": "chroot", "arm64": "qemu"}
    assert drivers.suited(["amd64", "arm64"], "aarch64") == {"amd64": "qemu", "arm64": "chroot"}
