"""The loop of a run, over an engine that is told how each package ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from cluster.errors import MachineError
from cluster.master import dispatch
from cluster.model import Cpv, Job, Outcome, Plan, Verdict
from factories import plan

ENDLESS_S = 30.0  # a test that gets there has failed


@dataclass
class FakeEngine:
    """Ends each job at once: as `script` says for its next attempt, else built."""

    script: dict[str, list[Verdict | BaseException]] = field(default_factory=dict)
    holds: frozenset[str] = frozenset()
    """Packages whose build goes on until `stop`."""
    jobs: list[tuple[str, str, int]] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self, job: Job, node: str, entered: Callable[[str], None]) -> Outcome:
        cpv = job.package.cpv
        self.jobs.append((cpv, node, job.attempt))
        entered("build")
        if cpv in self.holds:
            assert self.stopped.wait(ENDLESS_S), "nobody stopped the engine"
        verdicts = self.script.get(cpv)
        verdict = verdicts.pop(0) if verdicts else Verdict.BUILT
        if isinstance(verdict, BaseException):
            raise verdict
        return Outcome(cpv, verdict, node=node, attempt=job.attempt)

    def stop(self) -> None:
        self.stopped.set()


@dataclass
class Heard:
    """A Progress that remembers; `on_tick` may do something."""

    on_tick: Callable[[], None] = lambda: None
    said: list[tuple[str, ...]] = field(default_factory=list)

    def dispatched(self, job: Job, node: str) -> None:
        self.said.append(("dispatched", job.package.cpv, node))

    def entered(self, node: str, phase: str) -> None:
        self.said.append(("entered", node, phase))

    def ended(self, outcome: Outcome) -> None:
        self.said.append(("ended", outcome.cpv, outcome.verdict))

    def tick(self) -> None:
        self.on_tick()


def run(
    what: Plan,
    engine: FakeEngine,
    nodes: str = "1",
    *,
    past: dict[str, float] | None = None,
    progress: Heard | None = None,
    record: Callable[[Outcome], None] = lambda outcome: None,
) -> dict[str, Outcome]:
    seconds = {Cpv(cpv): value for cpv, value in (past or {}).items()}
    outcomes = dispatch.run(
        what, engine, tuple(nodes), attempts=3, past_seconds=seconds, progress=progress or Heard(), record=record
    )
    assert [outcome.cpv for outcome in outcomes] == [package.cpv for package in what.packages]
    return {outcome.cpv: outcome for outcome in outcomes}


CHAIN = plan({"c/a-1": (), "c/b-1": ("c/a-1",), "c/c-1": ("c/b-1",), "c/d-1": ()})


def test_requirements_come_before_what_needs_them_and_long_chains_before_short() -> None:
    engine = FakeEngine()
    outcomes = run(CHAIN, engine)
    assert [job[0] for job in engine.jobs] == ["c/a-1", "c/b-1", "c/c-1", "c/d-1"]
    assert {outcome.verdict for outcome in outcomes.values()} == {Verdict.BUILT}


def test_past_build_times_decide_what_is_long() -> None:
    engine = FakeEngine()
    run(CHAIN, engine, past={"c/d-1": 10_000.0})
    assert engine.jobs[0][0] == "c/d-1"


def test_independent_packages_are_built_at_once() -> None:
    together = threading.Barrier(2, timeout=ENDLESS_S)

    class Meeting(FakeEngine):
        def run(self, job: Job, node: str, entered: Callable[[str], None]) -> Outcome:
            together.wait()
            return super().run(job, node, entered)

    engine = Meeting()
    run(plan({"c/a-1": (), "c/b-1": ()}), engine, "12")
    assert {job[1] for job in engine.jobs} == {"1", "2"}


def test_what_the_binhost_has_is_skipped_with_its_reason_and_is_no_job() -> None:
    engine = FakeEngine()
    outcomes = run(plan({"c/a-1": (), "c/b-1": ("c/a-1",)}, skipped=["c/a-1"]), engine)
    assert outcomes["c/a-1"] == Outcome(Cpv("c/a-1"), Verdict.SKIPPED, reason="why c/a-1")
    assert engine.jobs == [("c/b-1", "1", 1)]


def test_a_failure_stops_only_what_needs_it_and_each_blocked_package_names_it() -> None:
    outcomes = run(CHAIN, FakeEngine({"c/a-1": [Verdict.FAILED]}))
    assert {cpv: outcome.verdict for cpv, outcome in outcomes.items()} == {
        "c/a-1": Verdict.FAILED,
        "c/b-1": Verdict.BLOCKED,
        "c/c-1": Verdict.BLOCKED,
        "c/d-1": Verdict.BUILT,
    }
    assert outcomes["c/b-1"].reason == outcomes["c/c-1"].reason == "needs c/a-1, which failed"


def test_a_lost_package_is_tried_again_and_every_outcome_is_recorded() -> None:
    recorded: list[Outcome] = []
    engine = FakeEngine({"c/a-1": [Verdict.LOST, Verdict.LOST]})
    outcomes = run(CHAIN, engine, record=recorded.append)
    assert [job for job in engine.jobs if job[0] == "c/a-1"] == [("c/a-1", "1", n) for n in (1, 2, 3)]
    assert outcomes["c/a-1"].verdict is Verdict.BUILT
    assert outcomes["c/a-1"].attempt == 3
    assert [o.verdict for o in recorded if o.cpv == "c/a-1"] == [Verdict.LOST, Verdict.LOST, Verdict.BUILT]


def test_a_package_lost_for_good_blocks_and_says_so() -> None:
    outcomes = run(CHAIN, FakeEngine({"c/b-1": [Verdict.LOST] * 3}))
    assert outcomes["c/b-1"].verdict is Verdict.LOST
    assert outcomes["c/c-1"].reason == "needs c/b-1, which was lost"


def test_progress_hears_of_every_step_in_order() -> None:
    heard = Heard()
    run(plan({"c/a-1": (), "c/b-1": ("c/a-1",)}), FakeEngine({"c/a-1": [Verdict.FAILED]}), progress=heard)
    assert heard.said == [
        ("dispatched", "c/a-1", "1"),
        ("entered", "1", "build"),
        ("ended", "c/a-1", Verdict.FAILED),
        ("ended", "c/b-1", Verdict.BLOCKED),
    ]


def test_an_unexpected_exception_in_an_engine_ends_the_run_and_stops_the_other_nodes() -> None:
    engine = FakeEngine({"c/a-1": [ZeroDivisionError("ours")]}, holds=frozenset({"c/d-1"}))
    with pytest.raises(ZeroDivisionError, match="ours"):
        run(CHAIN, engine, "12")
    assert engine.stopped.is_set()


def interrupt() -> None:
    raise KeyboardInterrupt


def test_ctrl_c_stops_the_engine_instead_of_waiting_for_the_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_TICK_S", 0.01)
    engine = FakeEngine(holds=frozenset({"c/a-1", "c/d-1"}))
    with pytest.raises(KeyboardInterrupt):
        run(CHAIN, engine, "12", progress=Heard(on_tick=interrupt))
    assert engine.stopped.is_set()
    assert {job[0] for job in engine.jobs} == {"c/a-1", "c/d-1"}  # and nothing new was started


def test_a_journal_that_cannot_be_written_ends_the_run() -> None:
    def record(outcome: Outcome) -> None:
        raise MachineError("disk full")

    engine = FakeEngine(holds=frozenset({"c/d-1"}))
    with pytest.raises(MachineError, match="disk full"):
        run(CHAIN, engine, "12", record=record)
    assert engine.stopped.is_set()
