"""`cluster bench scale`: what ever more hosts bring, cost, move and ask of the master, simulated."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from cluster import paths
from cluster.bench import machine
from cluster.errors import InputError
from cluster.master import historyfile, trial, workload
from cluster.master.ec2 import catalogue, mixes
from cluster.master.ec2.catalogue import Catalogue, Offer
from cluster.master.progress import Reporter
from cluster.master.schedule import tasks
from cluster.master.schedule.simulation import Trace
from cluster.master.schedule.tasks import Tasks
from cluster.model import Cpv

HOSTS = "10,20,50,100,200,500,1000"
TYPE = "c7g.xlarge"
TARGET = "arm64"
COPIES = (1, 16)
"""The graph alone, and so many of it at once: one for each of some targets or variants."""
SOURCES = 0.03
BINPKG = 0.03
"""Of what a build takes of the disk: the sources that it unpacks, and the package that comes of it. Assumed."""
_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Row:
    """So many hosts."""

    copies: int
    packages: int
    hosts: int
    nodes: int
    makespan_s: float
    """Until the last package, from when the hosts take packages on."""
    lower_bound_s: float
    busy: float
    """Of the nodes' time, 0 to 1."""
    cost_usd: float
    """Each host from its request until it has nothing more to do."""
    moved_bytes: int
    """To all hosts together, each file once to each host that needs it."""
    core_s: float
    """Of one processor of the master, for all decisions."""
    cpu_s: float
    """The same with choosing rules, by looking ahead, and with the simulation itself."""
    slowest_ms: float
    """Decision."""


@dataclass(frozen=True, slots=True)
class Report:
    """What came out."""

    type: str
    usd_h: float
    rows: tuple[Row, ...]
    critical_s: Mapping[int, float]
    """The longest chain on these hosts, by copies."""
    machine: Mapping[str, str | int]

    def json(self) -> dict[str, Any]:
        """The contract of `cluster bench scale --json`."""
        return asdict(self)


def parse(text: str) -> tuple[int, ...]:
    """Numbers of hosts, with commas. Raises InputError."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and 1 <= int(word) <= _MOST for word in words):
        raise InputError(f"--hosts {text!r} is no list of numbers", f"for example {HOSTS}; {_MOST} at most")
    return tuple(map(int, words))


def measure(graph: Path, history: Path, hosts: Sequence[int], copies: Sequence[int], reporter: Reporter) -> Report:
    """Play the builds of these two files on so many hosts of TYPE. Raises InputError where a file cannot be read."""
    real = workload.read(graph, historyfile.read(history)).tasks
    shipped = catalogue.read(paths.data(*catalogue.SHIPPED))
    (offer,) = catalogue.offers(shipped.only([TYPE]), TARGET)
    rows, chains = [], {}
    for times in copies:
        many = copied(real, times)
        chains[times] = max(tasks.longest(many, lambda task: task.seconds), default=0.0) / offer.speed
        for count in hosts:
            reporter.step(f"{len(many)} packages on {count} hosts")
            rows.append(_row(many, times, offer, count, shipped))
    return Report(TYPE, offer.usd_h, tuple(rows), chains, machine.facts())


def copied(some: Tasks, times: int) -> Tasks:
    """`some` so many times over, none of which needs another."""
    return tasks.of(
        replace(task, cpv=Cpv(f"{task.cpv}~{number}"), needs=tuple(Cpv(f"{need}~{number}") for need in task.needs))
        for number in range(times)
        for task in some.all
    )


def _row(many: Tasks, copies: int, offer: Offer, count: int, known: Catalogue) -> Row:
    hosts = mixes.Fleet(((offer, count),)).hosts()
    began = time.process_time()
    found = trial.run("ours", many, hosts)
    cpu_s = time.process_time() - began
    until = mixes.busy_until(found.trace, hosts)
    paid_s = sum(max(known.billing.least_s, known.startup.seconds + last) for last in until.values())
    work_s = sum(task.seconds for task in many.all) / offer.speed
    return Row(
        copies=copies,
        packages=len(many),
        hosts=count,
        nodes=count * offer.nodes,
        makespan_s=round(found.makespan_s, 3),
        lower_bound_s=round(found.lower_bound_s, 3),
        busy=round(work_s / (count * offer.nodes * found.makespan_s), 4) if found.makespan_s else 0.0,
        cost_usd=round((offer.usd_h + known.billing.disk_usd_h) * paid_s / mixes.HOUR_S, 3),
        moved_bytes=moved(found.trace),
        core_s=round(sum(found.decisions_s), 3),
        cpu_s=round(cpu_s, 3),
        slowest_ms=round(found.slowest_ms, 3),
    )


def moved(trace: Trace) -> int:
    """Bytes that the hosts of `trace` get: sources of what they build, and the binpkgs of all that this needs.

    A host gets a file once, and has what it built itself. Whatever a package needs, of however many steps, is taken
    to be put into its node. Packages of which no size is known have the median.
    """
    some = trace.state.tasks
    known = [task.disk_mib for task in some.all if task.disk_mib]
    usual = median(known) if known else 0.0
    mib = [task.disk_mib or usual for task in some.all]
    needed, built = _closures(some), _built(trace)
    total = 0.0
    for places in built.values():
        wanted: set[int] = set().union(*(needed[place] for place in places)) - places
        total += SOURCES * sum(mib[place] for place in places) + BINPKG * sum(mib[place] for place in wanted)
    return round(total * (1 << 20))


def _closures(some: Tasks) -> list[frozenset[int]]:
    """For each package all that it needs, and all that those need."""
    found: list[frozenset[int]] = [frozenset()] * len(some)
    for place in some.order:
        needs = some.needs[place]
        found[place] = frozenset(needs).union(*(found[need] for need in needs))
    return found


def _built(trace: Trace) -> dict[str, set[int]]:
    """By host, what it built."""
    hosts = {node: host.name for host in trace.state.hosts.values() for node in host.nodes}
    found: dict[str, set[int]] = {}
    for stay in trace.stays:
        found.setdefault(hosts[stay.node], set()).add(trace.state.tasks.places[stay.cpv])
    return found


def stops(rows: Iterable[Row]) -> Row | None:
    """The first row, of those of one number of copies, from which on more hosts save less than a hundredth."""
    every = list(rows)
    least = min((row.makespan_s for row in every), default=0.0)
    return next((row for row in every if row.makespan_s <= least * 1.01), None)
