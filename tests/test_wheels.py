"""What hosts install: one archive, which is another when anything that goes into it is."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.errors import InputError
from cluster.master.hosts import wheels

pytestmark = pytest.mark.slow


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The archives that were made, without asking pip for wheels; the sources are one file."""
    (tmp_path / "source.py").write_text("one")
    asked: list[str] = []

    def run(argv: list[str], *, deadline_s: float) -> str:
        asked.append(str(argv[-1]))
        (Path(argv[argv.index("--wheel-dir") + 1]) / "rich-1-py3-none-any.whl").write_text("wheel")
        return ""

    monkeypatch.setattr(wheels, "run", run)
    monkeypatch.setattr(wheels, "_sources", lambda: iter([tmp_path / "source.py"]))
    return asked


def test_an_archive_has_wheels_and_versions_and_is_made_once(made: list[str], tmp_path: Path) -> None:
    said: list[str] = []
    first, again = (wheels.ensure(tmp_path / "cache", said.append) for _ in range(2))
    assert first == again
    assert len(made) == len(said) == 1
    assert made[0].endswith("[dask]")
    with tarfile.open(first.archive) as archive:
        assert archive.getnames() == [wheels.CONSTRAINTS, "rich-1-py3-none-any.whl"]
        versions = archive.extractfile(wheels.CONSTRAINTS)
        assert versions is not None
        lines = versions.read().decode().splitlines()
    assert any(line.startswith("distributed==") for line in lines)
    assert not any(line.startswith("portage-cluster==") for line in lines)
    assert sorted(path.name for path in first.archive.parent.iterdir()) == [first.archive.name, "lock"]


@pytest.mark.parametrize(
    "change",
    [
        lambda source, patch: source.write_text("two"),
        lambda source, patch: patch.setattr(wheels, "_versions", lambda: "rich==2\n"),
        lambda source, patch: patch.setattr(wheels.platform, "machine", lambda: "riscv64"),
    ],
)
def test_another_source_version_or_machine_makes_another(
    made: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path, pytest.MonkeyPatch], object],
) -> None:
    before = wheels.ensure(tmp_path / "cache", lambda text: None)
    change(tmp_path / "source.py", monkeypatch)
    after = wheels.ensure(tmp_path / "cache", lambda text: None)
    assert before.key != after.key
    assert len(made) == 2


def test_only_the_newest_archives_are_kept(made: list[str], tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / "source.py").write_text(str(number))
        newest = wheels.ensure(tmp_path / "cache", lambda text: None).archive
        os.utime(newest, (number, number))
    kept = sorted(newest.parent.glob("*.tar"), key=lambda path: path.stat().st_mtime)
    assert [path.stat().st_mtime for path in kept] == [2, 3, 4]


def test_wheels_suit_their_own_architecture_and_python() -> None:
    house = wheels.Wheelhouse(Path("/cache/abc.tar"), "x86_64", "3.11")
    assert house.suits("x86_64", "3.11")
    assert not house.suits("aarch64", "3.11")
    assert not house.suits("x86_64", "3.13")


def test_without_dask_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"other hosts need Dask: pip install 'portage-cluster\[dask\]'"):
        wheels.ensure(tmp_path, lambda text: None)


def test_what_is_installed_without_a_checkout_can_be_a_wheel_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(wheels, "_NAME", "tenacity")  # of which this installation is no checkout
    wheel = wheels._repacked(tmp_path)
    pip = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--target", str(tmp_path / "there")]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True, timeout=120)
    assert (tmp_path / "there/tenacity/__init__.py").exists()
