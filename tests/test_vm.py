"""The main job on real nodes: boots QEMU, builds with Portage through distcc, installs from the binhost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from repos import write_repository

from cluster import paths

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

_DEADLINE_S = 1500
_POLL_S = 0.2


def _command(tmp_path: Path, *words: str) -> list[str]:
    places = ["--state", str(tmp_path / "state"), "--binhost", str(tmp_path / "binhost")]
    return [sys.executable, "-m", "cluster", *words, *places]


def _cluster(tmp_path: Path, *words: str, expected: int = 0) -> dict[str, Any]:
    """Run `cluster WORDS --json` and return its object."""
    argv = [*_command(tmp_path, *words), "--json"]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=_DEADLINE_S, check=False)
    assert ended.returncode == expected, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def _qemus(state: Path) -> list[int]:
    """The QEMU processes that runs below `state` have noted."""
    found = []
    for path in state.glob("runs/*/children"):
        for line in path.read_text().splitlines():
            pid = int(line.split()[0])
            command = Path(f"/proc/{pid}/cmdline")
            if command.exists() and b"qemu-system" in command.read_bytes():
                found.append(pid)
    return found


def _wait_for_phase(tmp_path: Path, cpv: str, words: str) -> None:
    """Wait until the build log of `cpv` has `words`."""
    log = next(iter((tmp_path / "state" / "logs").glob("*")), tmp_path) / f"{cpv}.log"
    end = time.monotonic() + _DEADLINE_S
    while time.monotonic() < end:
        logs = list((tmp_path / "state" / "logs").glob(f"*/{cpv}.log"))
        if logs and words in logs[0].read_text(errors="replace"):
            return
        time.sleep(_POLL_S)
    pytest.fail(f"{log} never said {words!r}")


@pytest.fixture
def running(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Builds in the background; whatever is left of them is ended."""
    children: list[subprocess.Popen[str]] = []
    yield children
    for child in children:
        if child.poll() is None:
            child.terminate()
            child.communicate(timeout=60)
    for pid in _qemus(tmp_path / "state"):
        os.kill(pid, signal.SIGKILL)


def _start(tmp_path: Path, *words: str) -> subprocess.Popen[str]:
    argv = [*_command(tmp_path, *words), "--json"]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_dependent_packages_build_through_distcc_and_run_in_a_fresh_node(tmp_path: Path) -> None:
    built = _cluster(tmp_path, "build", "media-libs/libpng", "--target", "arm64")
    assert [cpv.rpartition("-")[0] for cpv in built["built"]] == ["sys-libs/zlib", "media-libs/libpng"]
    compiles = built["compiles"]
    assert compiles["local"] <= 0.1 * (compiles["host"] + compiles["remote"])
    assert compiles["host"] + compiles["remote"] > 20
    for package in built["packages"].values():
        assert {"boot", "configure", "compile", "install"} <= package["phases"].keys()
        assert Path(package["log"]).stat().st_size > 0

    proof = _cluster(tmp_path, "verify", "media-libs/libpng", "--target", "arm64")
    assert proof["ran"] == ["libpng-config --version"]

    again = _cluster(tmp_path, "build", "media-libs/libpng", "--target", "arm64")
    assert again["built"] == []
    assert again["skipped"] == built["built"]


LIBRARY = """
src_unpack() { mkdir -p ${S}; cd ${S}; echo 'int %(name)s(void) { return %(value)d; }' > l.c; }
src_compile() { ${CHOST}-gcc -shared -fPIC -Wl,-soname,libl.so.%(soname)d -o libl.so.%(soname)d l.c || die; }
src_install() { dolib.so libl.so.%(soname)d; dosym libl.so.%(soname)d /usr/$(get_libdir)/libl.so; }
"""
PROGRAM = """
src_unpack() { mkdir -p ${S}; cd ${S}; echo 'int answer(void); int main(void) { return answer(); }' > p.c; }
src_compile() { ${CHOST}-gcc -o p p.c -ll || die; }
src_install() { dobin p; }
"""


