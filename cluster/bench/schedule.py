"""`cluster bench schedule`: how near schedules come to what none can beat, ours beside those of other builders.

The large graphs are each built in a process of its own, which is this module: `python -m cluster.bench.schedule SIZE`.
"""

from __future__ import annotations

import json
import math
import resource
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cluster.bench import machine, shapes
from cluster.errors import InputError
from cluster.master import historyfile, trial, workload
from cluster.master.progress import Reporter
from cluster.master.schedule.hosts import parse
from cluster.master.schedule.tasks import Tasks
from cluster.master.trial import CALM, OURS, POLICIES, Policy, Trial, Upset
from cluster.process import run

_SHARED = Path(__file__).parents[3] / "shared/build-history"
GRAPH = _SHARED / "depgraph.txt.xz"
HISTORY = _SHARED / "history.csv.xz"
"""Where the replayed builds lie by default: beside the checkout."""

EQUAL = ("4x1", "8x1", "16x1", "64x1")
NAMED = ("2x4.0,6x1.0", "1x8.0,3x2.0,12x0.5")
MIXES = ("4x3,8x1,16x0.25", "1x2,1x1.5,1x1,1x0.7", "3x6,5x2.5,10x1", "2x2.5,6x1.6,8x1", "4x5,24x1,32x0.5")
"""The fourth is a few machines of three ages, the fifth rented ones beside a lab's and its boards."""
HARD = ("1x4,16x1", "2x10,40x1")
"""A few fast nodes for work of which most waits for them: the bound is far from what any schedule reaches."""

DISTURBED_MIXES = ("8x1", *NAMED)
UPSETS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "a fifth of nodes lost": {"fail_rate": 0.2},
        "a fifth of hosts leave": {"spot_loss": 0.2},
        "estimates off, sigma 1": {"estimate_error": 1.0},
    }
)
SEEDS = 3
SHAPE_PACKAGES = 1000
SHAPE_MIXES = ("8x1", *NAMED)
SIZES = (5000, 10_000, 20_000)
_NEEDS = 11  # of each package but the first layer's, so that there are ten times as many as packages
LARGE_MIX = "1000x1"

LIMITS: Mapping[str, float] = MappingProxyType({"equal": 0.005, "named": 0.01, "mixes": 0.02, "disturbed": 0.1})
"""The promise: makespans are at most by this share above the bound."""
WALL_S = 60.0
"""The promise: of the largest graph."""
DECISION_MS = 5.0
"""The promise: the slowest decision."""

_DEADLINE_S = 1800.0


@dataclass(frozen=True, slots=True)
class Row:
    """One policy in one place."""

    part: str
    graph: str
    hosts: str
    upset: str
    """What disturbed it; "" for nothing."""
    seed: int
    policy: Policy
    makespan_s: float
    lower_bound_s: float
    ratio: float
    undisturbed_s: float | None
    """What the same policy takes with nothing that disturbs; None if nothing did."""
    lost: int
    slowest_ms: float
    wall_s: float


@dataclass(frozen=True, slots=True)
class Large:
    """One large graph."""

    packages: int
    edges: int
    ratio: float
    wall_s: float
    median_ms: float
    slowest_ms: float
    over: int
    """Decisions that took more than DECISION_MS."""
    peak_mib: int


@dataclass(frozen=True, slots=True)
class Report:
    """What came out."""

    rows: tuple[Row, ...]
    large: tuple[Large, ...]
    machine: Mapping[str, str | int]

    def of(self, part: str) -> tuple[Row, ...]:
        """The rows of one part."""
        return tuple(row for row in self.rows if row.part == part)

    @property
    def missed(self) -> tuple[str, ...]:
        """Each promise that was not kept, in a line."""
        return (*_far(self.rows), *_behind(self.rows), *_slow(self.rows, self.large))

    def json(self) -> dict[str, Any]:
        """The contract of `cluster bench schedule --json`."""
        promised = {"above_bound": dict(LIMITS), "wall_s": WALL_S, "slowest_ms": DECISION_MS}
        return {
            "rows": [asdict(row) for row in self.rows],
            "large": [asdict(one) for one in self.large],
            "promised": promised,
            "missed": list(self.missed),
            "machine": dict(self.machine),
        }


def _far(rows: Iterable[Row]) -> Iterator[str]:
    for row in rows:
        limit = LIMITS.get(row.part, math.inf)
        if row.policy == OURS and row.ratio > 1 + limit:
            yield f"{_place(row)}: {row.ratio:.4f} of the bound, {1 + limit:g} is promised"


def _behind(rows: Iterable[Row]) -> Iterator[str]:
    """Where another policy is sooner than ours in the very same world."""
    together: dict[str, list[Row]] = {}
    for row in rows:
        together.setdefault(_place(row), []).append(row)
    for place, found in together.items():
        ours = next(row for row in found if row.policy == OURS)
        best = min(found, key=lambda row: row.makespan_s)
        if best.makespan_s < ours.makespan_s * (1 - 1e-9):
            yield f"{place}: {ours.ratio:.4f}, and {best.policy} {best.ratio:.4f} of the bound"


def _slow(rows: Iterable[Row], large: Iterable[Large]) -> Iterator[str]:
    for row in rows:
        if row.policy == OURS and row.slowest_ms > DECISION_MS:
            yield f"{_place(row)}: a decision took {row.slowest_ms:.1f} ms"
    for one in large:
        if one.over:
            slow = f"{one.over} decisions took more than {DECISION_MS:g} ms, the slowest {one.slowest_ms:.1f} ms"
            yield f"{one.packages} packages: {slow}"
        if one.wall_s > WALL_S:
            yield f"{one.packages} packages: {one.wall_s:.0f} s"


