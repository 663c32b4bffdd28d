"""Speeds of instance types that were measured on hosts that joined: `ec2/speeds.json` of the state directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from pydantic import TypeAdapter, ValidationError

from cluster import paths
from cluster.errors import InputError

Speeds = Mapping[str, Mapping[str, float]]
"""By type and target, the speed of a node; 1 is the reference of all times."""

NONE: Speeds = MappingProxyType({})
_WEIGHT = 0.5  # of the latest measurement
_FILE = TypeAdapter(dict[str, dict[str, float]])


def file(directories: paths.Directories) -> Path:
    """Where they are kept."""
    return directories.state / "ec2" / "speeds.json"


def read(path: Path) -> Speeds:
    """What was measured; nothing without the file. Raises InputError for a broken one."""
    try:
        found = _FILE.validate_json(path.read_bytes())
    except FileNotFoundError:
        return NONE
    except ValidationError as error:
        raise InputError(f"{path} has no speeds by type and target", "remove it: estimates take its place") from error
    if any(speed <= 0 for by_target in found.values() for speed in by_target.values()):
        raise InputError(f"{path} has a speed that is not above 0", "remove it: estimates take its place")
    return found


def note(path: Path, name: str, target: str, speed: float) -> None:
    """Remember that a node for `target` on an instance of the type `name` was measured to have `speed`.

    Instances of a type differ by a few percent: measurements are smoothed, the latest weighing half.
    """
    with paths.locked(path.with_suffix(".lock")):
        known = {one: dict(by_target) for one, by_target in read(path).items()}
        before = known.setdefault(name, {}).get(target, speed)
        known[name][target] = before + _WEIGHT * (speed - before)
        text = json.dumps(known, indent=1, sort_keys=True)
        paths.publish(path, lambda temporary: temporary.write_text(text + "\n"))


def of(speeds: Speeds, name: str, target: str) -> float | None:
    """What was measured for `target` on the type `name`, or on another size of its family; None if nothing was."""
    if target in speeds.get(name, {}):
        return speeds[name][target]
    family = name.partition(".")[0]
    kin = [
        by_target[target]
        for one, by_target in speeds.items()
        if one.partition(".")[0] == family and target in by_target
    ]
    return sum(kin) / len(kin) if kin else None
