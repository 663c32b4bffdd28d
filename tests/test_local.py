"""Jobs on this machine, on threads of their own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from factories import package

from cluster.errors import NodeLost
from cluster.host.work import Product
from cluster.master.engines import local
from cluster.master.engines.local import LocalEngine
from cluster.master.schedule.hosts import Host
from cluster.model import Compiles, Job, Outcome, Verdict
from cluster.node.build import Built

JOB = Job(package("c/x-1"), 1)
HERE = Host("here", ("node-1", "node-2"))
_PATIENCE_S = 20.0


class FakeDelivery:
    """Prepares when it may, and says what it was given in the end."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.may.set()

    def prepare(self, job: Job, entered: Callable[[str], None]) -> Any:
        assert self.may.wait(_PATIENCE_S)
        if job.attempt > 1:
            raise ZeroDivisionError("ours")
        return SimpleNamespace()

    def log(self, what: object) -> Path:
        return Path("x.log")

    def conclude(self, job: Job, node: str, began: float, came: Any, entered: Callable[[str], None]) -> Outcome:
        if isinstance(came, Product):
            return Outcome(job.package.cpv, Verdict.BUILT, node)
        return Outcome(job.package.cpv, Verdict.LOST, node, reason=str(came))


class FakeBuilder:
    """Builds until it is abandoned."""

    def __init__(self) -> None:
        self.ends = {node: threading.Event() for node in HERE.nodes}
        self.begun: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.shares: list[dict[str, int]] = []

    def share(self, slots: dict[str, int]) -> None:
        self.shares.append(slots)

    def build(self, work: object, node: str, log: Path, entered: Callable[[str], None]) -> Product:
        self.begun.put(node)
        if node == "node-2":
            assert self.ends[node].wait(_PATIENCE_S)
            raise NodeLost("killed")
        return Product(Built(Path("x"), (), ""), Compiles())

    def abandon(self, node: str) -> None:
        self.ends[node].set()

    def stop(self) -> None:
        self.abandon("node-2")


@pytest.fixture
def parts() -> tuple[FakeDelivery, FakeBuilder]:
    return FakeDelivery(), FakeBuilder()


@pytest.fixture
def engine(parts: tuple[Any, Any]) -> Iterator[LocalEngine]:
    delivery, builder = parts
    with LocalEngine(delivery, (HERE, builder)) as engine:
        yield engine


def started(engine: LocalEngine, node: str, job: Job = JOB) -> queue.SimpleQueue[Outcome | BaseException]:
    ends: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()
    engine.start(job, node, lambda phase: None, ends.put)
    return ends


def outcome(ends: queue.SimpleQueue[Outcome | BaseException]) -> tuple[Verdict, str]:
    end = ends.get(timeout=_PATIENCE_S)
    assert isinstance(end, Outcome)
    return end.verdict, end.reason


def test_its_one_host_is_there_and_no_other_comes(engine: LocalEngine) -> None:
    assert engine.attend(lambda change: pytest.fail("nothing changes")) == (HERE,)
    assert not engine.expects()


def test_each_host_builds_with_its_own_builder(parts: tuple[Any, FakeBuilder]) -> None:
    board, other = Host("board", ("board:1",)), FakeBuilder()
    there: Any = other
    here: Any = parts[1]
    with LocalEngine(parts[0], (HERE, here), (board, there)) as engine:
        assert engine.attend(lambda change: None) == (HERE, board)
        assert outcome(started(engine, "board:1")) == (Verdict.BUILT, "")
        engine.share({"node-1": 3, "board:1": 1})
        engine.share({"board:1": 2})  # the other host keeps what it has
    assert other.begun.get(timeout=_PATIENCE_S) == "board:1"
    assert parts[1].begun.empty()
    assert (parts[1].shares, other.shares) == ([{"node-1": 3}], [{"board:1": 1}, {"board:1": 2}])


def test_nodes_build_at_once_and_each_tells_when_it_ends(engine: LocalEngine, parts: tuple[Any, FakeBuilder]) -> None:
    second = started(engine, "node-2")
    assert parts[1].begun.get(timeout=_PATIENCE_S) == "node-2"
    assert outcome(started(engine, "node-1")) == (Verdict.BUILT, "")
    engine.abandon("node-2")
    assert outcome(second) == (Verdict.LOST, "killed")


def test_what_is_abandoned_before_its_node_starts_is_not_built(
    engine: LocalEngine, parts: tuple[FakeDelivery, FakeBuilder]
) -> None:
    delivery, builder = parts
    delivery.may.clear()
    ends = started(engine, "node-1")
    engine.abandon("node-1")
    delivery.may.set()
    assert outcome(ends) == (Verdict.LOST, "abandoned before its node started")
    assert builder.begun.empty()
    assert outcome(started(engine, "node-1")) == (Verdict.BUILT, "")


def test_what_runs_when_it_is_stopped_is_lost(engine: LocalEngine, parts: tuple[Any, FakeBuilder]) -> None:
    ends = started(engine, "node-2")
    assert parts[1].begun.get(timeout=_PATIENCE_S) == "node-2"
    engine.stop()
    assert outcome(ends) == (Verdict.LOST, "killed")


def test_a_defect_of_ours_is_told_as_one(engine: LocalEngine) -> None:
    assert isinstance(started(engine, "node-1", Job(JOB.package, 2)).get(timeout=_PATIENCE_S), ZeroDivisionError)


def test_a_job_without_an_engine_is_the_same(parts: tuple[Any, Any]) -> None:
    assert local.run(*parts, JOB, "node-1", lambda phase: None).verdict is Verdict.BUILT
