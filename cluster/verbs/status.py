"""`cluster status` and `cluster explain`: what builds are doing, and why, asked from beside them."""

from __future__ import annotations

import time

from cluster import paths, statustable
from cluster.errors import InputError
from cluster.host import runs
from cluster.master import bulletin
from cluster.master.standing import Standing, having, standing
from cluster.options import Common, console_for, print_json


def status(*, common: Common | None = None) -> int:
    """Show what the latest build of each target and variant does, or how it ended."""
    common = common or Common()
    wall = time.time()
    found = _standings(common, wall)
    if common.json:
        print_json(statustable.status_json(found))
    elif found:
        statustable.status(console_for(common), found, wall)
    else:
        console_for(common).print(f"No build is known in {_state(common)}", highlight=False, soft_wrap=True)
    return 0


def explain(package: str, /, *, common: Common | None = None) -> int:
    """Say why PACKAGE, NAME, CATEGORY/NAME or with its version, is not built yet, or how it ended."""
    common = common or Common()
    wall = time.time()
    standings = _standings(common, wall)
    if not standings:
        raise InputError(f"no build is known in {_state(common)}", "start one, or name its --state")
    found = having(package, standings)
    if common.json:
        print_json(statustable.explanation_json(found, wall))
    else:
        statustable.explanation(console_for(common), found, wall)
    return 0


def _state(common: Common) -> str:
    return str(paths.directories(common.state).state)


def _standings(common: Common, wall: float) -> list[Standing]:
    """What is known of each run, those that go on first."""
    directories = paths.directories(common.state)
    found = [standing(one, runs.lives(directories.state, one.run), wall) for one in bulletin.read(directories.status)]
    return sorted(found, key=lambda run: (bool(run.bulletin.over), run.bulletin.name))
