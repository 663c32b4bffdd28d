"""`cluster bench dispatch`: how many packages a second a master gives to its hosts, if they took no time to build.

A real run (`cluster.master.dispatch`) over a plan that keeps all hosts busy; sources, binpkgs and nodes there are none.
Scheduler and master are those of a real run; the hosts' workers (`cluster.bench.lightworker`), some hundreds in a
process, say to them what those of real hosts say, and leave out what a real host does on processors of its own.
"""

from __future__ import annotations

import os
import queue
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.bench import machine
from cluster.errors import MachineError
from cluster.host.pool import Pool
from cluster.host.tls import Authority
from cluster.host.work import Work
from cluster.master import dispatch
from cluster.master.engines import crew as crews
from cluster.master.engines import scheduler as schedulers
from cluster.master.engines.dask import DaskEngine
from cluster.master.engines.engine import Change, Ended
from cluster.master.estimate import Basis, Estimate
from cluster.master.expected import tasks_of
from cluster.master.progress import Reporter
from cluster.master.schedule.hosts import Host
from cluster.model import Cpv, Job, Outcome, Package, Plan, Verdict
from cluster.process import Child

RATE = 300.0
"""The promise: packages a second."""

_TARGET = "arm64"
_PROCESSES = 2
_JOINING_S = 300.0
_TICKS_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Measured:
    """One run; milliseconds of CPU time are for each package."""

    seconds: float
    rate: float
    """Packages a second."""
    master_ms: float
    scheduler_ms: float = 0.0
    workers_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Report:
    """What came out."""

    packages: int
    workers: int
    loop: Measured
    """Without Dask: every job ends as it starts, in the master's own process."""
    dask: Measured
    machine: dict[str, str | int]

    def json(self) -> dict[str, Any]:
        """The contract of `cluster bench dispatch --json`."""
        return {**asdict(self), "promised": {"rate": RATE}}


def measure(workers: int, packages: int, reporter: Reporter) -> Report:
    """Run a plan of `packages` over as many `workers`. Raises MachineError if they do not all join."""
    schedulers.require()
    plan = plan_of(packages, width=workers)
    reporter.step(f"{packages} packages through the loop alone")
    loop = _measured(plan, _Here(workers), lambda: (time.process_time(), 0.0, 0.0))
    with tempfile.TemporaryDirectory(prefix="portage-cluster-") as name, ExitStack() as stack:
        place = Path(name)
        authority = Authority(place / "authority")
        identity = authority.issue("master")
        scheduler = stack.enter_context(schedulers.running(identity, place))
        crew = stack.enter_context(crews.gathering(scheduler, identity, _TARGET))
        reporter.step(f"{workers} workers join")
        children = _joined(crew, workers, scheduler, place, stack)
        engine = stack.enter_context(DaskEngine(crew, _Nothing(), _Nothing(), lambda host: Instant()))
        reporter.step(f"{packages} packages through Dask")

        def spent() -> tuple[float, float, float]:
            return time.process_time(), _cpu_s(scheduler.child), sum(map(_cpu_s, children))

        through = _measured(plan, engine, spent)
    return Report(packages, workers, loop, through, machine.facts())


def plan_of(packages: int, width: int) -> Plan:
    """A plan of which `width` packages can be built at any time: each needs the one that is `width` before it."""
    cpvs = [Cpv(f"bench/p{number}-1") for number in range(packages)]
    made = tuple(
        Package(
            cpv,
            slot="0/0",
            use=(),
            iuse=(),
            repository="bench",
            ebuild=Path(f"/bench/{cpv}.ebuild"),
            requires=tuple(cpvs[number - width : number - width + 1] if number >= width else ()),
            distfiles=(),
        )
        for number, cpv in enumerate(cpvs)
    )
    return Plan(_TARGET, "bench", made, repositories=(), profile=Path("/bench"))


@dataclass(frozen=True, slots=True)
class Instant:
    """The equipment of a bench that takes no time."""

    @property
    def is_early(self) -> bool:
        """There is nothing to make."""
        return False

    def bench(self, directory: Path) -> _InstantBench:
        """It needs nothing."""
        return _InstantBench()


