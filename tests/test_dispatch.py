"""The loop of a run, over an engine that builds nothing."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from factories import package, plan

from cluster.master import dispatch
from cluster.master.claims import Sharing
from cluster.master.estimate import Basis, Estimate
from cluster.master.expected import tasks_of
from cluster.master.schedule.hosts import Host
from cluster.master.schedule.tasks import Tasks
from cluster.model import Action, Job, Outcome, Package, Plan, Verdict

A, B, C, D = (f"cat/{name}-1" for name in "abcd")
TWO = ("node-1", "node-2")
COMPILES = dispatch.Compiles(jobs=2, most_jobs=4, slots=4)
_PATIENCE_S = 20.0  # never reached when the tests pass


@dataclass
class FakeEngine:
    """Ends each job as `script` says, attempt by attempt, else as built; "hang" waits for stop()."""

    script: Mapping[str, tuple[Verdict | BaseException | str, ...]] = field(default_factory=dict)
    jobs: list[tuple[str, int]] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)
    """Nodes that were given two jobs at once."""
    makes: dict[str, int | None] = field(default_factory=dict)
    """make's -j of each package."""
    shares: list[dict[str, int]] = field(default_factory=list)
    """What each node was given of the compile slots, from time to time."""
    stops: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._busy: set[str] = set()
        self._stopped = threading.Event()

    def run(self, job: Job, node: str, entered: Callable[[str], None]) -> Outcome:
        cpv = job.package.cpv
        with self._lock:
            self.jobs.append((cpv, job.attempt))
            self.makes[cpv] = job.jobs
            if node in self._busy:
                self.shared.append(node)
            self._busy.add(node)
        entered("compile")
        does = self.script.get(cpv, ())[job.attempt - 1 : job.attempt]
        end = does[0] if does else Verdict.BUILT
        if end == "hang":
            assert self._stopped.wait(_PATIENCE_S), "nobody called stop()"
            end = Verdict.LOST
        with self._lock:
            self._busy.discard(node)
        if isinstance(end, BaseException):
            raise end
        assert isinstance(end, Verdict)
        return Outcome(cpv, end, node=node, attempt=job.attempt, reason="" if end is Verdict.BUILT else "it broke")

    def share(self, slots: Mapping[str, int]) -> None:
        self.shares.append(dict(slots))

    def stop(self) -> None:
        self.stops += 1
        self._stopped.set()


class FakeProgress:
    """Remembers what it is told."""

    def __init__(self, interrupt_at: str = "") -> None:
        self.starts: list[str] = []
        self.phases: defaultdict[str, list[str]] = defaultdict(list)
        self.ends: list[Outcome] = []
        self._interrupt_at = interrupt_at

    def dispatched(self, job: Job, node: str) -> None:
        self.starts.append(job.package.cpv)
        if job.package.cpv == self._interrupt_at:
            raise KeyboardInterrupt

    def entered(self, node: str, phase: str) -> None:
        self.phases[node].append(phase)

    def ended(self, outcome: Outcome) -> None:
        self.ends.append(outcome)

    def tick(self) -> None:
        pass


def todo(what: Plan, past: Mapping[str, float] | None = None, urgent: Sequence[str] = (), **estimate: float) -> Tasks:
    """The tasks of `what`, with the seconds in `past` or ten."""
    seconds = {cpv.cpv: (past or {}).get(cpv.cpv, 10.0) for cpv in what.packages}
    estimates = {cpv: Estimate(one, Basis.BUILT, **estimate) for cpv, one in seconds.items()}
    return tasks_of(what, estimates, urgent=[package.cpv for package in what.packages if package.cpv in urgent])


def run(
    what: Plan,
    engine: FakeEngine,
    progress: FakeProgress,
    *,
    nodes: tuple[str, ...] = TWO,
    attempts: int = 3,
    past: Mapping[str, float] | None = None,
) -> tuple[dict[str, Outcome], list[Outcome]]:
    recorded: list[Outcome] = []
    outcomes = dispatch.run(
        what,
        engine,
        [Host("here", nodes)],
        attempts=attempts,
        todo=todo(what, past or {}),
        compiles=COMPILES,
        progress=progress,
        record=recorded.append,
    )
    assert [outcome.cpv for outcome in outcomes] == [package.cpv for package in what.packages]
    return {outcome.cpv: outcome for outcome in outcomes}, recorded


