"""`cluster simulate` for a person."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from cluster import widetable
from cluster.master.estimate import UNKNOWN_S, duration
from cluster.master.trial import Trial

_HEADINGS = ("makespan", "bound", "of it", "lost", "decisions", "median ms", "slowest ms")


def show(console: Console, trials: Sequence[Trial], hosts: str, unknown: int) -> None:
    """A line for each of `trials`, then what comes of it in a sentence."""
    table = widetable.table("policy", numbers=_HEADINGS)
    for trial in trials:
        table.add_row(*_cells(trial))
    widetable.show(console, table)
    console.print(_sentence(trials, hosts, unknown), highlight=False, markup=False, soft_wrap=True)


def _cells(trial: Trial) -> tuple[str, ...]:
    times = (duration(trial.makespan_s), duration(trial.lower_bound_s))
    counts = (str(trial.lost), str(len(trial.decisions_s)))
    return (trial.policy, *times, f"{trial.ratio:.4f}", *counts, f"{trial.median_ms:.2f}", f"{trial.slowest_ms:.2f}")


def _sentence(trials: Sequence[Trial], hosts: str, unknown: int) -> str:
    best = min(trials, key=lambda trial: trial.makespan_s)
    count = len(best.trace.state.tasks)
    assumed = f", {unknown} of them taken to need {UNKNOWN_S:g} s," if unknown else ""
    longer = 100 * (best.ratio - 1)
    return (
        f"{count} packages{assumed} are built on {hosts} in {duration(best.makespan_s)} by {best.policy}, "
        f"{longer:.1f}% more than any schedule needs at least."
    )
