"""A kernel of our own: what its configuration says, when it is built anew, with which commands, who boots it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from programs import write_programs

from cluster import config, paths, target
from cluster.errors import CommandFailed, InputError, MachineError
from cluster.host import hostcompiler
from cluster.host import kit as kits
from cluster.master import equipment
from cluster.node import kernel, kvm, stage
from cluster.node.emulator import Emulator
from cluster.node.node import Hardware

pytestmark = pytest.mark.slow

ARM64 = target.load("arm64")
RECIPE = target.load_recipe()
GCC = f"{ARM64.cross.prefix}gcc"
TOOLS = ("sh", "cat", "grep", "mkdir", "tar", "xz", "env")

# A kernel's make, in a few lines: `refuse` beside it has what Kconfig drops.
MAKE = r"""
here=${0%/*}
echo "make $*; $KBUILD_BUILD_USER; $KBUILD_BUILD_TIMESTAMP; ${MAKEFLAGS-}${LOCALVERSION-}" >> "$here/said"
for word do last=$word; done
case $last in
tinyconfig) echo CONFIG_TINY=y > .config ;;
olddefconfig)
	grep -v -e '=n$' -f "$here/refuse" .config > new
	cat new > .config ;;
Image)
	mkdir -p include/config arch/arm64/boot
	echo 6.12.9-test > include/config/kernel.release
	echo image > arch/arm64/boot/Image ;;
*) exit 3 ;;
esac
"""
DPKG_DEB = r'[ "$1" = -x ] && mkdir -p "$3/usr/src" && cat "$2" > "$3/usr/src/linux-source-6.12.tar.xz"'


@dataclass
class Machine:
    """A machine whose programs are few and fakes, and whose archive is a directory."""

    programs: Path
    cache: Path
    config: Path
    version: str
    fetched: list[str]
    said: list[str]

    def ensure(self, **how: bool) -> kernel.Kernel:
        return kernel.ensure(ARM64, RECIPE, self.cache, self.said.append, **how)

    @property
    def made(self) -> list[str]:
        """What make was asked for."""
        path = self.programs / "said"
        return path.read_text().splitlines() if path.exists() else []

    def refuse(self, name: str) -> None:
        (self.programs / "refuse").write_text(f"{name}=\n")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    data = tmp_path / "stage-images"
    shutil.copytree(paths.data("stage-images"), data)
    monkeypatch.setattr(paths, "_PACKAGE", tmp_path / "cluster")
    fakes = {GCC: "echo the cross compiler", "make": MAKE, "dpkg-deb": DPKG_DEB}
    fakes |= dict.fromkeys(("gcc", "flex", "bison", "bc"), "exit 1")
    programs = write_programs(tmp_path / "bin", TOOLS, fakes)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("MAKEFLAGS", "the user's")
    monkeypatch.setenv("LOCALVERSION", "-mine")
    (data / "kernel/arm64.config").write_text("# why\nCONFIG_AIO=y\n\nCONFIG_SWAP=n\n")
    cache = tmp_path / "cache"
    made = Machine(programs, cache, data / "kernel/arm64.config", "6.12.9-1", [], [])
    made.refuse("CONFIG_NOTHING")

    class Archive:
        def __init__(self, directory: Path, suites: tuple[str, ...], arch: str) -> None:
            assert suites == (RECIPE.suite,)

        def version(self, package: str, *, suite: str) -> str:
            return made.version

        def download_only(self, packages: list[str], into: Path) -> tuple[Path, ...]:
            made.fetched += packages
            tree = tmp_path / "source/linux-source-6.12"
            (tree / "scripts/kconfig").mkdir(parents=True, exist_ok=True)
            (tree / "Makefile").write_text("")
            os.utime(tree / "Makefile", (86400, 86400))
            (tree / "scripts/kconfig/merge_config.sh").write_text('[ "$1" = -m ] && cat "$3" >> "$2"\n')
            into.mkdir()
            argv = ["tar", "-cJf", str(into / "source.deb"), "-C", str(tree.parent), tree.name]
            subprocess.run(argv, check=True, timeout=30)
            return (into / "source.deb",)

    monkeypatch.setattr(kernel, "PrivateApt", Archive)
    return made


# Configurations.


def test_arm64s_configuration_can_be_read_and_has_what_packages_ask_for() -> None:
    own = ARM64.kernel.own
    assert own is not None
    found = kernel.options(paths.data("stage-images", "kernel", own.config))
    asked = ("SYSVIPC", "POSIX_MQUEUE", "AIO", "IO_URING", "INOTIFY_USER", "USER_NS", "SECCOMP_FILTER", "IPV6")
    needed = ("VIRTIO_BLK", "VIRTIO_NET", "VIRTIO_CONSOLE", "EXT4_FS", "SQUASHFS_ZLIB", "OVERLAY_FS", "RD_GZIP")
    assert {found[f"CONFIG_{name}"] for name in (*asked, *needed)} == {"y"}
    assert found["CONFIG_ARM64_16K_PAGES"] == "y", "the page size of the distribution's kernel of the nodes"
    assert found["CONFIG_CGROUPS"] == "n"
    assert found["CONFIG_LOCALVERSION"] == '"-cluster16k"'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("CONFIG_AIO=y\n# CONFIG_SWAP is not set\nAIO=y\n", "line 3: 'AIO=y'"),
        ("CONFIG_AIO=y\nCONFIG_SWAP\n", "line 2: 'CONFIG_SWAP'"),
        ("CONFIG_AIO=y\nCONFIG_AIO=n\n", "line 2: CONFIG_AIO is set twice"),
    ],
)
def test_a_line_that_sets_nothing_is_named(tmp_path: Path, text: str, said: str) -> None:
    fragment = tmp_path / "z80.config"
    fragment.write_text(text)
    with pytest.raises(InputError) as caught:
        kernel.options(fragment)
    assert caught.value.what == f"{fragment}, {said}"


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({"CONFIG_AIO": "y", "CONFIG_SWAP": "n", "CONFIG_UNHEARD_OF": "n"}, ()),
        ({"CONFIG_HZ": "100", "CONFIG_LOCALVERSION": '"-x"'}, ()),
        ({"CONFIG_NET": "y", "CONFIG_UNHEARD_OF": "y"}, ("CONFIG_NET", "CONFIG_UNHEARD_OF")),
        ({"CONFIG_AIO": "n", "CONFIG_HZ": "250"}, ("CONFIG_AIO", "CONFIG_HZ")),
    ],
)
def test_what_kconfig_did_not_take(wanted: dict[str, str], names: tuple[str, ...]) -> None:
    has = "#\n# Linux\n#\nCONFIG_AIO=y\n# CONFIG_SWAP is not set\n# CONFIG_NET is not set\nCONFIG_HZ=100\n"
    assert kernel.refused(wanted, has + 'CONFIG_LOCALVERSION="-x"\n') == names


# Building.


def test_a_kernel_is_built_from_the_distributions_source(machine: Machine) -> None:
    built = machine.ensure()
    assert machine.fetched == ["linux-source-6.12=6.12.9-1"]
    assert built.image.read_text() == "image\n"
    assert (built.release, built.facts["version"]) == ("6.12.9-test", "6.12.9-1")
    assert built.facts["compiler"] == "the cross compiler"
    words = f"ARCH=arm64 CROSS_COMPILE={ARM64.cross.prefix} -s"
    fixed = "; cluster; 1970-01-02 00:00:00 UTC; "
    jobs = len(os.sched_getaffinity(0))
    assert machine.made == [
        f"make {words} tinyconfig{fixed}",
        f"make {words} olddefconfig{fixed}",
        f"make {words} -j{jobs} Image{fixed}",
    ]
    assert any("minutes" in text for text in machine.said)
    assert [path.name for path in (machine.cache / "kernels").glob(".*")] == []


def test_it_is_built_once_and_found_without_the_archive(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernel.find(ARM64, machine.cache) is None
    built = machine.ensure()
    monkeypatch.setattr(kernel, "PrivateApt", lambda *words, **options: pytest.fail("the archive was asked"))
    assert machine.ensure() == built
    assert kernel.find(ARM64, machine.cache) == built


def test_another_configuration_is_another_kernel_and_a_comment_is_not(machine: Machine) -> None:
    built = machine.ensure()
    text = machine.config.read_text()
    machine.config.write_text(f"# more reasons\n{text}")
    assert kernel.find(ARM64, machine.cache) == built
    machine.config.write_text(f"{text}CONFIG_NET=y\n")
    assert kernel.find(ARM64, machine.cache) is None
    assert machine.ensure() != built
    machine.config.write_text(text)
    assert kernel.find(ARM64, machine.cache) == built


def test_a_newer_source_is_taken_when_that_is_asked_for(machine: Machine) -> None:
    built = machine.ensure()
    assert machine.ensure(newest=True) == built
    machine.version = "6.12.10-1"
    assert machine.ensure() == built
    newer = machine.ensure(newest=True)
    assert newer.facts["version"] == "6.12.10-1"
    os.utime(built.directory / "kernel.json", (1, 1))
    assert kernel.find(ARM64, machine.cache) == newer
    assert len(machine.fetched) == 2


def test_an_option_that_did_not_take_stops_the_build_before_it_compiles(machine: Machine) -> None:
    machine.refuse("CONFIG_AIO")
    with pytest.raises(MachineError) as caught:
        machine.ensure()
    assert str(caught.value) == f"linux-source-6.12 6.12.9-1 does not take CONFIG_AIO=y: mend {machine.config}"
    assert not any("Image" in line for line in machine.made)
    assert kernel.find(ARM64, machine.cache) is None
    assert list((machine.cache / "kernels").glob("*own-*")) == []


def test_a_compile_that_fails_leaves_nothing(machine: Machine) -> None:
    (machine.programs / "make").write_text(f"#!/bin/sh\ncase $* in *Image*) echo no room >&2; exit 2;; esac\n{MAKE}")
    with pytest.raises(CommandFailed, match="make failed with exit status 2: no room"):
        machine.ensure()
    assert list((machine.cache / "kernels").glob("*own-*")) == []


def test_what_a_killed_build_left_is_removed(machine: Machine) -> None:
    left = machine.cache / "kernels/.own-killed/tree"
    left.mkdir(parents=True)
    machine.ensure()
    assert not left.exists()


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ((GCC,), f"program {GCC} is missing: apt-get install gcc-aarch64-linux-gnu"),
        (("flex", "bc"), "programs flex, bc are missing: apt-get install flex bc"),
    ],
)
def test_missing_programs_are_named_with_their_packages(machine: Machine, missing: tuple[str, ...], said: str) -> None:
    for name in missing:
        (machine.programs / name).unlink()
    with pytest.raises(MachineError) as caught:
        machine.ensure()
    assert str(caught.value) == said
    assert machine.fetched == []


def test_a_target_without_a_configuration_has_no_kernel_of_its_own(machine: Machine) -> None:
    none = ARM64.model_copy(update={"kernel": ARM64.kernel.model_copy(update={"own": None})})
    assert kernel.find(none, machine.cache) is None
    with pytest.raises(InputError, match=r"how to build a kernel for arm64: write its \[kernel.own\]"):
        kernel.ensure(none, RECIPE, machine.cache, machine.said.append)


# Stages with another kernel.


@pytest.fixture
def built(tmp_path: Path) -> stage.Stage:
    """A stage, as far as files go."""
    directory = tmp_path / "cache/stages/arm64-stage"
    for name in ("keys", "sysroot", "compiler"):
        (directory / name).mkdir(parents=True)
    for name in ("disk.qcow2", "kernel", "initrd"):
        (directory / name).write_text(f"the distribution's {name}")
    (directory / "stage.json").write_text('{"target": "arm64", "kernel": "6.12-debian", "release": "trixie"}')
    return stage.Stage(directory)


def test_how_a_kernel_is_built_is_nothing_to_the_stage() -> None:
    changed = ARM64.model_copy(update={"kernel": ARM64.kernel.model_copy(update={"own": None})})
    assert stage.key(changed, RECIPE) == stage.key(ARM64, RECIPE)
    other = ARM64.model_copy(update={"kernel": ARM64.kernel.model_copy(update={"package": "another"})})
    assert stage.key(other, RECIPE) != stage.key(ARM64, RECIPE)


def test_a_stage_with_our_kernel_is_the_same_but_for_that(built: stage.Stage, tmp_path: Path) -> None:
    image = tmp_path / "Image"
    image.write_text("ours")
    ours = stage.with_image(built, "own-1", image, "6.12-ours")
    assert ours.kernel.read_text() == "ours"
    assert ours.facts == {**built.facts, "kernel": "6.12-ours"}
    for place in ("disk", "initrd", "sysroot", "signature"):
        assert getattr(ours, place).resolve() == getattr(built, place).resolve()
    assert ours.identity.parent.resolve() == built.directory / "keys"
    assert ours.directory.is_relative_to(built.directory), "what lies over its disk goes with it"
    assert (ours.base, built.base) == (built, built)
    image.unlink()
    assert stage.with_image(ours, "own-1", image, "6.12-ours") == ours


def test_the_distributions_kernel_over_ours(
    built: stage.Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(target: Any, recipe: Any, cache: Path, work: Path, result: Path, say: Any) -> str:
        (result / "kernel").write_text("theirs")
        (result / "initrd").write_text("with modules")
        return "6.12-theirs"

    monkeypatch.setattr(stage, "_kernel", fetch)
    image = tmp_path / "Image"
    image.write_text("ours")
    ours = stage.with_image(built, "own-1", image, "6.12-ours")
    theirs = stage.with_kernel(ours, target.plain(ARM64), RECIPE, tmp_path, lambda _: None)
    assert theirs.kernel.read_text() == "theirs"
    assert theirs.initrd.read_text() == "with modules"
    assert theirs.facts["kernel"] == "6.12-theirs"
    assert theirs.base == built
    assert theirs == stage.with_kernel(built, target.plain(ARM64), RECIPE, tmp_path, lambda _: None)


def test_compilers_see_the_stage_and_not_its_kernel(
    built: stage.Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "Image"
    image.write_text("ours")
    composed: list[Any] = []
    monkeypatch.setattr(hostcompiler.sandbox, "works", lambda: True)
    monkeypatch.setattr(hostcompiler.toolchains, "ensure", lambda *words: "toolchain")
    monkeypatch.setattr(hostcompiler.sysroot, "compose", lambda *words: composed.append(words))
    monkeypatch.setattr(hostcompiler.sysroot, "disagreement", lambda *words: "")
    for one in (built, stage.with_image(built, "own-1", image, "6.12-ours")):
        assert hostcompiler.find(ARM64, one, tmp_path).stage == built
    assert composed[0] == composed[1]


# Which kernel nodes boot.


class Heard:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def step(self, text: str) -> None:
        self.steps.append(text)


@pytest.mark.parametrize(
    ("own_kernel", "accelerator", "is_built", "release"),
    [
        (True, "tcg", True, "6.12.9-test"),
        (True, "tcg", False, "6.12-debian"),
        (False, "tcg", True, "6.12-debian"),
        (True, "kvm", True, "6.12-debian"),
    ],
)
def test_emulated_nodes_boot_our_kernel_if_it_is_wanted_and_built(
    machine: Machine,
    built: stage.Stage,
    monkeypatch: pytest.MonkeyPatch,
    own_kernel: bool,
    accelerator: str,
    is_built: bool,
    release: str,
) -> None:
    if is_built:
        machine.ensure()
    why = "" if accelerator == "kvm" else "KVM runs no arm64 here"
    found = Emulator((Path("qemu"),), (Path("qemu-img"),), "10.0.2")
    monkeypatch.setattr(kits.qemu, "require_memory", lambda *words: None)
    monkeypatch.setattr(kits.emulator, "ensure", lambda *words: found)
    monkeypatch.setattr(kits.stage, "ensure", lambda *words: built)
    monkeypatch.setattr(kvm, "accelerated", lambda hardware: (replace(hardware, accelerator=accelerator), why))
    defaults = config.load()
    chosen = defaults.model_copy(update={"node": defaults.node.model_copy(update={"own_kernel": own_kernel})})
    one: Any = SimpleNamespace(config=chosen, target=ARM64, directories=SimpleNamespace(cache=machine.cache))
    heard = Heard()
    hardware: Hardware = equipment.hardware_for(one, 1, cast(Any, heard))
    assert hardware.stage.facts["kernel"] == release
    assert heard.steps[-1].endswith(f"boot Linux {release}")


def test_a_kernel_says_what_it_is_made_of(machine: Machine) -> None:
    facts = json.loads((machine.ensure().directory / "kernel.json").read_text())
    assert set(facts) == {"target", "release", "source", "version", "compiler", "seconds", "ingredients"}