def _place(row: Row) -> str:
    disturbed = f", {row.upset}, seed {row.seed}" if row.upset else ""
    return f"{row.graph} on {row.hosts}{disturbed}"


@dataclass(frozen=True, slots=True)
class _Bench:
    real: Tasks
    reporter: Reporter

    def calm(self, part: str, mixes: Sequence[str]) -> Iterator[Row]:
        for mix in mixes:
            self.reporter.step(f"{part}: {mix}")
            yield from (_row(part, "real", mix, _on(policy, self.real, mix)) for policy in POLICIES)

    def disturbed(self) -> Iterator[Row]:
        for mix in DISTURBED_MIXES:
            before = {policy: _on(policy, self.real, mix).makespan_s for policy in POLICIES}
            for name, values in UPSETS.items():
                self.reporter.step(f"{mix}: {name}")
                for seed in range(SEEDS):
                    upset = Upset(**values, seed=seed)
                    for policy in POLICIES:
                        found = _on(policy, self.real, mix, upset)
                        yield _row("disturbed", "real", mix, found, name, seed, before[policy])

    def shaped(self) -> Iterator[Row]:
        for name, make in shapes.SHAPES.items():
            made = make(SHAPE_PACKAGES, 0)
            self.reporter.step(f"{SHAPE_PACKAGES} packages, {name}")
            for mix in SHAPE_MIXES:
                yield from (_row("shapes", name, mix, _on(policy, made, mix)) for policy in POLICIES)


def _on(policy: Policy, tasks: Tasks, mix: str, upset: Upset = CALM) -> Trial:
    return trial.run(policy, tasks, parse(mix), upset)


def _row(
    part: str, graph: str, mix: str, found: Trial, upset: str = "", seed: int = 0, undisturbed_s: float | None = None
) -> Row:
    return Row(
        part=part,
        graph=graph,
        hosts=mix,
        upset=upset,
        seed=seed,
        policy=found.policy,
        makespan_s=round(found.makespan_s, 3),
        lower_bound_s=round(found.lower_bound_s, 3),
        ratio=round(found.ratio, 5),
        undisturbed_s=None if undisturbed_s is None else round(undisturbed_s, 3),
        lost=found.lost,
        slowest_ms=round(found.slowest_ms, 3),
        wall_s=round(found.wall_s, 3),
    )


_PARTS: Mapping[str, Callable[[_Bench], Iterator[Row]]] = MappingProxyType(
    {
        "equal": lambda bench: bench.calm("equal", EQUAL),
        "named": lambda bench: bench.calm("named", NAMED),
        "mixes": lambda bench: bench.calm("mixes", MIXES),
        "hard": lambda bench: bench.calm("hard", HARD),
        "disturbed": _Bench.disturbed,
        "shapes": _Bench.shaped,
    }
)
LARGE = "large"
PARTS = (*_PARTS, LARGE)


def check_names(names: Sequence[str]) -> None:
    """Raise InputError unless all `names` are parts."""
    wrong = next((name for name in names if name not in PARTS), None)
    if wrong is not None or not names:
        raise InputError(f"there is no part {wrong or ''!r}", f"parts: {', '.join(PARTS)}")


def measure(graph: Path, history: Path, parts: Sequence[str], reporter: Reporter) -> Report:
    """Run `parts` over the builds of these two files. Raises InputError where one cannot be read.

    Without the default ones what takes them is left out, and that is said.
    """
    wanted = [part for part in PARTS if part in parts]
    replayed = [part for part in wanted if part not in (LARGE, "shapes")]
    if replayed and (graph, history) == (GRAPH, HISTORY) and not graph.is_file():
        reporter.warn(f"left out: {', '.join(replayed)}, as there is no {graph}; name another with --graph")
        wanted = [part for part in wanted if part not in replayed]
        replayed = []
    real = workload.read(graph, historyfile.read(history)).tasks if replayed else shapes.layered(0)
    bench = _Bench(real, reporter)
    rows = tuple(row for part in wanted if part != LARGE for row in _PARTS[part](bench))
    large = tuple(_in_own_process(size, reporter) for size in SIZES) if LARGE in wanted else ()
    return Report(rows, large, machine.facts())


def _in_own_process(packages: int, reporter: Reporter) -> Large:
    reporter.step(f"{packages} packages with {10 * packages} needs on {LARGE_MIX}")
    printed = run([sys.executable, "-m", "cluster.bench.schedule", str(packages)], deadline_s=_DEADLINE_S)
    return Large(**json.loads(printed.splitlines()[-1]))


def large(packages: int) -> Large:
    """Build a graph of so many packages in this process, by our policy."""
    made = shapes.layered(packages, needs_each=_NEEDS)
    found = _on("ours", made, LARGE_MIX)
    return Large(
        packages=len(made),
        edges=sum(map(len, made.needs)),
        ratio=round(found.ratio, 5),
        wall_s=round(found.wall_s, 2),
        median_ms=round(found.median_ms, 3),
        slowest_ms=round(found.slowest_ms, 3),
        over=sum(1000 * took > DECISION_MS for took in found.decisions_s),
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,  # Linux counts KiB
    )


if __name__ == "__main__":
    print(json.dumps(asdict(large(int(sys.argv[1])))))
