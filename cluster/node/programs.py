"""The programs of ours that run in a node: the compile client, the fork server's client, the fast shell.

They are compiled on the host before the stage's first boot, by the cross compiler of the stage's
release over the stage's own headers and libraries, and linked statically: an emulated node takes
minutes for it. Where the host cannot, what they are made of comes into the root in their place and
the first boot compiles it. `stage-images/guest/compile` is what either runs.

    bin/cc-client   guest/cc.c
    python          guest/python.c
    sh              stage-images/shell
    source/         instead of these: what they are made of
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from cluster import paths
from cluster.apt import PrivateApt
from cluster.errors import MachineError
from cluster.node import sandbox, sysroot
from cluster.node import toolchain as toolchains
from cluster.process import find_programs, run
from cluster.target import Recipe, Target

_DEADLINE_S = 900.0  # it takes 17 s, on a machine that is not busy
_PATH = "/usr/local/bin:/usr/bin:/bin"
_NEEDED = {"gcc": "gcc libc6-dev", "make": "make", "patch": "patch", "tar": "tar", "xz": "xz-utils"}


def provide(target: Target, recipe: Recipe, cache: Path, stage: Path, work: Path, say: Callable[[str], object]) -> Path:
    """The directory of what is to be in /usr/lib/cluster of a stage: the programs, or only their source.

    `stage` is what compilers read of that stage (`sysroot.extract`); `work`, a new directory for scratch, is
    on its file system and the cache's. Raises MachineError if the source is not to be had, and
    CommandFailed if it does not compile.
    """
    source, result = work / "source", work / "result"
    result.mkdir(parents=True)
    gather(source)
    PrivateApt(cache / "apt" / f"sources-{recipe.suite}", (recipe.suite,), sources=True).source_package(
        recipe.shell, source / "shell"
    )
    say("compiling the node's programs")
    try:
        root = _cross_compiler(target, recipe, cache, stage, work)
    except MachineError as error:
        say(f"{error}: the first boot compiles them, which takes minutes")
        source.rename(result / source.name)
        return result
    compile_all(source, root, target.chost, work, result)
    return result


def gather(source: Path) -> None:
    """Put into the new directory `source` what the programs are made of, but for the shell's own source package."""
    shutil.copytree(paths.data("stage-images", "shell"), source / "shell")
    for name in ("compile", "cc.c", "python.c"):
        shutil.copy(paths.data("stage-images", "guest", name), source / name)


def _cross_compiler(target: Target, recipe: Recipe, cache: Path, stage: Path, work: Path) -> sysroot.Root:
    """A root with the cross compiler over `stage`, for `work` only. Raises MachineError if this host can have none."""
    sandbox.require()
    find_programs(_NEEDED)
    toolchain = toolchains.ensure(target, recipe.suite, cache)
    return sysroot.compose(stage, work.name, toolchain, None, "", work)


def compile_all(source: Path, root: sysroot.Root, chost: str, work: Path, result: Path) -> None:
    """Compile the programs from `source` with the compiler of `root`, which makes programs for `chost`.

    `source` and the existing `result` are in `work`, which that compiler sees. Raises CommandFailed.
    """
    work = work.resolve()
    tree = work / "tree"
    sandbox.make_places(tree)
    (root.directory / work.relative_to("/")).mkdir(parents=True, exist_ok=True)
    compiler = work / "cc"
    compiler.write_text(driver(root.sandbox.command(tree, None, {"LC_ALL": "C"}, shared=[work])))
    compiler.chmod(0o755)
    env = {"PATH": _PATH, "LC_ALL": "C", "CC": str(compiler), "HOST": chost}
    run(["sh", source.resolve() / "compile", result.resolve()], deadline_s=_DEADLINE_S, env=env)


def driver(words: Sequence[str]) -> str:
    """A script that is gcc to those that call it, run with `words` before it."""
    return f'#!/bin/sh\nexec {shlex.join(words)} gcc "$@"\n'
