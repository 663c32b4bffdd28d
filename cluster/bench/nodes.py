"""`cluster bench node`: how soon a node works, how soon a package that compiles nothing is in the binhost, and
what nodes take of the host's memory.

The package goes the way that `cluster build` takes, to a scratch binhost: what is measured is not published.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from cluster.bench import machine, memory
from cluster.bench.prepared import prepared, require_built
from cluster.errors import NodeLost
from cluster.host import kit as kits
from cluster.host import runs
from cluster.host.builder import Builder
from cluster.master import equipment
from cluster.master.engines import local
from cluster.master.engines.delivery import Delivery
from cluster.master.progress import Reporter
from cluster.master.session import Session
from cluster.model import Cpv, Job, Package
from cluster.node import disk
from cluster.node.node import Hardware
from cluster.node.warm import started

FIRST_PHASE_S = 1.0
"""The promise: a warm node is in the first phase so soon."""
ADMITTED_S = 6.0
"""The promise: a package that compiles nothing is in the binhost so soon, though its node is emulated."""
MEMORY_MIB = 1536
"""The promise: a node needs no more."""

_IDLE_S = 60.0

_HOST = {
    "fetch": "fetch",
    "prerequisites": "materials",
    "job disk": "job disk",
    "boot": "boot",
    "build": "",
    "results": "results",
    "admit": "admit",
}
"""The steps of which an engine tells, in their order, and what they are called here; `build` is told by its marks."""
_FIRST = "start"
"""The step after which the first phase runs."""


@dataclass(frozen=True, slots=True)
class Build:
    """One build; all from the moment that the job was given to the engine, in seconds."""

    first_phase_s: float
    """When the ebuild's first phase, pkg_setup, began."""
    admitted_s: float
    """When the package was in the binhost, and its node's files were gone."""
    steps: tuple[tuple[str, float], ...]
    """Where the time went, in order; they add up to `admitted_s`."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Several times of the same, in seconds."""

    median_s: float
    min_s: float
    max_s: float


@dataclass(frozen=True, slots=True)
class Latency:
    """Several builds."""

    first_phase: Spread
    admitted: Spread
    steps: Mapping[str, Spread]


@dataclass(frozen=True, slots=True)
class Report:
    """What came out."""

    package: Cpv
    repeat: int
    latency: Latency
    idle: memory.Idle
    node: Mapping[str, str | int | bool]
    """What a node is made of: `cpus`, `memory_mib`, `accelerator`, `kernel`, and whether it is `warm`."""
    machine: dict[str, str | int]

    def json(self) -> dict[str, Any]:
        """The contract of `cluster bench node --json`: seconds and MiB, as the names say.

        `memory.one_mib` is the Pss of one node that is alone, `further_mib` what each further one adds
        to the sum (null for one node), `nodes` each of them while all are there.
        """
        return {
            "package": self.package,
            "repeat": self.repeat,
            "latency": {
                "first_phase": asdict(self.latency.first_phase),
                "admitted": asdict(self.latency.admitted),
                "steps": {name: asdict(spread) for name, spread in self.latency.steps.items()},
            },
            "memory": {
                "one_mib": self.idle.one.pss_mib,
                "further_mib": self.idle.further_mib,
                "sum_mib": self.idle.sum_mib,
                "nodes": [asdict(usage) for usage in self.idle.all],
            },
            "promised": {"first_phase_s": FIRST_PHASE_S, "admitted_s": ADMITTED_S, "memory_mib": MEMORY_MIB},
            "node": dict(self.node),
            "machine": self.machine,
        }


