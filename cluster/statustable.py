"""What `cluster status` and `cluster explain` show a person, and the same for programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from rich.console import Console
from rich.markup import escape

from cluster import widetable
from cluster.clock import clock
from cluster.master.estimate import duration
from cluster.master.schedule.hosts import THIS_MACHINE
from cluster.master.schedule.outlook import Eta
from cluster.master.schedule.reasons import Building, Reason, Say, Unbegun
from cluster.master.schedule.state import Running
from cluster.master.standing import Life, Stage, Standing
from cluster.model import Cpv

_ALWAYS = (Stage.BUILDING, Stage.READY, Stage.WAITING, Stage.BLOCKED, Stage.BUILT, Stage.FAILED)
_SHOWN = 3
"""Packages of a host."""
_STYLES = {"building": "green", "idle": "none", "drained": "yellow", "quarantined": "bold red", "gone": "bold red"}
_TIMES = frozenset({"since", "at", "end", "slow_end"})


def status(console: Console, runs: Sequence[Standing], wall: float) -> None:
    """Of each run how it stands, how many packages are where, and what its nodes and its hosts do."""
    for run in runs:
        say = _says(run, wall)
        _line(console, f"[bold]{escape(run.bulletin.name)}[/]: {escape(headline(run, say))}")
        _line(console, f"  {_counts(run)}")
        if run.state.running and _lives(run):
            _nodes(console, run, say)
        _hosts(console, run)


def headline(run: Standing, say: Say) -> str:
    """Since when it goes on and when it is to end, or how it ended."""
    began = say(0.0)
    match run.life:
        case Life.RUNNING:
            return f"building since {began}, {_end(run, say)}"
        case Life.KILLED:
            return f"began at {began} and was killed; the last that is known of it is from {say(run.now)}"
        case _:
            return f"began at {began} and {_was(run.life)} at {say(run.now)}, after {duration(run.now)}"


def _was(life: Life) -> str:
    return "was interrupted" if life is Life.INTERRUPTED else "ended"


def _end(run: Standing, say: Say) -> str:
    if run.end is None:
        return "its end is not known yet"
    words = f"ends about {say(run.end.at)} (in {duration(run.end.at - run.now)}"
    if run.seen is not None:
        words += (
            f"; finished packages took {run.seen.low:.1f} to {run.seen.high:.1f} of what was expected, "
            f"so {say(run.end.earliest)} to {say(run.end.latest)}"
        )
    first = run.bulletin.first_end
    return f"{words}; at first {say(first)} was expected)" if first < math.inf else f"{words})"


def _counts(run: Standing) -> str:
    counts = run.counts()
    shown = [stage for stage in Stage if stage in _ALWAYS or counts[stage]]
    return f"{', '.join(f'{counts[stage]} {stage.value}' for stage in shown)} of {len(run.state.tasks)}"


def _nodes(console: Console, run: Standing, say: Say) -> None:
    table = widetable.table("node", "package", "phase", numbers=("for", "expected", "left", "ends about"))
    for place, one in _running(run):
        cpv = run.state.tasks.all[place].cpv
        _, end = run.span(cpv)
        phase = run.bulletin.phases.get(one.node)
        spent, usual = duration(run.now - one.since), duration(one.end - one.since)
        to_come = (duration(end - run.now), say(end)) if end is not None else ("", "")
        table.add_row(*map(escape, (one.node, cpv, phase.name if phase else "", spent, usual, *to_come)))
    widetable.show(console, table)


def _hosts(console: Console, run: Standing) -> None:
    """A table of the hosts while the run goes on, and below it why some are given nothing."""
    hosts = run.hosts()
    if {host.name for host in hosts} == {THIS_MACHINE}:
        return
    if _lives(run):
        table = widetable.table("host", "state", numbers=("nodes", "busy"))
        table.add_column("packages", no_wrap=True)
        for host in hosts:
            state = f"[{_STYLES[host.state]}]{host.state}[/]"
            nodes = str(host.nodes) if host.nodes else ""
            table.add_row(escape(host.name), state, nodes, str(len(host.packages)), escape(_some(host.packages)))
        widetable.show(console, table)
    for host in hosts:
        if host.reason:
            _line(console, escape(f"  {host.name} is {host.state}: {host.reason}"))


def _some(packages: Sequence[Cpv]) -> str:
    """The first of them, and how many others there are: each has a line of its own among the nodes."""
    more = len(packages) - _SHOWN
    return ", ".join(packages[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _running(run: Standing) -> list[tuple[int, Running]]:
    return sorted(run.state.running.items(), key=lambda item: item[1].node)


def explanation(console: Console, found: Sequence[tuple[Standing, Cpv]], wall: float) -> None:
    """Of one package in each run that has it why it is where it is, and when it is expected to be built."""
    for run, cpv in found:
        _line(console, escape(f"{run.bulletin.name}: {cpv}: {_why(run, cpv, _says(run, wall))}"))


def _why(run: Standing, cpv: Cpv, say: Say) -> str:
    why = run.reason(cpv).sentence(say)
    if run.over(cpv):
        return why
    return f"{why}{_to_come(run, cpv, say)}" if _lives(run) else f"{_then(run, say)}{why}"


def _then(run: Standing, say: Say) -> str:
    """What is said before the reason of a package that a run left as it was."""
    known = "its build was killed and last heard of" if run.life is Life.KILLED else f"its build {_was(run.life)}"
    return f"{known} at {say(run.now)}, when it was: "


def _to_come(run: Standing, cpv: Cpv, say: Say) -> str:
    """When it is to be built."""
    start, end = run.span(cpv)
    if start is None or end is None:
        return ""
    if run.stage(cpv) is Stage.BUILDING:
        return f"; ends about {say(end)}"
    return f"; to be built from about {say(start)} to {say(end)}"


def _lives(run: Standing) -> bool:
    return run.life is Life.RUNNING


def _says(run: Standing, wall: float) -> Say:
    return lambda at: clock(run.bulletin.began + at, wall)


def _line(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)


# JSON.


def status_json(runs: Sequence[Standing]) -> dict[str, Any]:
    """The contract of `cluster status --json`; times are seconds since the epoch, null is unknown."""
    return {"runs": [_run_json(run) for run in runs]}


def _run_json(run: Standing) -> dict[str, Any]:
    return {
        "name": run.bulletin.name,
        "life": run.life.value,
        "began": _epoch(run, 0.0),
        "at": _epoch(run, run.now),
        "counts": {stage.value: count for stage, count in run.counts().items()},
        "end": _eta_json(run, run.end),
        "first_end": _epoch(run, run.bulletin.first_end),
        "accuracy": asdict(run.seen) if run.seen else None,
        "rule": run.state.ranking.rule.name,
        "allowed": run.state.allowed,
        "hosts": [asdict(host) for host in run.hosts()],
        "nodes": [_node_json(run, place, one) for place, one in _running(run)],
        "packages": {cpv: _package_json(run, cpv) for cpv in run.state.tasks.places},
    }


def _node_json(run: Standing, place: int, one: Running) -> dict[str, Any]:
    cpv = run.state.tasks.all[place].cpv
    phase = run.bulletin.phases.get(one.node)
    return {
        "node": one.node,
        "host": one.host,
        "package": cpv,
        "attempt": run.state.tried[place],
        "phase": phase.name if phase else None,
        "since": _epoch(run, one.since),
        "elapsed_s": run.now - one.since,
        "expected_s": one.end - one.since,
        "end": _epoch(run, run.span(cpv)[1]),
    }


def _package_json(run: Standing, cpv: Cpv) -> dict[str, Any]:
    start, end = run.span(cpv)
    expected_s = run.state.tasks.all[run.state.tasks.places[cpv]].seconds
    return {
        "stage": run.stage(cpv).value,
        "expected_s": expected_s,
        "start": _epoch(run, start),
        "end": _epoch(run, end),
    }


def explanation_json(found: Sequence[tuple[Standing, Cpv]], wall: float) -> dict[str, Any]:
    """The contract of `cluster explain --json`; times are seconds since the epoch, null is unknown."""
    return {
        "package": found[0][1],
        "runs": [
            {
                "name": run.bulletin.name,
                "life": run.life.value,
                "at": _epoch(run, run.now),
                **_package_json(run, cpv),
                "sentence": run.reason(cpv).sentence(_says(run, wall)),
                "reason": _reason_json(run, run.reason(cpv)),
            }
            for run, cpv in found
        ],
    }


def _reason_json(run: Standing, reason: Reason | Unbegun) -> dict[str, Any]:
    said = {each.name: getattr(reason, each.name) for each in fields(reason)}
    return {"kind": reason.kind, **{name: _value_json(run, name, value) for name, value in said.items()}}


def _value_json(run: Standing, name: str, value: Any) -> Any:
    if isinstance(value, Building | Unbegun):
        return _reason_json(run, value)
    return _epoch(run, value) if name in _TIMES else value


def _eta_json(run: Standing, found: Eta | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {name: _epoch(run, getattr(found, name)) for name in ("at", "earliest", "latest")}


def _epoch(run: Standing, at: float | None) -> float | None:
    return None if at is None or at == math.inf else run.bulletin.began + at
