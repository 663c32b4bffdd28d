"""`cluster bench plan`: how long planning a whole @system takes, against `emerge --pretend` of the same request.

Ways take turns, so that a change in the machine's mood meets all of them.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cluster.bench import emerge, gentoo, machine
from cluster.errors import MachineError
from cluster.master import fingerprint, resolver
from cluster.master.binhost import Binhost
from cluster.master.progress import Reporter
from cluster.master.resolver import Request
from cluster.model import Plan, full_slot
from cluster.process import run

RATIO = 1.3
"""The promise: resolving takes at most so many times what emerge takes."""
MOST_S = 3.0
"""The promise: resolving, and a plan in which nothing changed, take at most so long."""

RESOLVE, UNCHANGED, COMMAND, EMERGE = "resolve", "plan, unchanged", "plan, all new", "emerge --pretend"
_DEADLINE_S = 600.0

Times = Mapping[str, Sequence[float]]
"""Seconds of each turn of a way to plan."""


@dataclass(frozen=True, slots=True)
class System:
    """What one architecture's @system took."""

    packages: int
    times: Times

    def median(self, way: str) -> float:
        """Seconds."""
        return statistics.median(self.times[way])

    def ratio(self, way: str) -> float:
        """How many times longer `way` takes than emerge: the median of the turns' own ratios."""
        turns = zip(self.times[way], self.times[EMERGE], strict=True)
        return round(statistics.median(ours / emerges for ours, emerges in turns), 2)

    def json(self) -> dict[str, Any]:
        """Seconds and ratios."""
        times = {way: _summary(spent) for way, spent in self.times.items()}
        return {
            "packages": self.packages,
            "seconds": times,
            "ratio_to_emerge": {way: self.ratio(way) for way in times if way != EMERGE},
        }


@dataclass(frozen=True, slots=True)
class Report:
    """What came out."""

    repeat: int
    systems: Mapping[str, System]
    machine: Mapping[str, str | int]

    def json(self) -> dict[str, Any]:
        """The contract of `cluster bench plan --json`."""
        return {
            "repeat": self.repeat,
            "systems": {arch: system.json() for arch, system in self.systems.items()},
            "promised": {"ratio_to_emerge": RATIO, "most_s": MOST_S},
            "machine": self.machine,
        }


def _summary(spent: Sequence[float]) -> dict[str, float]:
    return {"median_s": round(statistics.median(spent), 2), "min_s": min(spent), "max_s": max(spent)}


def measure(tree: Path, repeat: int, reporter: Reporter) -> Report:
    """Plan @system of each architecture of `gentoo.PROFILES` `repeat` times in every way.

    Raises InputError where there is no tree, CommandFailed if emerge cannot do it.
    """
    with tempfile.TemporaryDirectory(prefix="portage-cluster-") as name:
        scratch = Path(name)
        repository = gentoo.repository(tree, scratch / "tree")
        prefix = emerge.Prefix.create(scratch / "prefix")
        systems = {}
        for arch in gentoo.PROFILES:
            reporter.step(f"@system for {arch}, turns: {repeat}")
            place = scratch / arch
            place.mkdir()
            request = gentoo.system(repository, arch, place / "stage")
            plan = resolver.resolve(request, place / "resolve")  # warms the page cache
            _write_binhost(place / "full", plan)
            systems[arch] = System(len(plan.packages), _take_turns(_ways(request, place, prefix), repeat))
    return Report(repeat, systems, machine.facts())


def _ways(request: Request, place: Path, prefix: emerge.Prefix) -> dict[str, Callable[[], object]]:
    unchanged = _command(request, place, place / "full")
    _check_unchanged(unchanged)
    environment = prefix.configure(request)
    return {
        RESOLVE: partial(_resolve, request, place),
        UNCHANGED: partial(run, unchanged, deadline_s=_DEADLINE_S),
        COMMAND: partial(run, _command(request, place, place / "empty"), deadline_s=_DEADLINE_S),
        EMERGE: partial(run, emerge.command(prefix, emerge.options(request)), env=environment, deadline_s=_DEADLINE_S),
    }


def _resolve(request: Request, place: Path) -> None:
    """In a directory of its own, as `cluster plan` does it: nothing of the last turn is there."""
    with tempfile.TemporaryDirectory(dir=place) as work:
        resolver.resolve(request, Path(work))


def _write_binhost(directory: Path, plan: Plan) -> None:
    """A binhost that has all of `plan` just as it is planned, as far as its index tells."""
    Binhost(directory, plan.chost)
    entries = []
    for package in plan.packages:
        file = directory / f"{package.cpv}.gpkg.tar"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"-")
        values = {
            "CPV": package.cpv,
            "PATH": f"{package.cpv}.gpkg.tar",
            "SIZE": "1",
            "SLOT": full_slot(package.slot),
            "USE": " ".join(package.use),
            "IUSE": " ".join(package.iuse),
            "CHOST": plan.chost,
            fingerprint.NAME: fingerprint.render(package.fingerprint),
        }
        entries.append("".join(f"{key}: {value}\n" for key, value in values.items()))
    (directory / "Packages").write_text("\n".join([f"PACKAGES: {len(entries)}\nVERSION: 0\n", *entries]))


def _check_unchanged(command: Sequence[str | Path]) -> None:
    said = json.loads(run(command, deadline_s=_DEADLINE_S))
    changed = [f"{entry['cpv']}: {entry['reason']}" for entry in said["packages"] if entry["action"] != "skip"]
    if changed:
        raise MachineError(f"{len(changed)} packages are not as they were planned before", changed[0])


def _command(request: Request, place: Path, binhost: Path) -> list[str | Path]:
    """`cluster plan` of `request`, with a configuration of its own."""
    config = place / "config.toml"
    config.write_text(f"[build]\nmake_conf = {json.dumps(request.make_conf)}\n")
    (repository,) = request.repositories
    words: list[str | Path] = [sys.executable, "-m", "cluster", "plan", *request.atoms, "--emptytree", "--json"]
    words += ["--target", request.target.name]
    words += ["--config", config, "--binhost", binhost, "--state", place / "state"]
    words += ["--repo", f"{repository.name}={repository.location}", "--profile", request.profile]
    return [*words, "--installed", request.installed]


def _take_turns(ways: Mapping[str, Callable[[], object]], repeat: int) -> Times:
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeat):
        for way, plan in ways.items():
            start = time.perf_counter()
            plan()
            times[way].append(round(time.perf_counter() - start, 3))
    return times
