"""Targets are data: one file each."""

from __future__ import annotations

import re
import shutil
from pathlib import Path, PurePosixPath

import pytest

from cluster import paths, target
from cluster.errors import InputError
from cluster.node.commandline import Request, parse
from cluster.target import Target


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


EACH = pytest.mark.parametrize("one", [target.load(name) for name in target.names()], ids=target.names())
DEFAULTS = re.compile(r'^(\w+)="(.*)"$', re.MULTILINE)


def defaults(profile: str) -> dict[str, str]:
    """The variables of a profile's own make.defaults."""
    return dict(DEFAULTS.findall(paths.data("profiles", profile, "make.defaults").read_text()))


@EACH
def test_a_targets_compilers_are_all_of_its_chost(one: Target) -> None:
    assert one.cross.prefix == f"{one.chost}-"
    name = one.chost.replace("_", "-")  # Debian's names of packages have no underscore
    assert one.cross.packages == (f"gcc-{name}", f"g++-{name}")


@EACH
def test_a_targets_profile_is_of_its_chost_and_keyword(one: Target) -> None:
    profile = defaults(one.profile)
    # The stage's database of installed packages is written by the target's name.
    assert (profile["ARCH"], profile["ACCEPT_KEYWORDS"]) == (one.name, one.name)
    assert (profile["CHOST"], profile["CBUILD"]) == (one.chost, one.chost)
    abi = profile["ABI"]
    assert (profile["DEFAULT_ABI"], profile["MULTILIB_ABIS"]) == (abi, abi)
    assert (profile[f"CHOST_{abi}"], profile[f"LIBDIR_{abi}"]) == (one.chost, f"lib/{one.chost}")


@EACH
def test_everything_that_lists_keywords_lists_a_targets(one: Target) -> None:
    assert one.name in defaults("base")["USE_EXPAND_VALUES_ARCH"].split()
    for place in (("overlays", "demo"), ("stage-images", "rehearsal")):
        assert one.name in paths.data(*place, "profiles", "arch.list").read_text().split()
    rehearsal = paths.data("stage-images", "rehearsal", "app-misc", "rehearsal", "rehearsal-1.ebuild")
    assert one.name in dict(DEFAULTS.findall(rehearsal.read_text()))["KEYWORDS"].split()


@EACH
def test_a_target_has_the_drivers_that_a_node_needs(one: Target) -> None:
    buses = (one.qemu.disk_bus, one.qemu.network_bus, one.qemu.random_bus)
    drivers = {"_".join(bus.split("-")[:2]) for bus in buses} | {"virtio_console"}
    assert drivers | {"ext4", "squashfs", "overlay"} <= set(one.kernel.modules)


@pytest.mark.parametrize(
    ("name", "machine", "native"),
    [("arm64", "aarch64", True), ("arm64", "x86_64", False), ("arm", "aarch64", False), ("amd64", "x86_64", True)],
)
def test_a_host_needs_no_emulation_for_programs_of_its_own(name: str, machine: str, native: bool) -> None:
    assert target.load(name).runs_on(machine) is native


@EACH
def test_a_target_without_tuning_is_the_same_machine(one: Target) -> None:
    plain = target.plain(one)
    assert (plain.name, plain.chost, plain.kernel.modules) == (one.name, one.chost, one.kernel.modules)
    assert plain.kernel.arguments == ""
    assert one.kernel.arguments
    assert plain.qemu.binary == one.qemu.binary


@EACH
def test_a_targets_compilers_are_known_by_their_names(one: Target) -> None:
    for name in ("gcc", "g++", "gcc-14"):
        assert isinstance(parse([f"{one.chost}-{name}", "-c", "a.c"], PurePosixPath("/src"), {}), Request)


def test_the_recipe_provides_what_a_compile_needs() -> None:
    recipe = target.load_recipe()
    assert {"gcc", "g++", "make", "distcc", "openssh-server"} <= set(recipe.packages)
    assert recipe.busybox


def test_an_unknown_target_names_the_known_ones(arm64: Path) -> None:
    (arm64.parent / "z80.toml").write_text("")
    known = ", ".join([*target.names()])
    assert {"arm", "arm64", "riscv", "z80"} <= set(known.split(", "))
    with pytest.raises(InputError, match=f"unknown target 'pdp11': known targets: {known}"):
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
    plain = target.plain(target.load("arm64"))
    assert (plain.qemu.cpu, plain.kernel.package, plain.kernel.arguments) == ("max", "linux-image-arm64", "")


def test_a_target_without_a_plain_file_is_named() -> None:
    other = target.load("arm64").model_copy(update={"name": "z80"})
    with pytest.raises(InputError, match="what a plain node for z80 is"):
        target.plain(other)
