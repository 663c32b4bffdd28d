"""The loop of a run, over an engine that builds nothing."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from factories import package, plan
from scheduling import task

from cluster.master import dispatch
from cluster.master.claims import Sharing
from cluster.master.engines.engine import Came, Change, Draining, Ended, Resumed, Went
from cluster.master.estimate import Basis, Estimate
from cluster.master.expected import tasks_of
from cluster.master.schedule.hosts import Host
from cluster.master.schedule.state import Ranking, State
from cluster.master.schedule.tasks import Tasks
from cluster.model import Action, Cpv, Job, Outcome, Package, Plan, Verdict

A, B, C, D = (f"cat/{name}-1" for name in "abcd")
TWO = ("node-1", "node-2")
COMPILES = dispatch.Compiles(jobs=2, most_jobs=4, slots=4)
_PATIENCE_S = 20.0  # never reached when the tests pass


@dataclass
class FakeEngine:
    """Ends each job as `script` says, attempt by attempt, else as built; "hang" waits for stop()."""

    script: Mapping[str, tuple[Verdict | BaseException | str, ...]] = field(default_factory=dict)
    hosts: tuple[Host, ...] = (Host("here", TWO),)
    jobs: list[tuple[str, int]] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)
    """Nodes that were given two jobs at once."""
    makes: dict[str, int | None] = field(default_factory=dict)
    """make's -j of each package."""
    shares: list[dict[str, int]] = field(default_factory=list)
    """What each node was given of the compile slots, from time to time."""
    stops: int = 0
    abandoned: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._busy: set[str] = set()
        self._stopped = threading.Event()

    def attend(self, hear: Callable[[Change], None]) -> tuple[Host, ...]:
        self.hear = hear
        return self.hosts

    def expects(self) -> bool:
        return False

    def start(self, job: Job, node: str, entered: Callable[[str], None], ended: Ended) -> None:
        threading.Thread(target=self._work, args=(job, node, entered, ended), daemon=True).start()

    def _work(self, job: Job, node: str, entered: Callable[[str], None], ended: Ended) -> None:
        try:
            ended(self.run(job, node, entered))
        except BaseException as error:
            ended(error)

    def abandon(self, node: str) -> None:
        self.abandoned.append(node)

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

    def quarantine(self, host: str, reason: str) -> None:
        raise AssertionError(host)

    def stop(self) -> None:
        self.stops += 1
        self._stopped.set()


