"""setup.sh, which quickstart and tests/run share: what it does without root and without sudo."""

from __future__ import annotations

import subprocess
from pathlib import Path

from programs import write_programs

_CHECKOUT = Path(__file__).parents[1]
_TOOLS = ("bash", "sed", "tr", "sort", "grep", "cat")


def _install_packages(tmp_path: Path, fakes: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run install_packages with a PATH that has a few tools and `fakes`, and nothing else."""
    programs = write_programs(tmp_path / "bin", _TOOLS, fakes)
    argv = [str(programs / "bash"), "-euc", ". ./setup.sh; install_packages; echo went on", "quickstart"]
    env = {"PATH": str(programs)}
    return subprocess.run(argv, env=env, cwd=_CHECKOUT, capture_output=True, text=True, timeout=30, check=False)


def test_without_root_and_sudo_it_prints_the_line_to_run(tmp_path: Path) -> None:
    fakes = {"dpkg-query": "exit 1", "id": "echo 1000", "apt-get": "echo Debian"}
    ended = _install_packages(tmp_path, fakes)
    assert ended.returncode == 1
    assert ended.stderr.startswith("quickstart: ")
    assert "apt-get update && apt-get install -y --no-install-recommends" in ended.stderr
    for package in ("mmdebstrap", "distcc", "bubblewrap", "squashfs-tools"):
        assert f" {package} " in ended.stderr


def test_with_everything_installed_it_needs_no_root(tmp_path: Path) -> None:
    fakes = {"dpkg-query": "printf 'install ok installed'", "id": "echo 1000", "apt-get": "echo Debian"}
    ended = _install_packages(tmp_path, fakes)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "went on\n"


def test_missing_lists_need_an_update_alone(tmp_path: Path) -> None:
    fakes = {"dpkg-query": "printf 'install ok installed'", "id": "echo 1000", "apt-get": "exit 0"}
    ended = _install_packages(tmp_path, fakes)
    assert ended.returncode == 1
    assert ended.stderr.rstrip().endswith("As root, run: apt-get update")
