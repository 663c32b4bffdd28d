"""What a simulation is given to build: a graph or a plan, with what past builds took."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.errors import InputError
from cluster.master import expected, packed
from cluster.master.estimate import UNKNOWN_S, Basis
from cluster.master.history import Build
from cluster.master.schedule import tasks
from cluster.master.schedule.tasks import Task, Tasks
from cluster.model import Action, Cpv, Plan, Verdict

_ARROW = "->"
_COMMENT = "#"

Needs = Mapping[Cpv, tuple[Cpv, ...]]
"""Packages with what each needs."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Packages to build."""

    tasks: Tasks
    unknown: int = 0
    """Of so many nothing is known; what they take is assumed."""


def of_plan(plan: Plan, builds: Iterable[Build]) -> Workload:
    """What `plan` builds, with what is expected after the past `builds` of its target."""
    estimates = expected.estimates(plan, builds)
    unknown = sum(estimates[package.cpv].basis is Basis.ASSUMED for package in plan.to_build)
    return Workload(expected.tasks_of(plan, estimates), unknown)


def read(path: Path, builds: Iterable[Build]) -> Workload:
    """The packages of a file, each as its latest build took; one that was never built is taken to need UNKNOWN_S.

    The file, which may be packed (xz, gzip), has lines `A -> B` (B needs A), or is what `cluster plan --json` printed.
    A package is called by its cpv or without its category. Raises InputError.
    """
    text = packed.text(path)
    needs = _of_plan(text, path) if text.lstrip().startswith("{") else _of_lines(text, path)
    latest = _latest(builds)
    every = (_task(cpv, needed, latest.get(cpv)) for cpv, needed in needs.items())
    return Workload(tasks.of(every), sum(cpv not in latest for cpv in needs))


def _latest(builds: Iterable[Build]) -> dict[str, Build]:
    """The latest build of each package that succeeded, by its cpv and also without its category."""
    found: dict[str, Build] = {}
    for build in sorted(builds, key=lambda build: build.ended):
        if build.verdict is Verdict.BUILT:
            found[build.cpv] = found[build.cpv.partition("/")[2]] = build
    return found


def _task(cpv: Cpv, needs: tuple[Cpv, ...], build: Build | None) -> Task:
    if build is None:
        return Task(cpv, UNKNOWN_S, needs)
    return Task(
        cpv,
        build.reference_s,
        needs,
        memory_mib=build.memory_mib or 0.0,
        disk_mib=build.disk_mib or 0.0,
        parallelism=build.parallelism,
    )


def _of_lines(text: str, path: Path) -> Needs:
    needs: dict[Cpv, list[Cpv]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        match line.partition(_COMMENT)[0].split():
            case []:
                pass
            case [name] if name != _ARROW:
                needs.setdefault(Cpv(name), [])
            case [needed, arrow, name] if arrow == _ARROW and _ARROW not in (needed, name):
                needs.setdefault(Cpv(needed), [])
                needs.setdefault(Cpv(name), []).append(Cpv(needed))
            case _:
                what = f"{path}, line {number}: {line.strip()!r} is neither `A -> B` (B needs A) nor a package alone"
                raise InputError(what, "mend that line")
    return {name: tuple(needed) for name, needed in needs.items()}


def _of_plan(text: str, path: Path) -> Needs:
    """What the plan builds; what it has already is there."""
    mend = "give what `cluster plan --json` printed for one target"
    try:
        plan: dict[str, Any] = json.loads(text)
        packages = [each for each in plan["packages"] if Action(each["action"]).builds]
        needs = {Cpv(str(each["cpv"])): tuple(Cpv(str(need)) for need in each["requires"]) for each in packages}
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: {error.msg}", mend) from error
    except KeyError as error:
        raise InputError(f"{path} is no plan, it has no {error}", mend) from error
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} is no plan, {error}", mend) from error
    if "first" in plan:
        raise InputError(f"{path} has a plan of two rounds", "give what is under `first`, or all the rest, by itself")
    return needs
