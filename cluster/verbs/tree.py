"""`cluster tree`: the ebuild repositories of the configuration."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console

from cluster import config, paths, report, treetable
from cluster.master import trees as ebuild_trees
from cluster.options import Common, console_for, print_json, trees_of


def tree_sync(*names: str, common: Common | None = None) -> int:
    """Fetch the repositories NAMES, or all, and generate the metadata of their ebuilds."""
    ebuild_trees.check_idle(paths.directories((common or Common()).state).state)
    return _about_trees(names, common or Common(), ebuild_trees.sync, treetable.synced)


def tree_status(*names: str, common: Common | None = None) -> int:
    """Show where the repositories NAMES, or all, are, at which revision, and whether Portage knows their ebuilds."""
    return _about_trees(names, common or Common(), ebuild_trees.status, treetable.status)


def _about_trees(
    names: tuple[str, ...],
    common: Common,
    act: Callable[..., tuple[ebuild_trees.Status, ...]],
    show: Callable[[Console, tuple[ebuild_trees.Status, ...]], None],
) -> int:
    directories = paths.directories(common.state)
    trees = trees_of(config.load(common.config), directories)
    wanted, unknown = ebuild_trees.chosen(trees, names)
    console = console_for(common)
    with report.Reporter(console) as reporter:
        for error in unknown:
            reporter.warn(str(error))
        found = act(wanted, trees, ebuild_trees.places(directories), reporter)
    if common.json:
        print_json({"trees": [one.json() for one in found], "unknown": [str(error) for error in unknown]})
    elif found:
        show(console, found)
    return 0 if not unknown and all(one.good for one in found) else 2
