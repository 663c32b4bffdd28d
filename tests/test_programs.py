"""Our programs for nodes: how the host compiles them, and what comes into the root where it cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from factories import host_root

from cluster import paths, target
from cluster.apt import PrivateApt, machine_mirror
from cluster.errors import CommandFailed, MachineError
from cluster.node import programs, sandbox, stage, sysroot
from cluster.node.toolchain import Toolchain

ARM64 = target.load("arm64")
RECIPE = target.load_recipe()
CACHE = paths.directories().cache
"""The user's, before a test has its own: nothing is fetched for a test, and nothing written."""
PROGRAMS = ("bin/cc-client", "python", "sh")
SAYS_WHAT_IT_WAS_GIVEN = '#!/bin/sh\nprintf "%s\\n" "$HOST" > "$1"\n'

needs_sandbox = pytest.mark.skipif(not (shutil.which("gcc") and sandbox.works()), reason="needs gcc and bwrap")


def elf(path: Path) -> str:
    """What readelf says of a program's header and segments."""
    argv = ["readelf", "--file-header", "--segments", path]
    return subprocess.run(argv, capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C"}).stdout


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source package of the shell; skips where the machine's apt has no lists to derive it from."""
    place = tmp_path_factory.mktemp("archives")
    try:
        PrivateApt(place / "apt", (machine_mirror().codename,), sources=True).source_package(RECIPE.shell, place / "x")
    except MachineError as error:
        pytest.skip(f"no source packages on this machine: {error}")
    return place / "x"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """What the programs are made of, but for the shell's archives, with which nothing is to be made."""
    place = tmp_path / "work" / "source"
    place.parent.mkdir()
    programs.gather(place)
    (place / "shell/build").write_text(SAYS_WHAT_IT_WAS_GIVEN)
    return place


def compiled(source: Path) -> Path:
    """Let this machine's own compiler compile `source` as if it were a cross compiler."""
    work = source.parent
    (work / "result").mkdir()
    programs.compile_all(source, host_root(), "some-machine", work, work / "result")
    return work / "result"


@needs_sandbox
def test_programs_are_static_and_the_shell_is_told_its_machine(source: Path) -> None:
    result = compiled(source)
    for name in ("bin/cc-client", "python"):
        assert "INTERP" not in elf(result / name)
        assert os.access(result / name, os.X_OK)
    assert (result / "sh").read_text() == "some-machine\n"
    assert sorted(path.name for path in result.iterdir()) == ["bin", "python", "sh"]


@needs_sandbox
def test_the_compiler_sees_no_other_file_of_the_host(source: Path, tmp_path: Path) -> None:
    (tmp_path / "other.h").write_text("")
    (source / "cc.c").write_text(f'#include "{tmp_path}/other.h"\nint main(void) {{ return 0; }}\n')
    with pytest.raises(CommandFailed, match=r"other\.h: No such file"):
        compiled(source)


def test_a_driver_gives_its_words_to_gcc(tmp_path: Path) -> None:
    script = tmp_path / "cc"
    script.write_text(programs.driver(["printf", "<%s>", "it's", "$HOME"]))
    said = subprocess.run(["sh", script, "-c", "a b"], capture_output=True, text=True, check=True).stdout
    assert said == "<it's><$HOME><gcc><-c><a b>"


def test_without_a_sandbox_the_first_boot_gets_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(apt: PrivateApt, name: str, into: Path) -> None:
        (into / f"{name}_1.orig.tar.gz").touch()

    monkeypatch.setattr(PrivateApt, "source_package", download)
    monkeypatch.setattr(sandbox, "works", lambda: False)
    said: list[str] = []
    result = programs.provide(ARM64, RECIPE, tmp_path, tmp_path / "stage", tmp_path / "work", said.append)
    assert {str(path.relative_to(result)) for path in result.rglob("*") if path.is_file()} == {
        *("source/compile", "source/cc.c", "source/python.c", "source/shell/dash_1.orig.tar.gz"),
        *(f"source/shell/{path.name}" for path in paths.data("stage-images", "shell").iterdir()),
    }
    assert "bwrap cannot make namespaces here" in said[-1]
    assert "the first boot compiles them" in said[-1]


def test_packages_without_a_compiler_are_said_to_have_none(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="has no compiler"):
        _ = Toolchain(tmp_path, ARM64.chost).major


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("gcc") and shutil.which("patch")), reason="needs gcc and patch")
def test_the_shell_has_lineno_and_shortcuts(archives: Path, tmp_path: Path) -> None:
    place = tmp_path / "shell"
    shutil.copytree(paths.data("stage-images", "shell"), place)
    shutil.copytree(archives, place, dirs_exist_ok=True)
    shell = tmp_path / "sh"
    subprocess.run(["sh", place / "build", shell], check=True, capture_output=True)
    assert not (place / "source").exists()
    assert "INTERP" not in elf(shell)
    script = "echo $LINENO\nmkdir -p a; echo text > a/b; mv a/b a/c; cat a/c; rm -rf a\n"
    script += "read -r line < /proc/$$/stat; echo $line"
    said = subprocess.run([shell, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    *lines, facts = said.splitlines()
    assert lines == ["1", "text"]
    assert facts.split()[10] == "0", "children that ended have page faults (cminflt of proc(5)): there were none"
    assert not (tmp_path / "a").exists()


@pytest.mark.vm  # no node is booted, but it takes as long
@needs_sandbox
def test_a_cross_compiler_makes_the_targets_programs(archives: Path, tmp_path: Path) -> None:
    stages = [one for one in stage.all_stages(CACHE) if one.facts["target"] == ARM64.name]
    fetched = sorted((CACHE / "toolchains").glob(f"{ARM64.name}-{RECIPE.suite}-*/usr"))
    if not stages or not fetched:
        pytest.skip(f"no stage or no toolchain for {ARM64.name} in {CACHE}")
    if CACHE.stat().st_dev != tmp_path.stat().st_dev:
        pytest.skip("a root of links is to be on the cache's file system")
    work = tmp_path / "work"
    (work / "result").mkdir(parents=True)
    programs.gather(work / "source")
    shutil.copytree(archives, work / "source/shell", dirs_exist_ok=True)
    toolchain = Toolchain(fetched[0].parent, ARM64.chost)
    root = sysroot.compose(stages[-1].sysroot, "test", toolchain, None, "", work)
    programs.compile_all(work / "source", root, ARM64.chost, work, work / "result")
    for name in PROGRAMS:
        said = elf(work / "result" / name)
        assert "AArch64" in said
        assert "INTERP" not in said