def verdicts(outcomes: Mapping[str, Outcome]) -> dict[str, str]:
    return {cpv: outcome.verdict.value for cpv, outcome in outcomes.items()}


def test_every_package_has_an_outcome() -> None:
    what = plan(
        package(A, action=Action.SKIP, reason="in the binhost"), package(B, A), package(C, A, B), package(D, C, B, A)
    )
    engine, progress = FakeEngine(), FakeProgress()
    outcomes, recorded = run(what, engine, progress)
    assert verdicts(outcomes) == {A: "skipped", B: "built", C: "built", D: "built"}
    assert outcomes[A].reason == "in the binhost"
    assert engine.jobs == [(B, 1), (C, 1), (D, 1)]
    assert [outcome.cpv for outcome in recorded] == [B, C, D]
    assert progress.ends == recorded
    assert sum(map(len, progress.phases.values())) == 3
    assert engine.stops == 0


def test_a_failure_stops_only_what_needs_it_and_is_named() -> None:
    what = plan(package(A), package(B, A), package(C, B, A), package(D))
    engine = FakeEngine({A: (Verdict.FAILED,)})
    outcomes, recorded = run(what, engine, FakeProgress())
    assert verdicts(outcomes) == {A: "failed", B: "blocked", C: "blocked", D: "built"}
    assert outcomes[B].reason == outcomes[C].reason == f"needs {A}, which failed"
    assert {cpv for cpv, _ in engine.jobs} == {A, D}
    assert len(recorded) == 4


def test_a_lost_package_is_tried_again() -> None:
    engine = FakeEngine({A: (Verdict.LOST, Verdict.LOST, Verdict.BUILT)})
    outcomes, recorded = run(plan(package(A), package(B, A)), engine, FakeProgress())
    assert verdicts(outcomes) == {A: "built", B: "built"}
    assert outcomes[A].attempt == 3
    assert engine.jobs == [(A, 1), (A, 2), (A, 3), (B, 1)]
    assert [outcome.verdict.value for outcome in recorded] == ["lost", "lost", "built", "built"]


def test_a_package_that_is_always_lost_blocks_and_is_named() -> None:
    engine = FakeEngine({A: (Verdict.LOST, Verdict.LOST)})
    outcomes, _ = run(plan(package(A), package(B, A)), engine, FakeProgress(), attempts=2)
    assert verdicts(outcomes) == {A: "lost", B: "blocked"}
    assert outcomes[A].reason == "it broke"
    assert outcomes[B].reason == f"needs {A}, which was lost"
    assert engine.jobs == [(A, 1), (A, 2)]


def test_past_times_decide_what_goes_first() -> None:
    what = plan(package(A), package(B), package(C), package(D, C))
    engine = FakeEngine()
    run(what, engine, FakeProgress(), nodes=("node-1",), past={A: 10.0, B: 500.0, C: 1.0, D: 300.0})
    assert [cpv for cpv, _ in engine.jobs] == [B, C, D, A]


def test_no_node_has_two_jobs() -> None:
    what = plan(*(package(f"cat/p{number}-1") for number in range(40)))
    engine = FakeEngine()
    outcomes, _ = run(what, engine, FakeProgress(), nodes=("node-1", "node-2", "node-3"))
    assert set(verdicts(outcomes).values()) == {"built"}
    assert engine.shared == []


def test_a_defect_in_the_engine_ends_the_run_and_stops_the_rest() -> None:
    engine = FakeEngine({A: (ZeroDivisionError("ours"),), B: ("hang",)})
    with pytest.raises(ZeroDivisionError, match="ours"):
        run(plan(package(A), package(B)), engine, FakeProgress())
    assert engine.stops == 1


