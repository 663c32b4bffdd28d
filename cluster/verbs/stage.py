"""`cluster stage`: the root file systems that nodes boot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Column, Table

from cluster import config, paths, report, target
from cluster.errors import InputError
from cluster.node import kernel as kernels
from cluster.node import stage as stages
from cluster.options import Common, What, console_for, open_one, print_json


def stage_build(*, what: What | None = None, common: Common | None = None) -> int:
    """Build the target's stage, unless the cache has it."""
    session = open_one(what or What(), common or Common())
    with report.Reporter(console_for(common or Common())) as reporter:
        built = stages.ensure(session.target, target.load_recipe(), session.directories.cache, reporter.step)
    return _show_stage(built, common or Common())


def stage_kernel(
    *,
    newest: Annotated[bool, Parameter(negative="", help="Build anew if there is a newer source.")] = False,
    what: What | None = None,
    common: Common | None = None,
) -> int:
    """Build a kernel for emulated nodes in which processes start 1.6 times as fast: once, some 10 minutes."""
    common = common or Common()
    session = open_one(what or What(), common)
    cache = session.directories.cache
    with report.Reporter(console_for(common)) as reporter:
        if session.target.kernel.own and (newest or kernels.find(session.target, cache) is None):
            reporter.warn("a kernel is compiled from source, once: some 10 minutes on two processors")
        built = kernels.ensure(session.target, target.load_recipe(), cache, reporter.step, newest=newest)
        if not session.config.node.own_kernel:
            reporter.warn("nodes do not boot it, because node.own_kernel is false")
    return _show({"directory": str(built.directory), **built.facts}, common)


def stage_list(*, common: Common | None = None) -> int:
    """List the stages in the cache, and which kernel emulated nodes of each will boot."""
    common = common or Common()
    found = [_facts(stage, common) for stage in stages.all_stages(paths.directories().cache)]
    if common.json:
        print_json(found)
        return 0
    columns = ("stage", "release", "kernel", "nodes boot", "compiler", "portage", "MiB")
    table = Table(*(Column(name, overflow="fold") for name in columns))
    for facts in found:
        directory = Path(facts["directory"])
        size = sum(path.lstat().st_blocks * 512 for path in directory.rglob("*")) >> 20
        row = (facts["release"], facts["kernel"], facts["boots"], facts["compiler"], facts["portage"], str(size))
        table.add_row(directory.name, *row)
    console_for(common).print(table)
    return 0


def stage_show(name: str, *, common: Common | None = None) -> int:
    """Show what a stage is made of."""
    return _show_stage(_find_stage(name), common or Common())


def stage_remove(name: str, *, common: Common | None = None) -> int:
    """Delete a stage; the next build makes it anew."""
    stages.remove(_find_stage(name))
    return 0


def _find_stage(name: str) -> stages.Stage:
    found = stages.all_stages(paths.directories().cache)
    for stage in found:
        if stage.directory.name == name:
            return stage
    known = ", ".join(stage.directory.name for stage in found) or "none yet"
    raise InputError(f"there is no stage {name!r}", f"stages: {known}")


def _facts(stage: stages.Stage, common: Common) -> dict[str, str]:
    """What is known of a stage, with the release of the kernel that emulated nodes of it boot."""
    facts = stage.facts
    wanted = config.load(common.config).node.own_kernel and facts["target"] in target.names()
    own = kernels.find(target.load(facts["target"]), paths.directories().cache) if wanted else None
    return {"directory": str(stage.directory), **facts, "boots": own.release if own else facts["kernel"]}


def _show_stage(stage: stages.Stage, common: Common) -> int:
    return _show(_facts(stage, common), common)


def _show(facts: dict[str, str], common: Common) -> int:
    if common.json:
        print_json(facts)
    else:
        for key, value in facts.items():
            print(f"{key}: {value}")
    return 0
