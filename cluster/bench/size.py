"""`cluster bench size`: how planning grows with the number of packages, over trees that `bigtree` writes.

Each size is planned in a process of its own, which is this module: `python -m cluster.bench.size PACKAGES`.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster import target
from cluster.bench import bigtree, machine
from cluster.errors import InputError
from cluster.master import portagelib, resolver
from cluster.master.progress import Reporter
from cluster.node.installed import write_installed
from cluster.process import run

PACKAGES = 20_000
"""The promise is about so many packages, with ten times as many dependencies."""
SECONDS = 60.0
"""The promise: they are planned in so long."""
MEMORY_MIB = 2000
"""The promise: with so much memory."""

_DEADLINE_S = 3600.0
_LEAST = 2


@dataclass(frozen=True, slots=True)
class Planned:
    """All packages of a tree in one plan, from an empty root."""

    packages: int
    dependencies: int
    requirements: int
    """The sum of all packages' closures."""
    portage_s: float
    """In Portage: to solve and to order."""
    ours_s: float
    """Before and after that."""
    peak_mib: int

    @property
    def total_s(self) -> float:
        """Seconds in all."""
        return round(self.portage_s + self.ours_s, 2)


@dataclass(frozen=True, slots=True)
class Report:
    """What came out, the smallest tree first."""

    sizes: tuple[Planned, ...]
    machine: dict[str, str | int]

    @property
    def exponents(self) -> dict[str, float]:
        """E of seconds ~ packages^E, from the smallest to the largest; empty for one size."""
        first, last = self.sizes[0], self.sizes[-1]
        if first.packages == last.packages:
            return {}
        return {name: _exponent(first, last, name) for name in ("total_s", "portage_s", "ours_s", "peak_mib")}

    def json(self) -> dict[str, Any]:
        """The contract of `cluster bench size --json`."""
        return {
            "sizes": [{**asdict(one), "total_s": one.total_s} for one in self.sizes],
            "exponents": self.exponents,
            "promised": {"packages": PACKAGES, "seconds": SECONDS, "peak_mib": MEMORY_MIB},
            "machine": self.machine,
        }


def _exponent(first: Planned, last: Planned, name: str) -> float:
    growth = getattr(last, name) / max(getattr(first, name), 0.01)
    return round(math.log(max(growth, 0.01)) / math.log(last.packages / first.packages), 2)


def parse(text: str) -> tuple[int, ...]:
    """The sizes that `text` names with commas, the smallest first. Raises InputError."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    wrong = next((word for word in words if not word.isdecimal() or int(word) < _LEAST), None)
    if wrong is not None or not words:
        raise InputError(f"--packages {wrong or text!r} is no number of packages", "for example --packages 1000,2000")
    return tuple(sorted({int(word) for word in words}))


def measure(sizes: Sequence[int], reporter: Reporter) -> Report:
    """Plan a tree of each size. Raises CommandFailed if one cannot be planned."""
    planned = []
    for packages in sizes:
        reporter.step(f"{packages} packages with {bigtree.EDGES * packages} dependencies")
        printed = run([sys.executable, "-m", "cluster.bench.size", str(packages)], deadline_s=_DEADLINE_S)
        planned.append(Planned(**json.loads(printed.splitlines()[-1])))
        reporter.tell(f"{planned[-1].total_s:g} s, {planned[-1].peak_mib} MiB")
    return Report(tuple(planned), machine.facts())


def plan(packages: int) -> Planned:
    """Write a tree and plan all of it, in this process."""
    with tempfile.TemporaryDirectory(prefix="portage-cluster-") as name:
        scratch = Path(name)
        repository = bigtree.write(scratch / "tree", packages)
        request = resolver.Request(
            target=target.load(target.names()[0]),
            atoms=(f"@{bigtree.SET}",),
            repositories=(repository,),
            profile=repository.location / "profiles/arm64",
            installed=write_installed((), scratch / "stage", "arm64"),
            manifests=False,
        )
        start = time.perf_counter()
        with _timed() as spent:
            made = resolver.resolve(request, scratch / "work")
        total = time.perf_counter() - start
    return Planned(
        packages=len(made.packages),
        dependencies=sum(len(package.dependencies) for package in made.packages),
        requirements=sum(len(package.requires) for package in made.packages),
        portage_s=round(spent[0], 2),
        ours_s=round(total - spent[0], 2),
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,  # Linux counts KiB
    )


@contextmanager
def _timed() -> Iterator[list[float]]:
    """The seconds that Portage is asked for a solution, in a list of one."""
    spent = [0.0]
    solve = portagelib.Target.solve

    def timed(*arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        try:
            return solve(*arguments, **options)
        finally:
            spent[0] += time.perf_counter() - start

    portagelib.Target.solve = timed  # type: ignore[method-assign]
    try:
        yield spent
    finally:
        portagelib.Target.solve = solve  # type: ignore[method-assign]


if __name__ == "__main__":
    print(json.dumps(asdict(plan(int(sys.argv[1])))))