def test_an_interrupt_stops_the_engine() -> None:
    engine = FakeEngine({A: ("hang",)})
    with pytest.raises(KeyboardInterrupt):
        run(plan(package(A), package(B)), engine, FakeProgress(interrupt_at=B))
    assert engine.stops == 1
    assert engine.jobs == [(A, 1)]


def test_a_journal_that_cannot_be_written_stops_the_engine() -> None:
    engine = FakeEngine({B: ("hang",)})

    def full(outcome: Outcome) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        dispatch.run(
            plan(package(A), package(B)),
            engine,
            [Host("here", TWO)],
            attempts=1,
            todo=todo(plan(package(A), package(B))),
            compiles=COMPILES,
            progress=FakeProgress(),
            record=full,
        )
    assert engine.stops == 1


# What may stay as it is.


@pytest.mark.parametrize(
    ("reason", "jobs", "verdicts"),
    [
        ("", [A, C], [Verdict.BUILT, Verdict.SKIPPED, Verdict.BUILT]),
        ("liba.so.1 is gone", [A, B, C], [Verdict.BUILT, Verdict.BUILT, Verdict.BUILT]),
    ],
)
def test_a_package_to_check_is_settled_when_what_it_requires_is_there(
    reason: str, jobs: list[str], verdicts: list[Verdict]
) -> None:
    asked: list[tuple[str, list[str]]] = []
    engine = FakeEngine()

    def settle(package: Package) -> str:
        asked.append((package.cpv, [cpv for cpv, _ in engine.jobs]))
        return reason

    made = plan(package(A), package(B, A, action=Action.CHECK), package(C, A, B))
    outcomes = dispatch.run(
        made,
        engine,
        [Host("here", TWO)],
        attempts=1,
        todo=todo(made),
        compiles=COMPILES,
        progress=FakeProgress(),
        record=lambda outcome: None,
        settle=settle,
    )
    assert asked == [(B, [A])]
    assert [cpv for cpv, _ in engine.jobs] == jobs
    assert [outcome.verdict for outcome in outcomes] == verdicts


def test_jobs_and_slots_are_by_what_packages_kept_busy() -> None:
    made = plan(package(A), package(B))
    engine = FakeEngine()
    dispatch.run(
        made,
        engine,
        [Host("here", TWO)],
        attempts=1,
        todo=todo(made, {A: 99.0}, parallelism=1.4),
        compiles=COMPILES,
        progress=FakeProgress(),
        record=lambda outcome: None,
    )
    assert engine.shares[0] == {"node-1": 2, "node-2": 2}
    assert engine.makes == {A: 2, B: 2}


# What is urgent, and nodes that another run uses too.

ASKED = "the second run asked"


@dataclass
class Answers:
    """Allows so many nodes, question by question, and the last for ever; remembers what it was asked."""

    nodes: list[int]
    asked: list[tuple[int, int, bool]] = field(default_factory=list)

    def allowed(self, *, wants: int, holds: int, urgent: bool) -> int:
        self.asked.append((wants, holds, urgent))
        return self.nodes.pop(0) if len(self.nodes) > 1 else self.nodes[0]


def shared(what: Plan, engine: FakeEngine, part: dispatch.Part, nodes: int = 2, *urgent: str) -> tuple[Outcome, ...]:
    """A run on nodes that it has not for itself."""
    return dispatch.run(
        what,
        engine,
        [Host("here", tuple(f"node-{number}" for number in range(nodes)))],
        attempts=1,
        todo=todo(what, urgent=urgent),
        compiles=COMPILES,
        progress=FakeProgress(),
        record=lambda outcome: None,
        part=part,
    )


def test_what_is_urgent_goes_first_with_what_it_needs_and_is_told_as_long_as_it_is_not_built() -> None:
    what = plan(package(A), package(B, A), package(C), package(D, C))
    engine, part = FakeEngine(), Answers([1])
    shared(what, engine, part, 2, D)
    assert [cpv for cpv, _ in engine.jobs][:2] == [C, D]
    assert part.asked[0] == (2, 0, True)
    assert part.asked[-1] == (0, 0, False)