def build(entered: Sequence[tuple[str, float]], phases: Sequence[tuple[str, float]], total_s: float) -> Build:
    """Where the time of a build went.

    `entered` are the steps of which the engine told and when, in seconds since the job was given to it,
    `phases` what the node's marks say (`Outcome.phases`). `mount` is what is left of the node's time:
    from the first command that it gets to the first mark, and from the last mark to the command's end.
    Raises ValueError for a build whose marks do not say when its first phase began.
    """
    begun: dict[str, float] = {}
    for name, at in entered:
        if name in _HOST:
            begun.setdefault(name, at)
    ends = [*list(begun.values())[1:], total_s]
    inside = [(name, seconds) for name, seconds in phases if name != "boot"]
    steps: list[tuple[str, float]] = []
    for (name, at), end in zip(begun.items(), ends, strict=True):
        if name == "build":
            steps += [("mount", end - at - sum(seconds for _, seconds in inside)), *inside]
        else:
            steps.append((_HOST[name], end - at))
    names = [name for name, _ in steps]
    first = sum(seconds for _, seconds in steps[: names.index(_FIRST) + 1])
    return Build(round(first, 2), round(total_s, 2), tuple((name, round(seconds, 3)) for name, seconds in steps))


def _spread(times: Sequence[float]) -> Spread:
    return Spread(round(statistics.median(times), 2), round(min(times), 2), round(max(times), 2))


def summarize(builds: Sequence[Build]) -> Latency:
    """Median, least and greatest of at least one build of the same package."""
    taken = [dict(one.steps) for one in builds]
    return Latency(
        first_phase=_spread([one.first_phase_s for one in builds]),
        admitted=_spread([one.admitted_s for one in builds]),
        steps={name: _spread([steps.get(name, 0.0) for steps in taken]) for name in taken[0]},
    )


def measure(session: Session, atom: str, nodes: int, repeat: int, reporter: Reporter) -> Report:
    """Build `atom` `repeat` times, one after the other, then let `nodes` nodes wait at once.

    Raises as `prepared` does, and BuildFailed or NodeLost as soon as one build ends otherwise than well.
    """
    with prepared(session, atom, nodes, reporter) as bench, ExitStack() as stack:
        compiles = bench.live.directory / "compiles"
        hardware = kits.warmed(equipment.kit_of(bench.session), bench.hardware, reporter)
        builder = equipment.builder_for(
            bench.session, hardware, bench.live, stack, reporter, nodes=1, compiles=compiles
        )
        delivery = equipment.delivery_for(bench.session, bench.binhost, bench.logs / "node")
        builds = []
        for turn in range(1, repeat + 1):
            reporter.step(f"{turn} of {repeat}: {bench.package.cpv}")
            builds.append(_build(delivery, builder, bench.package))
        reporter.step(f"{nodes} nodes that wait")
        idle = _idle(hardware, bench.live, nodes)
    return Report(
        package=bench.package.cpv,
        repeat=repeat,
        latency=summarize(builds),
        idle=idle,
        node=_made_of(hardware),
        machine=machine.facts(bench.hardware.emulator.version),
    )


def _made_of(hardware: Hardware) -> dict[str, str | int | bool]:
    return {
        "cpus": hardware.cpus,
        "memory_mib": hardware.memory_mib,
        "accelerator": hardware.accelerator,
        "kernel": hardware.stage.facts["kernel"],
        "warm": hardware.snapshot is not None,
    }


def _build(delivery: Delivery, builder: Builder, package: Package) -> Build:
    entered: list[tuple[str, float]] = []
    given = time.monotonic()
    job = Job(package, attempt=1)
    outcome = local.run(delivery, builder, job, "node-1", lambda name: entered.append((name, time.monotonic() - given)))
    total_s = time.monotonic() - given
    require_built("the benchmark", outcome)
    return build(entered, outcome.phases, total_s)


def _idle(hardware: Hardware, live: runs.Run, nodes: int) -> memory.Idle:
    """Start nodes one by one, of which each does one command; they end together."""
    with ExitStack() as stack:
        pids: list[int] = []
        for number in range(1, nodes + 1):
            directory = stack.enter_context(live.node_directory(f"idle-{number}"))
            data = disk.blank(directory / "job.raw")
            node = stack.enter_context(started(hardware, directory, data, live.own))
            status = node.shell.run("true", total_s=_IDLE_S, silence_s=_IDLE_S, output=lambda said: None)
            if status:
                raise NodeLost("a node does not do what it is told", f"exit status {status}")
            pids.append(node.machine.child.pid)
            if number == 1:
                (one,) = memory.of(pids)
        return memory.Idle(one, memory.of(pids))