class _InstantBench:
    def build(self, parcel: str, node: str, entered: Callable[[str], None]) -> str:
        entered("compile")
        return parcel

    def abandon(self, node: str) -> None: ...

    def share(self, slots: Mapping[str, int]) -> None: ...

    def pool(self, pool: Pool) -> None: ...

    @property
    def offer(self) -> None:
        return None

    def stop(self) -> None: ...


class _Nothing:
    """Delivers and carries nothing."""

    def prepare(self, job: Job, entered: Callable[[str], None]) -> Any:
        return job

    def pack(self, work: Work, host: str) -> str:
        return "x" * 2000  # what a parcel has in the median

    def receive(self, came: Any, host: str, package: Package) -> Any:
        return came

    def conclude(self, job: Job, node: str, began: float, came: Any, entered: Callable[[str], None]) -> Outcome:
        if isinstance(came, BaseException):
            raise came
        return Outcome(job.package.cpv, Verdict.BUILT, node, job.attempt)


class _Here:
    """An engine of which every job ends as it starts."""

    def __init__(self, hosts: int) -> None:
        self._hosts = tuple(Host(f"h{number}", (f"h{number}:1",)) for number in range(hosts))

    def attend(self, hear: Callable[[Change], None]) -> tuple[Host, ...]:
        return self._hosts

    def expects(self) -> bool:
        return False

    def start(self, job: Job, node: str, entered: Callable[[str], None], ended: Ended) -> None:
        ended(Outcome(job.package.cpv, Verdict.BUILT, node, job.attempt))

    def abandon(self, node: str) -> None: ...

    def share(self, slots: Mapping[str, int]) -> None: ...

    def stop(self) -> None: ...


class _Silent:
    """Shows nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *what: None


def _measured(plan: Plan, engine: Any, spent: Callable[[], tuple[float, float, float]]) -> Measured:
    # As long as a package is on its way at the promised rate: far off, the rule would be chosen anew all along.
    expected_s = len(engine.attend(lambda change: None)) / RATE
    estimates = {package.cpv: Estimate(expected_s, Basis.BUILT) for package in plan.packages}
    todo = tasks_of(plan, estimates)
    silent: Any = _Silent()
    before, start = spent(), time.monotonic()
    dispatch.run(
        plan,
        engine,
        attempts=1,
        todo=todo,
        compiles=dispatch.Compiles(jobs=2, most_jobs=4, slots=4),
        progress=silent,
        record=lambda outcome: None,
    )
    seconds = time.monotonic() - start
    count = len(plan.packages)
    each = (round((then - now) * 1000 / count, 2) for now, then in zip(before, spent(), strict=True))
    return Measured(round(seconds, 2), round(count / seconds, 1), *each)


def _joined(
    crew: crews.Crew, workers: int, scheduler: schedulers.Scheduler, place: Path, stack: ExitStack
) -> list[Child]:
    """The processes that have so many workers, once all are heard of."""
    heard: queue.SimpleQueue[Change] = queue.SimpleQueue()
    left = workers - len(crew.attend(heard.put))
    environment = {**os.environ, "DASK_CONFIG": str(schedulers.CONFIG)}
    children = []
    for process in range(_PROCESSES):
        own = range(workers)[process::_PROCESSES]
        words = [scheduler.address, str(place), _TARGET, str(process), str(len(own))]
        argv = [sys.executable, "-m", "cluster.bench.lightworker", *words]
        children.append(stack.enter_context(Child(argv, log_path=place / f"{process}.log", env=environment)))
    deadline = time.monotonic() + _JOINING_S
    for _ in range(left):
        try:
            heard.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty as error:
            said = "; ".join(child.why() for child in children)
            raise MachineError(f"not all of {workers} workers came within {_JOINING_S:g} s", said) from error
    return children


def _cpu_s(child: Child) -> float:
    """CPU seconds of a child so far: proc(5), utime and stime."""
    fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_S
