"""A stage's root directory: dpkg's database and Portage's prefix, read by dpkg and by Python."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.node.rootfs import install_portage, record_unpacked

pytestmark = pytest.mark.slow

CONTROL = """\
Package: {name}
Version: 1:2.0-1
Architecture: arm64
Multi-Arch: {multi}
Maintainer: Nobody <nobody@example.org>
Depends: libc6 (>= 2.36)
Description: a small thing
 With a second line.
 .
 And a third.
"""


def make_deb(work: Path, archives: Path, name: str, multi: str) -> None:
    tree = work / name
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(CONTROL.format(name=name, multi=multi))
    (tree / "DEBIAN/postinst").write_text("#!/bin/sh\nexit 0\n")
    (tree / "DEBIAN/postinst").chmod(0o755)
    (tree / f"usr/share/{name}").mkdir(parents=True)
    (tree / f"usr/share/{name}/.hidden").write_text("x")
    (tree / f"usr/share/{name}/with space").write_text("x")
    archives.mkdir(parents=True, exist_ok=True)
    deb = archives / f"{name}_1%3a2.0-1_arm64.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", tree, deb], check=True, capture_output=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root as mmdebstrap's `extract` leaves it, with two packages."""
    root = tmp_path / "root"
    archives = root / "var/cache/apt/archives"
    make_deb(tmp_path / "work", archives, "thing", "foreign")
    make_deb(tmp_path / "work", archives, "libthing1", "same")
    (root / "var/lib/dpkg/info").mkdir(parents=True)
    for name in ("status", "available", "info/format"):
        (root / "var/lib/dpkg" / name).write_text("1\n" if name == "info/format" else "")
    return root


def dpkg(root: Path, *words: str) -> str:
    program = "dpkg-query" if words[0] == "--control-path" else "dpkg"
    argv = [program, f"--admindir={root}/var/lib/dpkg", *words]
    env = {**os.environ, "LC_ALL": "C"}
    ended = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, env=env)
    assert ended.returncode == 0, ended.stderr
    assert not ended.stderr
    return ended.stdout


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg")
def test_dpkg_reads_what_was_recorded(root: Path) -> None:
    assert record_unpacked(root) == 2
    for name in ("thing", "libthing1"):
        told = dpkg(root, "-s", f"{name}:arm64")
        assert "Status: install ok unpacked\n" in told
        assert "Version: 1:2.0-1\n" in told
        assert "Depends: libc6 (>= 2.36)\n" in told
        assert " With a second line.\n .\n And a third.\n" in told
        listed = dpkg(root, "-L", f"{name}:arm64").splitlines()
        assert listed[0] == "/."
        assert set(listed[1:]) == {
            *("/usr", "/usr/share", f"/usr/share/{name}"),
            *(f"/usr/share/{name}/.hidden", f"/usr/share/{name}/with space"),
        }


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg")
def test_maintainer_scripts_are_where_dpkg_looks(root: Path) -> None:
    record_unpacked(root)
    for name in ("thing:arm64", "libthing1:arm64"):
        path = dpkg(root, "--control-path", name, "postinst").strip()
        assert Path(path).read_text() == "#!/bin/sh\nexit 0\n"
        assert os.access(path, os.X_OK)
    assert not list((root / "var/lib/dpkg/info").glob("*.control"))


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg")
def test_the_archives_are_gone(root: Path) -> None:
    record_unpacked(root)
    archives = root / "var/cache/apt/archives"
    assert [path.name for path in archives.rglob("*")] == ["partial"]


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    (root / "usr/bin").mkdir(parents=True)
    install_portage(root, f"python{sys.version_info.major}.{sys.version_info.minor}", "/usr/lib/cluster/python")
    return root / "opt/portage"


def test_no_script_names_the_masters_python(prefix: Path) -> None:
    for path in [*(prefix / "bin").iterdir(), *(prefix / "lib/portage/bin").rglob("*")]:
        if path.is_file() and not path.is_symlink():
            first = path.read_bytes().partition(b"\n")[0]
            assert sys.prefix.encode() not in first
            if first.startswith(b"#!") and b"python" in first:
                assert first == b"#!/opt/portage/bin/python3"


def test_portages_defaults_do_not_name_gentoos_repository(prefix: Path) -> None:
    assert not (prefix / "share/portage/config/repos.conf").exists()
    assert (prefix / "share/portage/config/make.globals").exists()
    assert (prefix / "etc/portage").readlink() == Path("/etc/portage")


def test_the_commands_are_on_the_path(prefix: Path) -> None:
    for name in ("emerge", "ebuild", "portageq"):
        wrapper = prefix.parents[1] / "usr/local/bin" / name
        subprocess.run(["sh", "-n", wrapper], check=True)
        assert os.access(wrapper, os.X_OK)
        assert f"exec /usr/lib/cluster/python /opt/portage/lib/portage/bin/{name} " in wrapper.read_text()
        assert (prefix / "bin" / name).exists()


def host_python_fits() -> bool:
    python = Path("/usr/bin/python3")
    return python.exists() and python.resolve().name == f"python{sys.version_info.major}.{sys.version_info.minor}"


@pytest.mark.skipif(not host_python_fits(), reason="the host's Python is another version than the master's")
def test_portage_runs_from_its_prefix(prefix: Path, tmp_path: Path) -> None:
    env = {"PATH": "/usr/bin:/bin", "EPREFIX": "", "ROOT": "/", "PORTAGE_CONFIGROOT": str(tmp_path)}
    python = prefix / "bin/python3"

    def said(*words: str | Path) -> str:
        ended = subprocess.run([python, *words], env=env, capture_output=True, text=True, check=False, timeout=60)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.strip()

    version = importlib.metadata.version("portage")
    script = "import portage, _emerge; print(portage.VERSION, portage.__file__)"
    told, place = said("-c", script).split()
    assert told == version
    assert Path(place).is_relative_to(prefix)
    assert said(prefix / "bin/emerge", "--help").startswith("emerge:")
