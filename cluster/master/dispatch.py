"""The loop of a run: hand jobs to an engine's nodes as `schedule` says, until nothing is left."""

from __future__ import annotations

import math
import queue
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Protocol

from cluster.master.engines.engine import Engine
from cluster.master.progress import Progress, Watcher
from cluster.master.schedule import core, events, lookahead, slots
from cluster.master.schedule.hosts import Host
from cluster.master.schedule.rules import Earliest
from cluster.master.schedule.state import Ranking, State, ranked
from cluster.master.schedule.tasks import Tasks
from cluster.model import Action as PlanAction
from cluster.model import Cpv, Job, Outcome, Package, Plan, Verdict

_TICK_S = 1.0
_KEPT = "the libraries that it links to are what they were"


class Part(Protocol):
    """A run's part in nodes that it does not have for itself alone."""

    def allowed(self, *, wants: int, holds: int, urgent: bool) -> int:
        """How many nodes it may use, which could use `wants` and uses `holds`; asked about once a second."""
        ...


def run(
    plan: Plan,
    engine: Engine,
    hosts: Iterable[Host],
    *,
    attempts: int,
    todo: Tasks,
    compiles: Compiles,
    progress: Progress,
    record: Callable[[Outcome], None],
    settle: Callable[[Package], str] = lambda package: "",
    part: Part | None = None,
    watcher: Watcher | None = None,
) -> tuple[Outcome, ...]:
    """Build what `plan` says, which is `todo`, on `hosts`; returns one outcome for each of its packages.

    A package that fails stops only what needs it. A lost one is tried up to `attempts` times.
    Every outcome is given to `record`. Of a package to CHECK, when all that it requires is there,
    `settle` says why it is built, or "" if it is kept. Of the nodes it uses as many as `part` allows.
    `watcher` is shown every step. When it is interrupted it stops the engine.
    """
    hosts = tuple(hosts)
    state = core.start(todo, hosts, ranked(Earliest(), todo), attempts)
    with ThreadPoolExecutor(max_workers=1 + sum(len(host.nodes) for host in hosts)) as pool:
        loop = _Loop(plan, engine, pool, state, compiles, progress, record, settle, part, watcher)
        try:
            return loop.outcomes_in_the_end()
        except BaseException:  # Ctrl-C above all: without this the pool waits for the builds
            engine.stop()
            raise


@dataclass(frozen=True, slots=True)
class Compiles:
    """How many compiles there may be at once."""

    jobs: int
    """make's -j in the node of a package of which nothing is known."""
    most_jobs: int
    """And of any."""
    slots: int
    """On the host, for all nodes together."""


