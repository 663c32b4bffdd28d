"""A run over real workers of Dask, one of which dies and one of which comes late."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from benches import FakeEquipment
from factories import package, plan
from processes import eventually
from yards import PATIENCE_S, TARGET, Yard

from cluster.errors import ClusterError, MachineError, NodeLost
from cluster.host.bench import Bench, Equipment
from cluster.host.pool import Offer
from cluster.host.tls import Authority
from cluster.master import dispatch
from cluster.master.engines import crew as crews
from cluster.master.engines import scheduler as schedulers
from cluster.master.engines.dask import DaskEngine
from cluster.master.engines.engine import Change, Draining, Resumed
from cluster.master.engines.helpers import Helpers
from cluster.master.estimate import Basis, Estimate
from cluster.master.expected import tasks_of
from cluster.master.schedule.hosts import Host
from cluster.model import Job, Outcome, Verdict

pytestmark = pytest.mark.slow

pytest.importorskip("distributed")


@dataclass(frozen=True, slots=True)
class Unequipped:
    """Of a host that lacks something."""

    is_early = True

    def bench(self, directory: Path) -> Bench:
        raise MachineError("the arm64 stage is not there")


class FakeDelivery:
    """Has nothing to fetch; what came of a job that is no error is built."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.may.set()

    def prepare(self, job: Job, entered: Callable[[str], None]) -> Any:
        assert self.may.wait(PATIENCE_S)
        entered("fetch")
        return job

    def conclude(self, job: Job, node: str, began: float, came: Any, entered: Callable[[str], None]) -> Outcome:
        verdict = Verdict.LOST if isinstance(came, ClusterError) else Verdict.BUILT
        return Outcome(job.package.cpv, verdict, node, job.attempt, reason=str(came))


class FakeCourier:
    """Packs a word: what becomes of a package the first time, as `script` says."""

    def __init__(self, script: Mapping[str, str]) -> None:
        self.script = dict(script)

    def pack(self, work: Any, host: str) -> str:
        return self.script.pop(work.package.cpv, "sed")

    def receive(self, came: Any, host: str, package: object) -> Any:
        if came.startswith("unfetched"):
            raise NodeLost("what was built cannot be fetched")
        return came


class Progress:
    """Starts a second host when the first is lost."""

    def __init__(self, lost: Callable[[], None]) -> None:
        self.lost = lost
        self.phases: list[str] = []

    def warn(self, text: str) -> None:
        if "is gone" in text:
            self.lost()

    def entered(self, node: str, phase: str) -> None:
        self.phases.append(phase)

    def dispatched(self, job: Job, node: str) -> None: ...

    def ended(self, outcome: Outcome) -> None: ...

    def tick(self) -> None: ...


