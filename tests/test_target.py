"""Targets are data: one file each."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cluster import paths, target
from cluster.errors import InputError


@pytest.fixture
def arm64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """arm64's data file, in a copy of the data."""
    source = paths.data("stage-images")
    shutil.copytree(source, tmp_path / "stage-images")
    monkeypatch.setattr(paths, "_PACKAGE", tmp_path / "cluster")
    return tmp_path / "stage-images/targets/arm64.toml"


def test_every_target_loads_and_bears_the_name_of_its_file() -> None:
    assert "arm64" in target.names()
    for name in target.names():
        assert target.load(name).name == name


def test_arm64_is_consistent() -> None:
    arm64 = target.load("arm64")
    assert arm64.qemu.binary == "qemu-system-aarch64"
    assert arm64.cross.prefix == f"{arm64.chost}-"
    assert paths.data("profiles", arm64.profile).is_dir()


def test_the_recipe_provides_what_a_compile_needs() -> None:
    recipe = target.load_recipe()
    assert {"gcc", "g++", "make", "distcc", "openssh-server"} <= set(recipe.packages)
    assert recipe.busybox


def test_an_unknown_target_names_the_known_ones(arm64: Path) -> None:
    (arm64.parent / "riscv64.toml").write_text("")
    with pytest.raises(InputError, match=r"unknown target 'pdp11': known targets: arm64, riscv64"):
        target.load("pdp11")


@pytest.mark.parametrize("name", ["../debian", "arm64.toml", "", "."])
def test_a_target_is_a_name_and_not_a_path(name: str) -> None:
    with pytest.raises(InputError, match="unknown target"):
        target.load(name)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('machine = "virt', 'no_machine = "virt', "qemu.machine"),
        ('arguments = "', 'extra = 1\narguments = "', "kernel.extra"),
        ('cpu = "neoverse-n1"', "cpu = 7", "qemu.cpu"),
        ('chost = "', 'chots = "', "chost"),
    ],
)
def test_a_broken_file_names_itself_and_the_key(arm64: Path, old: str, new: str, key: str) -> None:
    text = arm64.read_text()
    assert old in text
    arm64.write_text(text.replace(old, new))
    with pytest.raises(InputError) as caught:
        target.load("arm64")
    assert caught.value.what == f"{arm64}: {key}"
    assert caught.value.mend


def test_a_file_that_is_not_toml_says_where(arm64: Path) -> None:
    arm64.write_text('name = "arm64"\nchost = aarch64\n')
    with pytest.raises(InputError, match=r"arm64\.toml is not TOML.*line 2"):
        target.load("arm64")


def test_a_new_target_is_one_more_file(arm64: Path) -> None:
    text = arm64.read_text()
    (arm64.parent / "other.toml").write_text(text.replace('name = "arm64"', 'name = "other"'))
    assert target.load("other").name == "other"


def test_a_plain_target_has_the_distributions_kernel_and_no_tuning() -> None:
    tuned = target.load("arm64")
    plain = target.plain(tuned)
    assert (plain.name, plain.chost, plain.kernel.modules) == (tuned.name, tuned.chost, tuned.kernel.modules)
    assert (plain.qemu.cpu, plain.kernel.package, plain.kernel.arguments) == ("max", "linux-image-arm64", "")
    assert tuned.kernel.arguments


def test_a_target_without_a_plain_file_is_named() -> None:
    other = target.load("arm64").model_copy(update={"name": "z80"})
    with pytest.raises(InputError, match="what a plain node for z80 is"):
        target.plain(other)