@dataclass(slots=True)
class _Loop:
    plan: Plan
    engine: Engine
    pool: ThreadPoolExecutor
    state: State
    compiles: Compiles
    progress: Progress
    record: Callable[[Outcome], None]
    settle: Callable[[Package], str]
    part: Part | None
    watcher: Watcher | None
    began: float = field(default_factory=time.monotonic)
    wake: float = math.inf
    shares: Mapping[str, int] = field(default_factory=dict)
    packages: dict[Cpv, Package] = field(init=False)
    outcomes: dict[Cpv, Outcome] = field(init=False)
    urgent: tuple[int, ...] = field(init=False)
    results: queue.SimpleQueue[Outcome | Ranking | BaseException] = field(default_factory=queue.SimpleQueue)

    def __post_init__(self) -> None:
        self.packages = {package.cpv: package for package in self.plan.to_build}
        self.urgent = tuple(place for place, task in enumerate(self.state.tasks.all) if task.urgent)
        self.outcomes = {
            package.cpv: Outcome(package.cpv, Verdict.SKIPPED, reason=package.reason)
            for package in self.plan.packages
            if not package.action.builds
        }

    @property
    def now(self) -> float:
        return time.monotonic() - self.began

    def outcomes_in_the_end(self) -> tuple[Outcome, ...]:
        self._ask()
        self._step(events.Tick(self.now))
        self._act(events.Rethink())
        while not self.state.done:
            result = self._next()
            self._ask()  # before the core gives the node of a package that has ended to the next
            match result:
                case BaseException():
                    raise result
                case Ranking():
                    self._step(events.Adopted(self.now, result))
                case Outcome():
                    self._finish(result)
                    self._step(events.Finished(self.now, result.cpv, result.verdict))
            self._ask()
        return tuple(self.outcomes[package.cpv] for package in self.plan.packages)

    def _next(self) -> Outcome | Ranking | BaseException:
        while True:
            try:
                return self.results.get(timeout=max(0.0, min(_TICK_S, self.wake - self.now)))
            except queue.Empty:
                self.progress.tick()
                self._ask()
                self._show()
                if self.now >= self.wake:
                    self._step(events.Tick(self.now))

    def _ask(self) -> None:
        """How many nodes this run may use, where others have a part in them."""
        if self.part is None:
            return
        free, _ = core.schedule(replace(self.state, allowed=None), events.Tick(self.now))
        urgent = any(place not in self.state.ended for place in self.urgent)
        allowed = self.part.allowed(wants=len(free.running), holds=len(self.state.running), urgent=urgent)
        if allowed != self.state.allowed:
            self._step(events.Allowed(self.now, allowed))

    def _step(self, event: events.Event) -> None:
        self.wake = math.inf
        self.state, actions = core.schedule(self.state, event)
        self._show()
        self._share()
        for action in actions:
            self._act(action)

    def _show(self) -> None:
        if self.watcher is not None:
            self.watcher.saw(self.state, self.now)

    def _act(self, action: events.Action) -> None:
        match action:
            case events.Dispatch(cpv, node, attempt):
                self._dispatch(self.packages[cpv], node, attempt)
            case events.Block(cpv, cause):
                reason = f"needs {cause}, which {self.outcomes[cause].verdict.in_passing}"
                self._finish(Outcome(cpv, Verdict.BLOCKED, reason=reason))
            case events.Wake(at):
                self.wake = at
            case events.Rethink():
                self._submit(lookahead.choose, self.state, self.now)

    def _dispatch(self, package: Package, node: str, attempt: int) -> None:
        if package.action is PlanAction.CHECK:
            reason = self.settle(package)
            if not reason:
                self.results.put(Outcome(package.cpv, Verdict.SKIPPED, reason=_KEPT))
                return
            package = self.packages[package.cpv] = replace(package, action=PlanAction.BUILD, reason=reason)
        job = Job(package, attempt, self._jobs(package.cpv))
        self.progress.dispatched(job, node)
        self._submit(self.engine.run, job, node, lambda phase: self._entered(node, phase))

    def _entered(self, node: str, phase: str) -> None:
        self.progress.entered(node, phase)
        if self.watcher is not None:
            self.watcher.entered(node, phase)

    def _jobs(self, cpv: Cpv) -> int:
        task = self.state.tasks.all[self.state.tasks.places[cpv]]
        return slots.jobs(task.parallelism, self.compiles.jobs, self.compiles.most_jobs)

    def _share(self) -> None:
        """Tell the engine who is to have how many compile slots."""
        running = (self.state.tasks.all[place].cpv for place in self.state.running)
        shares = slots.shares(self.state, self.compiles.slots, {cpv: self._jobs(cpv) for cpv in running})
        if shares != self.shares:
            self.shares = shares
            self.engine.share(shares)

    def _finish(self, outcome: Outcome) -> None:
        self.outcomes[outcome.cpv] = outcome
        self.record(outcome)
        self.progress.ended(outcome)

    def _submit(self, work: Callable[..., Outcome | Ranking], *arguments: object) -> None:
        self.pool.submit(self._work, work, *arguments)

    def _work(self, work: Callable[..., Outcome | Ranking], *arguments: object) -> None:
        try:
            self.results.put(work(*arguments))
        except BaseException as error:  # a defect of ours: it must end the run, not hang it
            self.results.put(error)