def test_what_links_to_a_library_is_built_anew_only_when_that_became_another(tmp_path: Path) -> None:
    def built(**library: object) -> tuple[list[str], list[str], str]:
        values = {"name": "answer", "value": 0, "soname": 1, **library}
        ebuilds = {
            "lib/l-1": {"_body": LIBRARY % values},
            "app/p-1": {"DEPEND": "lib/l:=", "RDEPEND": "lib/l:=", "_body": PROGRAM},
        }
        repository = write_repository(tmp_path / "repo", ebuilds, name="small")
        words = ["build", "app/p", "--repo", f"small={repository.location}"]
        argv = [*_command(tmp_path, *words, "--profile", str(paths.data("profiles", "arm64"))), "--json"]
        ended = subprocess.run(argv, capture_output=True, text=True, timeout=_DEADLINE_S, check=False)
        assert ended.returncode == 0, ended.stderr
        said = json.loads(ended.stdout)
        return said["built"], said["skipped"], ended.stderr

    assert built()[:2] == (["lib/l-1", "app/p-1"], [])
    assert built(value=1)[:2] == (["lib/l-1"], ["app/p-1"])
    both, _, err = built(value=1, soname=2)
    assert both == ["lib/l-1", "app/p-1"]
    assert "app/p-1 starts: lib/l-1 has no libl.so.1, though its slot is still 0/0" in err
    assert "lib/l-1 no longer has libl.so.1 and its subslot is the same" in err
    assert built(value=1, soname=2)[:2] == ([], ["lib/l-1", "app/p-1"])


def test_a_failure_and_a_hang_stop_only_what_needs_them(tmp_path: Path) -> None:
    install = "src_unpack() { mkdir -p ${S}; }\nsrc_install() { echo ok > ok; insinto /usr/share/${PN}; doins ok; }\n"
    ebuilds = {
        "app/bad-1": {"_body": install + 'src_compile() { die "as asked"; }\n'},
        "app/hang-1": {"_body": install + "src_compile() { sleep 1000; }\n"},
        "app/good-1": {"_body": install},
        "app/needs-1": {"BDEPEND": "app/bad", "_body": install},
        "app/all-1": {"BDEPEND": "app/needs app/hang app/good", "_body": install},
    }
    repository = write_repository(tmp_path / "repo", ebuilds, name="small")
    config = tmp_path / "config.toml"
    config.write_text("[limits]\nsilence_s = 40\n[build]\nnodes = 2\n")
    words = ["build", "app/all", "--config", str(config), "--repo", f"small={repository.location}"]
    result = _cluster(tmp_path, *words, "--profile", str(paths.data("profiles", "arm64")), expected=2)

    assert result["built"] == ["app/good-1"]
    assert sorted(result["failed"]) == ["app/bad-1", "app/hang-1"]
    assert sorted(result["blocked"]) == ["app/all-1", "app/needs-1"]
    assert result["packages"]["app/bad-1"]["reason"].startswith("compile: ")
    assert "printed nothing for 40 s" in result["packages"]["app/hang-1"]["reason"]
    assert "app/bad-1" in result["packages"]["app/needs-1"]["reason"]
    assert "as asked" in Path(result["packages"]["app/bad-1"]["log"]).read_text()


def test_a_node_that_dies_is_lost_and_its_package_is_built_on_another(
    tmp_path: Path, running: list[subprocess.Popen[str]]
) -> None:
    child = _start(tmp_path, "build", "app-arch/lzlib", "--target", "arm64")
    running.append(child)
    _wait_for_phase(tmp_path, "app-arch/lzlib-1.15", ">>> Compiling")
    (qemu,) = _qemus(tmp_path / "state")
    os.kill(qemu, signal.SIGKILL)
    out, err = child.communicate(timeout=_DEADLINE_S)
    assert child.returncode == 0, err
    result = json.loads(out)
    assert result["built"] == ["app-arch/lzlib-1.15"]
    assert result["packages"]["app-arch/lzlib-1.15"]["attempt"] == 2
    assert "lost app-arch/lzlib-1.15" in err


def test_a_master_that_is_killed_leaves_nothing_and_the_next_goes_on(
    tmp_path: Path, running: list[subprocess.Popen[str]]
) -> None:
    child = _start(tmp_path, "build", "app-arch/plzip", "--target", "arm64", "--nodes", "1")
    running.append(child)
    _wait_for_phase(tmp_path, "app-arch/plzip-1.12", ">>>")
    qemus = _qemus(tmp_path / "state")
    assert qemus
    child.kill()
    child.communicate(timeout=60)
    result = _cluster(tmp_path, "build", "app-arch/plzip", "--target", "arm64")
    assert result["skipped"] == ["app-arch/lzlib-1.15"]
    assert result["built"] == ["app-arch/plzip-1.12"]
    assert not [pid for pid in qemus if Path(f"/proc/{pid}").exists()]
    assert list((tmp_path / "state" / "runs").iterdir()) == []


def test_an_interrupt_ends_the_nodes_with_exit_code_130(tmp_path: Path, running: list[subprocess.Popen[str]]) -> None:
    child = _start(tmp_path, "build", "app-arch/lzlib", "--target", "arm64")
    running.append(child)
    _wait_for_phase(tmp_path, "app-arch/lzlib-1.15", ">>>")
    qemus = _qemus(tmp_path / "state")
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    assert not [pid for pid in qemus if Path(f"/proc/{pid}").exists()]