def test_no_more_nodes_are_used_than_are_allowed_and_none_is_begun_at_a_loss() -> None:
    engine, part = FakeEngine(), Answers([2, 0, 0, 1])
    outcomes = shared(plan(package(A), package(B), package(C)), engine, part)
    assert {outcome.verdict for outcome in outcomes} == {Verdict.BUILT}
    assert [holds for _, holds, _ in part.asked][:2] == [0, 2]
    assert max(holds for _, holds, _ in part.asked[3:]) == 1


@dataclass
class Machine:
    """What the jobs of all runs are doing on it together."""

    most: int = 0
    begun: list[str] = field(default_factory=list)
    _busy: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    @contextmanager
    def used(self, cpv: str) -> Iterator[None]:
        with self._changed:
            self.begun.append(cpv)
            self._busy += 1
            self.most = max(self.most, self._busy)
            self._changed.notify_all()
        yield
        with self._changed:
            self._busy -= 1

    def wait_for(self, what: str) -> None:
        """Until a job, or whatever else is called so, has begun."""
        with self._changed:
            assert self._changed.wait_for(lambda: what in self.begun, _PATIENCE_S), f"{what} never began"

    def note(self, what: str) -> None:
        with self._changed:
            self.begun.append(what)
            self._changed.notify_all()


@dataclass
class SharingEngine(FakeEngine):
    """Its jobs end when what they wait for has begun."""

    machine: Machine = field(default_factory=Machine)
    waits: Mapping[str, str] = field(default_factory=dict)

    def run(self, job: Job, node: str, entered: Callable[[str], None]) -> Outcome:
        with self.machine.used(job.package.cpv):
            if job.package.cpv in self.waits:
                self.machine.wait_for(self.waits[job.package.cpv])
            return super().run(job, node, entered)


@dataclass
class Noting:
    """A part in the nodes, which notes that it has been asked for."""

    part: dispatch.Part
    machine: Machine

    def allowed(self, *, wants: int, holds: int, urgent: bool) -> int:
        answer = self.part.allowed(wants=wants, holds=holds, urgent=urgent)
        self.machine.note(ASKED)
        return answer


def sharing(place: Path, nodes: int) -> Sharing:
    return Sharing(place, weight=1.0, nodes=nodes, tell=lambda text: None)


def test_two_runs_share_the_nodes_and_never_use_more_than_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_TICK_S", 0.01)
    machine = Machine()
    old, new = ([package(f"{name}/p{number}-1") for number in range(12)] for name in ("old", "new"))
    # The second run is there before the first has ended a package, and begins while the first is at its last.
    waits = {one.cpv: ASKED for one in old[:2]} | {old[-1].cpv: new[0].cpv}
    one = SharingEngine(machine=machine, waits=waits)
    with sharing(tmp_path, 2) as ours, sharing(tmp_path, 2) as theirs, ThreadPoolExecutor() as pool:
        first = pool.submit(shared, plan(*old), one, ours)
        machine.wait_for(old[1].cpv)
        second = pool.submit(shared, plan(*new), SharingEngine(machine=machine), Noting(theirs, machine))
        outcomes = [*first.result(), *second.result()]
    assert {outcome.verdict for outcome in outcomes} == {Verdict.BUILT}
    assert len(outcomes) == 24
    assert machine.most == 2


def test_an_urgent_run_has_the_next_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_TICK_S", 0.01)
    machine = Machine()
    one = SharingEngine(machine=machine, waits={A: ASKED})
    with sharing(tmp_path, 1) as ours, sharing(tmp_path, 1) as theirs, ThreadPoolExecutor() as pool:
        first = pool.submit(shared, plan(package(A), package(B), package(C)), one, ours, 1)
        machine.wait_for(A)
        other = SharingEngine(machine=machine)
        second = pool.submit(shared, plan(package(D)), other, Noting(theirs, machine), 1, D)
        outcomes = [*first.result(), *second.result()]
    assert {outcome.verdict for outcome in outcomes} == {Verdict.BUILT}
    assert [cpv for cpv in machine.begun if cpv != ASKED] == [A, D, B, C]
    assert machine.most == 1
