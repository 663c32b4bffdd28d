"""The loop of a run: hand jobs to the nodes of an engine's hosts as `schedule` says, until nothing is left."""

from __future__ import annotations

import math
import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Protocol

from cluster.master import quarantine
from cluster.master.engines.engine import Came, Change, Draining, Engine, Resumed, Went
from cluster.master.progress import Progress, Watcher
from cluster.master.schedule import core, events, lookahead, slots
from cluster.master.schedule.hosts import Exclusion, Host, Why
from cluster.master.schedule.rules import Earliest
from cluster.master.schedule.state import Ranking, State, ranked
from cluster.master.schedule.tasks import Task, Tasks
from cluster.model import Action as PlanAction
from cluster.model import Cpv, Job, Outcome, Package, Plan, Verdict

_TICK_S = 1.0
_NO_HOST = "no host is left to build it"
_KEPT = "the libraries that it links to are what they were"
_CROWD = 4
"""Times what a host bears that a pool makes of make's -j at most: should the pool go, all of it falls to the node."""


class Part(Protocol):
    """A run's part in nodes that it does not have for itself alone."""

    def allowed(self, *, wants: int, holds: int, urgent: bool) -> int:
        """How many nodes it may use, which could use `wants` and uses `holds`; asked about once a second."""
        ...


def run(
    plan: Plan,
    engine: Engine,
    *,
    attempts: int,
    todo: Tasks,
    compiles: Compiles,
    progress: Progress,
    record: Callable[[Outcome], None],
    settle: Callable[[Package], str] = lambda package: "",
    part: Part | None = None,
    watchers: Sequence[Watcher] = (),
    quarantine_after: int = 3,
    losses: int = 3,
) -> tuple[Outcome, ...]:
    """Build what `plan` says, which is `todo`, on the hosts of `engine`; returns one outcome for each of its packages.

    A package that fails stops only what needs it. A lost one is tried up to `attempts` times. One fails, too, when
    `losses` hosts went away while they built it, but for those that were given no more packages by then.
    Every outcome is given to `record`. Of a package to CHECK, when all that it requires is there,
    `settle` says why it is built, or "" if it is kept. Of the nodes it uses as many as `part` allows.
    Each of `watchers` is shown every step. A host is given nothing more once `quarantine_after` packages that failed
    or were lost there were built elsewhere. What is left when there is no host and none is expected is lost.
    When it is interrupted it stops the engine.
    """
    heard: queue.SimpleQueue[_Heard] = queue.SimpleQueue()
    with ThreadPoolExecutor(max_workers=1) as thinking:
        try:
            hosts, ranking = engine.attend(heard.put), ranked(Earliest(), todo)
            state = core.start(todo, hosts, ranking, attempts, losses=losses, moves=True)
            loop = _Loop(
                plan,
                engine,
                thinking,
                heard,
                state,
                compiles,
                progress,
                record,
                settle,
                part,
                watchers,
                quarantine_after,
            )
            return loop.outcomes_in_the_end()
        except BaseException:  # Ctrl-C above all: without this what runs would be waited for
            engine.stop()
            raise


@dataclass(frozen=True, slots=True)
class Compiles:
    """How many compiles there may be at once."""

    jobs: int
    """make's -j in the node of a package of which nothing is known."""
    most_jobs: int
    """And of any, where its host alone compiles."""
    slots: int
    """On a host, for all its nodes together."""
    lent: Callable[[], int] = lambda: 0
    """How many a pool of distccds has for any one host's nodes, as things stand."""

    def of(self, task: Task) -> int:
        """make's -j for the package of `task`: more than its host bears as far as the pool goes."""
        most = max(self.most_jobs, min(_CROWD * self.most_jobs, self.lent()))
        return slots.jobs(task.parallelism, self.jobs, most)


@dataclass(frozen=True, slots=True, eq=False)
class _Given:
    """A job that a node has been given."""

    cpv: Cpv
    host: Host
    node: str


@dataclass(frozen=True, slots=True)
class _Ended:
    given: _Given
    result: Outcome | BaseException


_Heard = Change | _Ended | Ranking | BaseException