def test_a_run_loses_what_a_dying_host_was_building_and_goes_on_where_another_comes(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    identity = authority.issue("master")
    # All of the first host is busy when its worker dies with one of its packages.
    packages = (package("c/a-1"), package("c/b-1", "c/a-1"), package("c/die-1", "c/a-1"), package("c/z-1", "c/die-1"))
    what = plan(*packages)
    estimates = {one.cpv: Estimate(10.0, Basis.BUILT) for one in what.packages}
    recorded: list[Outcome] = []
    with ExitStack() as stack:
        scheduler = stack.enter_context(schedulers.running(identity, tmp_path))
        crew = stack.enter_context(crews.gathering(scheduler, identity, TARGET))
        yard = Yard(tmp_path, authority, scheduler, crew)
        stack.enter_context(yard.worker("first"))
        progress = Progress(lambda: stack.enter_context(yard.worker("second")) and None)
        courier = FakeCourier({"c/b-1": "hang", "c/die-1": "die", "c/z-1": "unfetched"})
        engine = stack.enter_context(DaskEngine(crew, FakeDelivery(), courier, FakeEquipment, expects=lambda: True))
        outcomes = dispatch.run(
            what,
            engine,
            attempts=3,
            todo=tasks_of(what, estimates),
            compiles=dispatch.Compiles(jobs=2, most_jobs=4, slots=4),
            progress=progress,
            record=recorded.append,
        )
    assert [outcome.verdict for outcome in outcomes] == [Verdict.BUILT] * 4
    assert [outcome.node.partition(":")[0] for outcome in outcomes] == ["first", "second", "second", "second"]
    lost = sorted(
        (outcome.cpv, outcome.node, outcome.reason) for outcome in recorded if outcome.verdict is Verdict.LOST
    )
    gone = "first is gone: its connection broke"
    assert [(cpv, reason) for cpv, _, reason in lost] == [
        ("c/b-1", gone),
        ("c/die-1", gone),
        ("c/z-1", "what was built cannot be fetched"),
    ]
    assert set(progress.phases) == {"fetch", "compile"}


class FakeCrew:
    """Has one host, which ends each job at once."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.equipment: list[object] = []

    def attend(self, hear: object) -> tuple[Host, ...]:
        return (Host("h", ("h:1",)),)

    def start(self, node: str, equipment: object, parcel: str, entered: object, ended: Callable[[Any], None]) -> None:
        self.started.append(parcel)
        self.equipment.append(equipment)
        ended(parcel)

    def abandon(self, node: str) -> None:
        self.started.append(f"abandon {node}")


def test_what_is_abandoned_on_its_way_does_not_start() -> None:
    crew: Any = FakeCrew()
    delivery = FakeDelivery()
    ends: list[Any] = []
    with DaskEngine(crew, delivery, FakeCourier({}), FakeEquipment) as engine:
        delivery.may.clear()
        engine.start(Job(package("c/a-1"), 1), "h:1", print, ends.append)
        engine.abandon("h:1")
        engine.start(Job(package("c/b-1"), 1), "h:1", print, ends.append)
        delivery.may.set()
        engine._preparing.submit(int).result(PATIENCE_S)
    assert sorted((end.cpv, end.verdict.value) for end in ends) == [("c/a-1", "lost"), ("c/b-1", "built")]
    assert crew.started == ["abandon h:1", "sed"]


def test_each_host_builds_with_what_is_its_own() -> None:
    crew: Any = FakeCrew()
    with DaskEngine(crew, FakeDelivery(), FakeCourier({}), FakeEquipment) as engine:
        for node in ("alpha:1", "beta:2"):
            engine.start(Job(package("c/a-1"), 1), node, print, lambda end: None)
            engine._preparing.submit(int).result(PATIENCE_S)
    assert sorted(crew.equipment, key=str) == [FakeEquipment("alpha"), FakeEquipment("beta")]


def test_a_defect_of_ours_ends_the_run() -> None:
    crew: Any = FakeCrew()
    ends: list[Any] = []
    courier: Any = object()
    with DaskEngine(crew, FakeDelivery(), courier, FakeEquipment) as engine:
        engine.start(Job(package("c/a-1"), 1), "h:1", print, ends.append)
        engine._preparing.submit(int).result(PATIENCE_S)
    assert [type(end) for end in ends] == [AttributeError]


def test_a_host_without_nodes_is_equipped_and_nothing_to_the_run(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    identity = authority.issue("master")
    offer = Offer("127.0.0.1", 3632, 16, "same")
    offers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
    keeper: list[Callable[[Change], None]] = []
    said: list[str] = []
    helpers = Helpers(said.append)

    def equipment(host: str) -> Equipment:
        return Unequipped() if host == "barren" else FakeEquipment("pooled", offer)

    with ExitStack() as stack:
        scheduler = stack.enter_context(schedulers.running(identity, tmp_path))
        crew = stack.enter_context(crews.gathering(scheduler, identity, TARGET))
        crew.offered = lambda host, made: offers.put((host, made))
        crew.refused = lambda host, why: offers.put((host, why))
        yard = Yard(tmp_path, authority, scheduler, crew)
        smithy = stack.enter_context(yard.worker("smithy", nodes=0))
        assert eventually(lambda: crew.attend(print) != (), deadline_s=PATIENCE_S)
        engine = stack.enter_context(
            DaskEngine(crew, FakeDelivery(), FakeCourier({}), equipment, attending=keeper.append, helpers=helpers)
        )
        assert engine.attend(heard.put) == ()
        assert offers.get(timeout=PATIENCE_S) == ("smithy", offer)
        stack.enter_context(yard.worker("barren", nodes=0))
        assert offers.get(timeout=PATIENCE_S) == ("barren", "the arm64 stage is not there")
        assert helpers.ready() == {"smithy", "barren"}
        keeper[0](Draining("smithy", "asked"))
        assert helpers.ready() == {"barren"}
        keeper[0](Resumed("smithy"))
        assert helpers.ready() == {"smithy", "barren"}
        smithy.kill()
        assert eventually(lambda: helpers.ready() == {"barren"}, deadline_s=PATIENCE_S)
        assert heard.empty()
        stack.enter_context(yard.worker("builder"))
        assert heard.get(timeout=PATIENCE_S).host.name == "builder"
    gone = ("asked", "its connection broke")
    assert said == [f"smithy compiles no more for the others: {reason}" for reason in gone]