class FakeProgress:
    """Remembers what it is told."""

    def __init__(self, interrupt_at: str = "") -> None:
        self.starts: list[str] = []
        self.phases: defaultdict[str, list[str]] = defaultdict(list)
        self.ends: list[Outcome] = []
        self.warnings: list[str] = []
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

    def warn(self, text: str) -> None:
        self.warnings.append(text)


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
    engine.hosts = (Host("here", nodes),)
    outcomes = dispatch.run(
        what,
        engine,
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
    engine.hosts = (Host("here", tuple(f"node-{number}" for number in range(nodes))),)
    return dispatch.run(
        what,
        engine,
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


# Hosts that come and go.

EAST, WEST = Host("east", ("east:1",), 2.0), Host("west", ("west:1",))


@dataclass
class Hand:
    """An engine in the test's hand: `moves` says what is done when a job is begun, by its node and package.

    A job that none is told of is built at once. Where `coming` is set, hosts may come.
    """

    moves: Mapping[tuple[str, str], Callable[[Hand, Ended], None]] = field(default_factory=dict)
    hosts: tuple[Host, ...] = (EAST, WEST)
    coming: bool = False
    begun: list[tuple[str, str, int]] = field(default_factory=list)
    abandoned: list[str] = field(default_factory=list)
    kept: dict[str, Ended] = field(default_factory=dict)
    """Jobs that nothing was told of yet, by node."""
    quarantined: list[tuple[str, str]] = field(default_factory=list)

    def attend(self, hear: Callable[[Change], None]) -> tuple[Host, ...]:
        self.hear = hear
        return self.hosts

    def expects(self) -> bool:
        return self.coming

    def start(self, job: Job, node: str, entered: Callable[[str], None], ended: Ended) -> None:
        cpv = job.package.cpv
        self.begun.append((node, cpv, job.attempt))
        self.kept[node] = ended
        self.moves.get((node, cpv), ends(Verdict.BUILT, node, cpv))(self, ended)

    def abandon(self, node: str) -> None:
        self.abandoned.append(node)
        self.kept[node](Outcome(Cpv(C), Verdict.LOST, node))

    def share(self, slots: Mapping[str, int]) -> None:
        pass

    def quarantine(self, host: str, reason: str) -> None:
        self.quarantined.append((host, reason))

    def stop(self) -> None:
        pass


def ends(verdict: Verdict, node: str, cpv: str) -> Callable[[Hand, Ended], None]:
    return lambda hand, ended: ended(Outcome(Cpv(cpv), verdict, node, reason=verdict.value))


def tells(*changes: Change) -> Callable[[Hand, Ended], None]:
    """The job does not end; the engine tells of `changes`."""

    def move(hand: Hand, ended: Ended) -> None:
        for change in changes:
            hand.hear(change)

    return move


def handed(what: Plan, hand: Hand, **options: int) -> tuple[dict[str, Outcome], list[Outcome], FakeProgress]:
    recorded: list[Outcome] = []
    progress = FakeProgress()
    outcomes = dispatch.run(
        what,
        hand,
        todo=todo(what),
        compiles=COMPILES,
        progress=progress,
        record=recorded.append,
        **{"attempts": 1, **options},
    )
    return {outcome.cpv: outcome for outcome in outcomes}, recorded, progress


def test_what_a_host_had_that_is_gone_is_built_elsewhere_and_costs_no_attempt() -> None:
    hand = Hand({("east:1", A): tells(Went("east", "its line is dead"))})
    outcomes, recorded, progress = handed(plan(package(A)), hand)
    assert hand.begun == [("east:1", A, 1), ("west:1", A, 1)]
    assert verdicts(outcomes) == {A: "built"}
    assert [(one.verdict.value, one.node, one.reason) for one in recorded] == [
        ("lost", "east:1", "east is gone: its line is dead"),
        ("built", "west:1", "built"),
    ]
    assert progress.warnings == ["east is gone: its line is dead"]


def test_a_package_that_takes_its_hosts_down_has_failed() -> None:
    moves = {(host.nodes[0], A): tells(Went(host.name, "off"), Came(host)) for host in (EAST, WEST)}
    hand = Hand(moves)
    outcomes, recorded, _ = handed(plan(package(A), package(B, A), package(C)), hand, losses=3)
    assert verdicts(outcomes) == {A: "failed", B: "blocked", C: "built"}
    hosts = [node.partition(":")[0] for node, cpv, _ in hand.begun if cpv == A]
    assert outcomes[A].reason == f"its host went away 3 times: {', '.join(hosts)}"
    assert outcomes[A].node == f"{hosts[-1]}:1"
    assert [one.verdict.value for one in recorded if one.cpv == A] == ["lost"] * 3 + ["failed"]


def test_a_host_that_goes_when_it_was_to_get_nothing_more_is_held_against_no_package() -> None:
    hand = Hand({("east:1", A): tells(Draining("east", "Amazon takes it back"), Went("east", "off"))})
    outcomes, _, _ = handed(plan(package(A)), hand, losses=1)
    assert verdicts(outcomes) == {A: "built"}


def test_a_host_that_comes_is_given_packages_and_its_speed_is_told() -> None:
    hand = Hand({("west:1", A): tells(Came(EAST))}, hosts=(WEST,))
    hand.moves = {**hand.moves, ("east:1", B): lambda hand, ended: finish_both(hand)}

    def finish_both(hand: Hand) -> None:
        ends(Verdict.BUILT, "west:1", A)(hand, hand.kept["west:1"])
        ends(Verdict.BUILT, "east:1", B)(hand, hand.kept["east:1"])

    outcomes, _, _ = handed(plan(package(A), package(B)), hand)
    assert {cpv: (one.node, one.speed) for cpv, one in outcomes.items()} == {A: ("west:1", 1.0), B: ("east:1", 2.0)}


def test_a_host_that_drains_ends_what_it_has_and_is_given_nothing_until_it_is_resumed() -> None:
    def drain(hand: Hand, ended: Ended) -> None:
        hand.hear(Draining("east", "asked to"))
        ends(Verdict.BUILT, "east:1", A)(hand, ended)

    def resume(hand: Hand, ended: Ended) -> None:
        hand.hear(Resumed("east"))
        ends(Verdict.BUILT, "west:1", B)(hand, ended)

    hand = Hand({("east:1", A): drain, ("west:1", B): resume})
    outcomes, _, progress = handed(plan(package(A), package(B, A), package(C, B)), hand)
    assert set(verdicts(outcomes).values()) == {"built"}
    assert [(node, cpv) for node, cpv, _ in hand.begun] == [("east:1", A), ("west:1", B), ("east:1", C)]
    assert progress.warnings == ["east is given no more packages: asked to"]


@pytest.mark.parametrize(
    ("script", "hosts", "warnings"),
    [
        ({}, (), []),  # that workers are being started has been said
        (
            {("west:1", A): tells(Went("west", "off"))},
            (WEST,),
            ["west is gone: off", "there is no host to build on: waiting for one"],
        ),
    ],
)
def test_without_a_host_a_run_waits_for_one_that_may_come(
    monkeypatch: pytest.MonkeyPatch,
    script: Mapping[tuple[str, str], Callable[[Hand, Ended], None]],
    hosts: tuple[Host, ...],
    warnings: list[str],
) -> None:
    monkeypatch.setattr(dispatch, "_TICK_S", 0.01)
    hand = Hand(dict(script), hosts=hosts, coming=True)
    ticks: list[int] = []

    def tick(self: FakeProgress) -> None:
        ticks.append(1)
        if len(ticks) == 3:
            hand.moves = {}
            hand.hear(Came(WEST))

    monkeypatch.setattr(FakeProgress, "tick", tick)
    outcomes, _, progress = handed(plan(package(A)), hand)
    assert verdicts(outcomes) == {A: "built"}
    assert progress.warnings == warnings


def test_what_is_left_when_no_host_is_and_none_is_expected_is_lost_in_one_line() -> None:
    hand = Hand({("west:1", B): tells(Went("west", "off"))}, hosts=(WEST,))
    outcomes, _, progress = handed(plan(package(A), package(B, A), package(C, B), package(D, C)), hand)
    assert verdicts(outcomes) == {A: "built", B: "lost", C: "lost", D: "lost"}
    assert outcomes[D].reason == "no host is left to build it"
    assert progress.warnings == [
        "west is gone: off",
        "no host is left and none is expected: 3 of 4 packages are not built",
    ]


def test_a_host_that_came_before_the_last_one_went_is_not_overlooked() -> None:
    hand = Hand({("west:1", A): tells(Went("west", "off"), Came(EAST))}, hosts=(WEST,))
    outcomes, _, _ = handed(plan(package(A)), hand)
    assert verdicts(outcomes) == {A: "built"}


def test_what_a_lost_host_built_after_all_is_taken_and_not_built_again() -> None:
    def late(hand: Hand, ended: Ended) -> None:
        hand.hear(Went("east", "silent"))
        ends(Verdict.BUILT, "east:1", A)(hand, ended)

    hand = Hand({("east:1", A): late}, hosts=(EAST,))
    hand.coming = True
    outcomes, _, _ = handed(plan(package(A)), hand)
    assert hand.begun == [("east:1", A, 1)]
    assert (outcomes[A].verdict, outcomes[A].node) == (Verdict.BUILT, "east:1")


def test_what_came_late_is_taken_where_the_package_is_being_built_again_and_that_is_abandoned() -> None:
    def late(hand: Hand, ended: Ended) -> None:
        ends(Verdict.BUILT, "east:1", C)(hand, hand.kept["east:1"])

    hand = Hand({("east:1", C): tells(Went("east", "silent")), ("west:1", C): late})
    outcomes, recorded, _ = handed(plan(package(C), package(D, C)), hand)
    assert hand.abandoned == ["west:1"]
    assert hand.begun == [("east:1", C, 1), ("west:1", C, 1), ("west:1", D, 1)]
    assert (outcomes[C].verdict, outcomes[C].node) == (Verdict.BUILT, "east:1")
    assert [one.verdict.value for one in recorded] == ["lost", "built", "built"]


def test_what_came_late_and_is_not_built_is_nothing() -> None:
    def late(hand: Hand, ended: Ended) -> None:
        ends(Verdict.FAILED, "east:1", A)(hand, hand.kept["east:1"])
        ends(Verdict.BUILT, "west:1", A)(hand, ended)

    hand = Hand({("east:1", A): tells(Went("east", "silent")), ("west:1", A): late})
    outcomes, recorded, _ = handed(plan(package(A)), hand)
    assert verdicts(outcomes) == {A: "built"}
    assert [one.verdict.value for one in recorded] == ["lost", "built"]


def test_a_package_fails_when_a_second_host_says_so_too() -> None:
    moves = {(node, A): ends(Verdict.FAILED, node, A) for node in ("east:1", "west:1")}
    hand = Hand(moves)
    outcomes, recorded, _ = handed(plan(package(A), package(B, A)), hand)
    assert verdicts(outcomes) == {A: "failed", B: "blocked"}
    assert [(one.verdict.value, one.reason) for one in recorded[:2]] == [
        ("lost", "failed on east, tried once more elsewhere: failed"),
        ("failed", "failed"),
    ]


def test_a_host_whose_packages_are_built_elsewhere_is_given_no_more() -> None:
    names = [f"cat/p{number}-1" for number in range(5)]
    chain = [package(name, *names[:number]) for number, name in enumerate(names)]
    hand = Hand({("east:1", name): ends(Verdict.FAILED, "east:1", name) for name in names})
    outcomes, _, progress = handed(plan(*chain), hand, quarantine_after=2)
    assert set(verdicts(outcomes).values()) == {"built"}
    assert [cpv for node, cpv, _ in hand.begun if node == "east:1"] == names[:2]
    why = "what failed or was lost there was built elsewhere: cat/p0-1, cat/p1-1"
    assert progress.warnings == [f"east is given no more packages: {why}"]
    assert hand.quarantined == [("east", why)]


def test_a_host_in_quarantine_that_is_resumed_begins_anew() -> None:
    names = [f"cat/p{number}-1" for number in range(4)]
    chain = [package(name, *names[:number]) for number, name in enumerate(names)]

    def resume(hand: Hand, ended: Ended) -> None:
        hand.hear(Draining("east", "it is in quarantine"))  # as the registry has it
        hand.hear(Resumed("east"))
        ends(Verdict.BUILT, "west:1", names[1])(hand, ended)

    hand = Hand({("east:1", names[0]): ends(Verdict.FAILED, "east:1", names[0]), ("west:1", names[1]): resume})
    outcomes, _, progress = handed(plan(*chain), hand, quarantine_after=1)
    assert set(verdicts(outcomes).values()) == {"built"}
    assert [cpv for node, cpv, _ in hand.begun if node == "east:1"] == [names[0], *names[2:]]
    assert len(hand.quarantined) == len(progress.warnings) == 1


def test_what_is_late_on_a_slow_node_is_abandoned_there_and_nobody_is_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is expected to take 50 ms, and a node of a hundred times the speed comes."""
    monkeypatch.setattr(dispatch, "_TICK_S", 0.01)
    fast, slow = Host("fast", ("fast:1",), 100.0), Host("slow", ("slow:1",))
    hand = Hand({("slow:1", C): tells(Came(fast))}, hosts=(slow,))
    recorded: list[Outcome] = []
    what = plan(package(C))
    outcomes = dispatch.run(
        what,
        hand,
        attempts=1,
        todo=todo(what, {C: 0.05}),
        compiles=COMPILES,
        progress=FakeProgress(),
        record=recorded.append,
        quarantine_after=1,
    )
    assert hand.abandoned == ["slow:1"]
    assert [(one.verdict.value, one.node) for one in recorded] == [("lost", "slow:1"), ("built", "fast:1")]
    assert recorded[0].reason == "late on slow, begun anew on a faster node"
    assert outcomes[0].verdict is Verdict.BUILT


def test_of_thoughts_that_are_wanted_while_there_is_one_the_last_is_thought(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []  # how many packages, as each thought begins
    may, again = threading.Event(), threading.Event()

    def choose(state: State, now: float) -> Ranking:
        ended.append(len(state.ended))
        if len(ended) > 1:
            again.set()
        assert may.wait(_PATIENCE_S)
        return state.ranking

    class Patient(FakeEngine):
        def run(self, job: Job, node: str, entered: Callable[[str], None]) -> Outcome:
            if job.package.cpv == "cat/p9-1":
                may.set()
                assert again.wait(_PATIENCE_S)
            return super().run(job, node, entered)

    monkeypatch.setattr(dispatch.lookahead, "choose", choose)
    chain = [package(f"cat/p{number}-1", *[f"cat/p{number - 1}-1"][:number]) for number in range(11)]
    run(plan(*chain), Patient(), FakeProgress())
    assert ended[:2] == [0, 9]  # each of the nine ended sooner than expected


@pytest.mark.parametrize(("lent", "jobs"), [(0, 4), (3, 4), (7, 7), (99, 16)])
def test_a_pool_raises_the_most_jobs_as_far_as_it_goes_and_no_more_than_four_times(lent: int, jobs: int) -> None:
    pooled = replace(COMPILES, lent=lambda: lent)
    assert pooled.of(task("cat/busy-1", parallelism=40.0)) == jobs
    assert pooled.of(task("cat/new-1")) == 2
    assert pooled.of(task("cat/narrow-1", parallelism=1.2)) == 2