@dataclass(slots=True)
class _Loop:
    plan: Plan
    engine: Engine
    thinking: ThreadPoolExecutor
    heard: queue.SimpleQueue[_Heard]
    state: State
    compiles: Compiles
    progress: Progress
    record: Callable[[Outcome], None]
    settle: Callable[[Package], str]
    part: Part | None
    watchers: Sequence[Watcher]
    quarantine_after: int
    began: float = field(default_factory=time.monotonic)
    wake: float = math.inf
    shares: dict[str, int] = field(default_factory=dict)
    given: dict[Cpv, _Given] = field(default_factory=dict)
    """By package, what its end is waited for of; what a host that is gone was given is not among it."""
    late: dict[Cpv, Outcome] = field(default_factory=dict)
    """Of packages that run elsewhere by now, and are being abandoned there: what was built where they were given up."""
    conduct: quarantine.Conduct = field(default_factory=quarantine.Conduct)
    is_thinking: bool = False
    is_wanted: bool = False
    """Whether to think again after that."""
    is_told: bool = True
    """Whether it was said that a host is waited for, as it was of those that there are to be at first."""
    packages: dict[Cpv, Package] = field(init=False)
    outcomes: dict[Cpv, Outcome] = field(init=False)
    urgent: tuple[int, ...] = field(init=False)

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
            if not self._can_go_on():
                self._give_up()
                break
            self._wait()
        return tuple(self.outcomes[package.cpv] for package in self.plan.packages)

    def _wait(self) -> None:
        """Until something is heard, which is dealt with, or about a second has passed."""
        try:
            heard = self.heard.get(timeout=max(0.0, min(_TICK_S, self.wake - self.now)))
        except queue.Empty:
            self.progress.tick()
            self._ask()
            self._show()
            if self.now >= self.wake:
                self._step(events.Tick(self.now))
            return
        self._ask()  # before the core gives the node of a package that has ended to the next
        self._deal(heard)
        self._ask()

    def _deal(self, heard: _Heard) -> None:
        match heard:
            case _Ended(_, BaseException() as error) | (BaseException() as error):
                raise error
            case _Ended(given, Outcome() as outcome):
                self._end(given, replace(outcome, speed=given.host.speed))
            case Ranking():
                self._step(events.Adopted(self.now, heard))
                self.is_thinking = False
                if self.is_wanted:
                    self._rethink()
            case Came(host):
                self._step(events.Joined(self.now, host))
            case Went(name, reason):
                self._lose(name, reason)
            case Draining(name, reason):
                self._drain(name, reason, Why.QUARANTINED)
            case Resumed(name):
                self.conduct = quarantine.forgiven(self.conduct, name)
                self._step(events.Resumed(self.now, name))

    # Hosts.

    def _can_go_on(self) -> bool:
        """Whether there is a host, or may be one."""
        if self.state.running or self.state.usable:
            self.is_told = False
        elif not self.engine.expects() and self.heard.empty():
            return False
        elif not self.is_told:
            self.is_told = True
            self.progress.warn("there is no host to build on: waiting for one")
        return True

    def _give_up(self) -> None:
        tasks = self.state.tasks.all
        left = [task.cpv for place, task in enumerate(tasks) if place not in self.state.ended]
        self.outcomes |= {cpv: Outcome(cpv, Verdict.LOST, reason=_NO_HOST) for cpv in left}
        self.progress.warn(f"no host is left and none is expected: {len(left)} of {len(tasks)} packages are not built")

    def _lose(self, name: str, reason: str) -> None:
        """A host is gone: what it was given is lost, unless it was built elsewhere in the meantime."""
        if name not in self.state.hosts:
            return
        why = f"{name} is gone: {reason}"
        self.progress.warn(why)
        excused = not self._is_usable(name)  # its user, or whoever it is rented from, takes it back
        self._step(events.Drained(self.now, name))  # it is to get nothing in the place of what ends here
        for cpv, given in [*self.given.items()]:
            if given.host.name == name and cpv in self.late:
                self._end(given, self.late[cpv])
            elif given.host.name == name:
                del self.given[cpv]
                attempt = self.state.tried[self.state.tasks.places[cpv]]
                self._finish(Outcome(cpv, Verdict.LOST, given.node, attempt, reason=why))
        self.conduct = quarantine.forgiven(self.conduct, name)
        self._step(events.Left(self.now, name, excused, reason))

    def _drain(self, name: str, reason: str, why: Why = Why.DRAINED) -> None:
        if self._is_usable(name):
            self.progress.warn(f"{name} is given no more packages: {reason}")
            self._step(events.Drained(self.now, name, Exclusion(why, reason)))

    def _is_usable(self, name: str) -> bool:
        return name in self.state.hosts and name not in self.state.drained

    def _note(self, given: _Given, verdict: Verdict) -> None:
        """Hold against a host what it did, and quarantine those that are at fault; not the last one."""
        self.conduct = quarantine.noted(self.conduct, given.cpv, given.host.name, verdict)
        for name, cpvs in quarantine.due(self.conduct, self.quarantine_after):
            if len(self.state.usable) > 1 and self._is_usable(name):
                reason = f"what failed or was lost there was built elsewhere: {', '.join(cpvs)}"
                self._drain(name, reason)
                self.engine.quarantine(name, reason)

    # Packages.

    def _end(self, given: _Given, outcome: Outcome) -> None:
        """A job has ended, perhaps after its host was given up."""
        cpv = given.cpv
        now_given = self.given.get(cpv)
        if now_given is given:
            del self.given[cpv]
            late = self.late.pop(cpv, None)
            if late is None or outcome.verdict is Verdict.BUILT:
                self._conclude(given, outcome)
            else:
                self._conclude(given, late)
        elif outcome.verdict is not Verdict.BUILT or self.state.tasks.places[cpv] in self.state.ended:
            return  # it has been counted as lost; what was built is in the binhost in any case
        elif now_given is None:
            self._conclude(given, outcome)
        else:
            self.late[cpv] = outcome
            self.engine.abandon(now_given.node)

    def _conclude(self, given: _Given, outcome: Outcome) -> None:
        if outcome.verdict is Verdict.LOST and core.is_moving(self.state, given.cpv):
            self._finish(replace(outcome, reason=f"late on {given.host.name}, begun anew on a faster node"))
            self._step(events.Finished(self.now, given.cpv, outcome.verdict))
            return
        doubted = core.doubted(self.state, given.cpv, outcome.verdict)
        why = f"failed on {given.host.name}, tried once more elsewhere: {outcome.reason}"
        self._finish(replace(outcome, verdict=Verdict.LOST, reason=why) if doubted else outcome)
        if outcome.node == given.node:  # before what follows from it: a host at fault is to get nothing more
            self._note(given, outcome.verdict)
        self._step(events.Finished(self.now, given.cpv, outcome.verdict))

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
        before = self.state
        self.state, actions = core.schedule(before, event)
        self._show()
        self._share(before)
        for action in actions:
            self._act(action)

    def _show(self) -> None:
        for watcher in self.watchers:
            watcher.saw(self.state, self.now)

    def _act(self, action: events.Action) -> None:
        match action:
            case events.Dispatch(cpv, node, attempt):
                self._dispatch(self.packages[cpv], node, attempt)
            case events.Block(cpv, cause):
                reason = f"needs {cause}, which {self.outcomes[cause].verdict.in_passing}"
                self._finish(Outcome(cpv, Verdict.BLOCKED, reason=reason))
            case events.Fail(cpv, hosts):
                times = f"{len(hosts)} times" if len(hosts) > 1 else "once"
                reason = f"its host went away {times}: {', '.join(hosts)}"
                self._finish(replace(self.outcomes[cpv], verdict=Verdict.FAILED, reason=reason))
            case events.Abandon(_, node):
                self.engine.abandon(node)
            case events.Wake(at):
                self.wake = at
            case events.Rethink():
                self._rethink()

    def _rethink(self) -> None:
        """One thought at a time: of those that would wait for it only the last is of where the run stands by then."""
        self.is_wanted = self.is_thinking
        if not self.is_thinking:
            self.is_thinking = True
            self.thinking.submit(self._think, self.state, self.now)

    def _think(self, state: State, now: float) -> None:
        try:
            self.heard.put(lookahead.choose(state, now))
        except BaseException as error:  # a defect of ours: it must end the run, not hang it
            self.heard.put(error)

    def _dispatch(self, package: Package, node: str, attempt: int) -> None:
        place = self.state.tasks.places[package.cpv]
        host = self.state.hosts[self.state.running[place].host]
        given = self.given[package.cpv] = _Given(package.cpv, host, node)
        if package.action is PlanAction.CHECK:
            reason = self.settle(package)
            if not reason:
                self.heard.put(_Ended(given, Outcome(package.cpv, Verdict.SKIPPED, reason=_KEPT)))
                return
            package = self.packages[package.cpv] = replace(package, action=PlanAction.BUILD, reason=reason)
        job = Job(package, attempt, self.compiles.of(self.state.tasks.all[place]))
        self.progress.dispatched(job, node)
        self.engine.start(
            job, node, lambda phase: self._entered(node, phase), lambda result: self.heard.put(_Ended(given, result))
        )

    def _entered(self, node: str, phase: str) -> None:
        self.progress.entered(node, phase)
        for watcher in self.watchers:
            watcher.entered(node, phase)

    def _share(self, before: State) -> None:
        """Tell the engine who is to have how many compile slots, where that may have changed."""
        shares = slots.shares(self.state, self.compiles.slots, self.compiles.of, slots.touched(before, self.state))
        if any(self.shares.get(node) != count for node, count in shares.items()):
            self.shares |= shares
            self.engine.share(shares)

    def _finish(self, outcome: Outcome) -> None:
        self.outcomes[outcome.cpv] = outcome
        self.record(outcome)
        self.progress.ended(outcome)
