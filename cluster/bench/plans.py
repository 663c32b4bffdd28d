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
from cluster.master import resolver
from cluster.master.progress import Reporter
from cluster.master.resolver import Request
from cluster.process import run

RATIO = 1.3
"""The promise: planning takes at most so many times what emerge takes."""
RESOLVE_S = 3.0
"""The promise: and at most so long."""

RESOLVE, UNCHANGED, COMMAND, EMERGE = "resolve", "resolve, nothing to do", "cluster plan", "emerge --pretend"
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

    @property
    def ratio(self) -> float:
        """How many times longer `cluster plan` takes than emerge: the median of the turns' own ratios."""
        turns = zip(self.times[COMMAND], self.times[EMERGE], strict=True)
        return round(statistics.median(ours / emerges for ours, emerges in turns), 2)

    def json(self) -> dict[str, Any]:
        """Seconds and the ratio."""
        times = {way: _summary(spent) for way, spent in self.times.items()}
        return {"packages": self.packages, "seconds": times, "ratio_to_emerge": self.ratio}


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
            "promised": {"ratio_to_emerge": RATIO, "resolve_s": RESOLVE_S},
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
            packages = len(resolver.resolve(request, place / "resolve").packages)  # warms the page cache
            systems[arch] = System(packages, _take_turns(_ways(request, place, prefix), repeat))
    return Report(repeat, systems, machine.facts())


def _ways(request: Request, place: Path, prefix: emerge.Prefix) -> dict[str, Callable[[], object]]:
    nothing = gentoo.request(request.repositories[0], request.target.name, request.installed, "@profile")
    environment = prefix.configure(request)
    return {
        RESOLVE: partial(_resolve, request, place),
        UNCHANGED: partial(_resolve, nothing, place),
        COMMAND: partial(run, _command(request, place), deadline_s=_DEADLINE_S),
        EMERGE: partial(run, emerge.command(prefix, emerge.options(request)), env=environment, deadline_s=_DEADLINE_S),
    }


def _resolve(request: Request, place: Path) -> None:
    """In a directory of its own, as `cluster plan` does it: nothing of the last turn is there."""
    with tempfile.TemporaryDirectory(dir=place) as work:
        resolver.resolve(request, Path(work))


def _command(request: Request, place: Path) -> list[str | Path]:
    """`cluster plan` of `request`, with a configuration and a binhost of its own."""
    config = place / "config.toml"
    config.write_text(f"[build]\nmake_conf = {json.dumps(request.make_conf)}\n")
    (repository,) = request.repositories
    words: list[str | Path] = [sys.executable, "-m", "cluster", "plan", *request.atoms, "--emptytree", "--json"]
    words += ["--config", config, "--binhost", place / "binhost", "--state", place / "state"]
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
