"""What `cluster host` shows a person."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from cluster import widetable
from cluster.master.hosts.registry import Machine, State

_STYLES = {State.READY: "green", State.DRAINED: "yellow", State.QUARANTINED: "bold red", State.UNFIT: "bold red"}


def hosts(console: Console, found: Sequence[Machine]) -> None:
    """A table of the hosts, and below it why those that get no work get none."""
    table = widetable.table("host", "at", "state", "nodes", numbers=("cpus", "memory MiB", "disk MiB", "speed"))
    table.add_column("version", no_wrap=True)
    for machine in found:
        facts = machine.facts
        numbers = ("",) * 4
        if facts is not None:
            numbers = (str(facts.cpus), str(facts.memory_mib), str(facts.disk_mib), f"{facts.speed:.2f}")
        state = f"[{_STYLES[machine.state]}]{machine.state}[/]"
        row = (escape(machine.name), escape(machine.place), state, escape(_nodes(machine)), *numbers)
        table.add_row(*row, facts.version if facts else "")
    widetable.show(console, table)
    for machine in found:
        if machine.reason:
            console.print(f"{machine.name}: {machine.reason}", highlight=False, markup=False, soft_wrap=True)


def _nodes(machine: Machine) -> str:
    """How many of each target, with the driver where it is not QEMU."""

    def said(target: str, count: int) -> str:
        if machine.compiles_only:
            return f"{target} compiles"
        kind = machine.kind(target)
        return f"{target} {count}" if kind == "qemu" else f"{target} {count} ({kind})"

    return ", ".join(said(target, count) for target, count in machine.nodes.items())
