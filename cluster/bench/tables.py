"""Benchmarks for a person: tables on a console."""

from __future__ import annotations

import statistics
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from cluster import widetable
from cluster.bench import dispatch as dispatches
from cluster.bench import memory
from cluster.bench import nodes as node_times
from cluster.bench import plans as plan_times
from cluster.bench import scale as scales
from cluster.bench import schedule as schedules
from cluster.bench import size as sizes
from cluster.bench import starts as process_starts
from cluster.bench.emulation import Report
from cluster.bench.samples import PARTS, ratios
from cluster.master.estimate import duration
from cluster.master.trial import POLICIES

TALK = Path(__file__).with_name("talk.toml")
"""Times of 2009, with their source."""

_COLUMNS = (*PARTS, "total_s")


def talk() -> tuple[str, dict[str, dict[str, float]]]:
    """The title of the talk's table, and for each of its variants the seconds that it gives."""
    data = tomllib.loads(TALK.read_text())
    title: str = data.pop("title")
    return title, data


def _line(console: Console, text: str) -> None:
    """One line as it is, however long."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _heading(part: str) -> str:
    return part.removesuffix("_s")


def _seconds(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}x" if value < 100 else f"{value:.0f}x"


def emulation(console: Console, report: Report) -> None:
    """Medians in seconds with the ratio to native of each part, the spread of the total, the times of 2009."""
    _line(console, f"{report.package}, builds of each: {report.repeat}; median seconds, and times native")
    table = widetable.table(
        "variant", numbers=(*(word for part in _COLUMNS for word in (_heading(part), "")), "spread", "wall")
    )
    against = {part: ratios(report.summaries, part) for part in _COLUMNS}
    for name, summary in report.summaries.items():
        median = asdict(summary.median)
        cells = [word for part in _COLUMNS for word in (_seconds(median[part]), _times(against[part].get(name)))]
        least, most = (_seconds(value) for value in summary.spread["total_s"])
        table.add_row(name, *cells, f"{least}-{most}", _seconds(median["wall_s"]))
    console.print(table)
    for name, made_of in report.made_of.items():
        _line(console, f"{name}: {made_of}")
    for name, why in report.left_out.items():
        _line(console, f"{name}: left out, {why}")
    _print_machine(console, report.machine)
    _print_talk(console)


def _print_machine(console: Console, facts: Mapping[str, str | int]) -> None:
    emulator = f", QEMU {facts['qemu']}" if "qemu" in facts else ""
    _line(console, f"{facts['cores']} cores of {facts['cpu']}, Linux {facts['kernel']}{emulator}")


def _print_talk(console: Console) -> None:
    title, variants = talk()
    _line(console, f"\n{title}: seconds, and times native")
    table = widetable.table(
        "variant", numbers=tuple(word for part in _COLUMNS for word in (_heading(part), "") if part != "install_s")
    )
    for name, spent in variants.items():
        table.add_row(name, *_talk_cells(spent, variants["native"]))
    console.print(table)


def _talk_cells(spent: Mapping[str, float], native: Mapping[str, float]) -> list[str]:
    cells = []
    for part in _COLUMNS:
        if part != "install_s":
            value = spent.get(part)
            cells += [f"{value:g}", _times(value / native[part])] if value is not None else ["", ""]
    return cells


def starts(console: Console, report: process_starts.Report) -> None:
    """Milliseconds of process starts, natively and in the node."""
    _line(console, f"starts of each: {report.repeat}; median milliseconds (least-greatest)")
    table = widetable.table("process", numbers=("native", "", "node", "", "times native"))
    for name, native in report.native.items():
        table.add_row(name, *_median(native), *_median(report.node[name]), _times(report.ratios[name]))
    console.print(table)
    _print_machine(console, report.machine)


def plans(console: Console, report: plan_times.Report) -> None:
    """Seconds of planning @system in each way, and what each is of emerge, with what is promised."""
    _line(console, f"@system with everything anew, turns: {report.repeat}; median seconds (least-greatest)")
    table = widetable.table("", numbers=("packages", "", "seconds", "", "of emerge's"))
    for arch, system in report.systems.items():
        for way, spent in system.times.items():
            of_emerge = "" if way == plan_times.EMERGE else f"{system.ratio(way):.2f}"
            table.add_row(arch, str(system.packages), way, *_hundredths(spent), of_emerge)
    console.print(table)
    most = plan_times.MOST_S
    _line(console, f"promised: resolve at most {plan_times.RATIO:g} of emerge's and {most:g} s, unchanged {most:g} s")
    _print_machine(console, report.machine)


def size(console: Console, report: sizes.Report) -> None:
    """Seconds and memory of planning ever larger trees, how they grow, and what is promised."""
    _line(console, "every package of a tree planned from an empty root; seconds, and peak memory of the process")
    table = widetable.table("packages", numbers=("dependencies", "requirements", "Portage", "ours", "total", "MiB"))
    for one in report.sizes:
        counts = (str(one.packages), str(one.dependencies), str(one.requirements))
        seconds = (one.portage_s, one.ours_s, one.total_s)
        table.add_row(*counts, *(f"{value:.1f}" for value in seconds), str(one.peak_mib))
    if grown := report.exponents:
        names = ("portage_s", "ours_s", "total_s", "peak_mib")
        table.add_row("packages^", "", "", *(f"{grown[name]:.2f}" for name in names), style="bold")
    console.print(table)
    words = f"{sizes.SECONDS:g} s and {sizes.MEMORY_MIB} MiB for {sizes.PACKAGES} packages"
    _line(console, f"promised: at most {words}")
    _print_machine(console, report.machine)


_PARTS = {
    "equal": "equal nodes",
    "named": "two mixes",
    "mixes": "other unequal mixes",
    "hard": "hard: far from what any schedule reaches",
    "shapes": "generated graphs",
}


def schedule(console: Console, report: schedules.Report) -> None:
    """How many times the bound each policy takes, part by part, with what is promised and what of it is missed."""
    for part, words in _PARTS.items():
        if rows := report.of(part):
            limit = schedules.LIMITS.get(part)
            promised = f"; at most {1 + limit:g} is promised of ours" if limit else ""
            _line(console, f"{words}: times what no schedule can beat{promised}")
            table = widetable.table("graph, nodes", numbers=POLICIES)
            for (graph, mix), found in _grouped(rows, lambda row: (row.graph, row.hosts)).items():
                table.add_row(f"{graph}, {mix}", *(f"{row.ratio:.4f}" for row in found))
            widetable.show(console, table)
    if rows := report.of("disturbed"):
        _print_disturbed(console, rows)
    if report.large:
        _print_large(console, report.large)
    for line in report.missed:
        _line(console, f"missed: {line}")
    _print_machine(console, report.machine)


Key = TypeVar("Key")


def _grouped(rows: Sequence[schedules.Row], key: Callable[[schedules.Row], Key]) -> dict[Key, list[schedules.Row]]:
    found: dict[Key, list[schedules.Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def _print_disturbed(console: Console, rows: Sequence[schedules.Row]) -> None:
    limit = 1 + schedules.LIMITS["disturbed"]
    _line(
        console,
        f"disturbed, {schedules.SEEDS} seeds: times the bound, the worst of each; {limit:g} is promised of ours",
    )
    table = widetable.table("nodes, what happens", numbers=(*POLICIES, "ours, of undisturbed"))
    for (mix, upset), found in _grouped(rows, lambda row: (row.hosts, row.upset)).items():
        by_policy = _grouped(found, lambda row: row.policy)
        worst = [max(row.ratio for row in by_policy[policy]) for policy in POLICIES]
        ours = max(row.makespan_s / (row.undisturbed_s or 1.0) for row in by_policy["ours"])
        table.add_row(f"{mix}, {upset}", *(f"{ratio:.4f}" for ratio in worst), f"{ours:.4f}")
    widetable.show(console, table)


def _print_large(console: Console, found: Sequence[schedules.Large]) -> None:
    words = f"{schedules.WALL_S:g} s and {schedules.DECISION_MS:g} ms for a decision are promised"
    _line(console, f"ours, large graphs on {schedules.LARGE_MIX}; {words}")
    table = widetable.table(
        "packages", numbers=("needs", "of bound", "wall s", "median ms", "slowest ms", "slower", "MiB")
    )
    for one in found:
        times = (f"{one.ratio:.4f}", f"{one.wall_s:.1f}", f"{one.median_ms:.3f}", f"{one.slowest_ms:.1f}")
        table.add_row(str(one.packages), str(one.edges), *times, str(one.over), str(one.peak_mib))
    widetable.show(console, table)


def scale(console: Console, report: scales.Report) -> None:
    """What ever more hosts bring, cost, move and ask of the master, and where it stops."""
    for copies, chain_s in report.critical_s.items():
        rows = [row for row in report.rows if row.copies == copies]
        _line(console, f"{rows[0].packages} packages, {copies} of the graph, on {report.type}; simulated")
        table = widetable.table(
            "hosts",
            numbers=("nodes", "ends in", "of bound", "busy", "USD", "GiB moved", "core s", "cpu s", "slowest ms"),
        )
        for row in rows:
            ratio = row.makespan_s / row.lower_bound_s if row.lower_bound_s else 1.0
            times = (duration(row.makespan_s), f"{ratio:.4f}", f"{row.busy:.1%}", f"{row.cost_usd:.2f}")
            master = (f"{row.core_s:.2f}", f"{row.cpu_s:.1f}", f"{row.slowest_ms:.1f}")
            table.add_row(str(row.hosts), str(row.nodes), *times, f"{row.moved_bytes / 2**30:.1f}", *master)
        widetable.show(console, table)
        if (end := scales.stops(rows)) is not None:
            _line(console, f"from {end.hosts} hosts on nothing is gained; the longest chain takes {duration(chain_s)}")
    _print_machine(console, report.machine)


def _hundredths(times: Sequence[float]) -> tuple[str, str]:
    return f"{statistics.median(times):.2f}", f"({min(times):.2f}-{max(times):.2f})"


def _median(times: Sequence[float]) -> tuple[str, str]:
    return f"{statistics.median(times):.1f}", f"({min(times):.1f}-{max(times):.1f})"


def nodes(console: Console, report: node_times.Report) -> None:
    """Seconds to the first phase and to the binhost with what is promised, of each step; MiB of waiting nodes."""
    latency = report.latency
    _line(console, f"{report.package}, builds: {report.repeat}; seconds since the job was given to its node's engine")
    table = widetable.table("until", numbers=("median", "", "promised"))
    table.add_row("first phase", *_spread(latency.first_phase), f"{node_times.FIRST_PHASE_S:g}")
    table.add_row("in the binhost", *_spread(latency.admitted), f"{node_times.ADMITTED_S:g}")
    console.print(table)
    table = widetable.table("step", numbers=("median", ""))
    for name, spread in latency.steps.items():
        table.add_row(name, *_spread(spread))
    console.print(table)
    _print_memory(console, report.idle)
    facts = report.node
    warm = "restored from a warm one" if facts["warm"] else "booted"
    how = f"{facts['cpus']} vCPU ({facts['accelerator']}), {facts['memory_mib']} MiB, Linux {facts['kernel']}"
    _line(console, f"nodes: {how}, {warm}; {node_times.MEMORY_MIB} MiB are promised to suffice")
    _print_machine(console, report.machine)


def _spread(spread: node_times.Spread) -> tuple[str, str]:
    return f"{spread.median_s:.2f}", f"({spread.min_s:.2f}-{spread.max_s:.2f})"


def _print_memory(console: Console, idle: memory.Idle) -> None:
    _line(console, "memory of nodes that wait, MiB")
    table = widetable.table("node", numbers=("rss", "pss", "private", "shared"))
    rows = [("1 alone", idle.one), *((f"{number} of {len(idle.all)}", one) for number, one in enumerate(idle.all, 1))]
    for name, usage in rows:
        cells = (usage.rss_mib, usage.pss_mib, usage.private_mib, usage.shared_mib)
        table.add_row(name, *(f"{cell:.0f}" for cell in cells))
    console.print(table)
    further = "" if idle.further_mib is None else f"; each further one: {idle.further_mib:.0f} MiB"
    _line(console, f"one node: {idle.one.pss_mib:.0f} MiB{further}")


def dispatch(console: Console, report: dispatches.Report) -> None:
    """Packages a second, and the CPU time of each process, through the loop alone and through Dask."""
    what = f"{report.packages} packages that take no time, {report.workers} nodes at once"
    _line(console, f"{what}; {dispatches.RATE:g} a second are promised; CPU milliseconds for each package")
    table = widetable.table("through", numbers=("seconds", "a second", "master", "scheduler", "workers"))
    for name, one in (("the loop alone", report.loop), ("Dask", report.dask)):
        cpu = (f"{spent:.2f}" for spent in (one.master_ms, one.scheduler_ms, one.workers_ms))
        table.add_row(name, f"{one.seconds:.1f}", f"{one.rate:.0f}", *cpu)
    console.print(table)
    _line(console, "workers say over TLS what real ones say, hundreds in a process, and build nothing")
    _print_machine(console, report.machine)
