"""Hosts through Dask: its own scheduler and workers on loopback, with certificates."""

from __future__ import annotations

import pickle
import queue
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from benches import FakeEquipment
from processes import eventually
from yards import PATIENCE_S, TARGET, Yard

from cluster.errors import MachineError, NodeLost
from cluster.host.pool import Member, Offer, Pool
from cluster.host.tls import Authority
from cluster.master.engines import crew as crews
from cluster.master.engines import scheduler as schedulers
from cluster.master.engines.engine import Came, Went
from cluster.master.schedule.hosts import Host
from cluster.node.qemu import free_port

pytestmark = pytest.mark.slow

pytest.importorskip("distributed")
dask = pytest.importorskip("dask")


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    place = tmp_path_factory.mktemp("yard")
    authority = Authority(place / "authority")
    identity = authority.issue("master")
    with schedulers.running(identity, place) as scheduler, crews.gathering(scheduler, identity, TARGET) as crew:
        made = Yard(place, authority, scheduler, crew)
        assert crew.attend(made.heard.put) == ()
        with made.worker("steady", speed=1.5):
            yield made


@pytest.fixture(scope="module")
def steady(yard: Yard) -> Host:
    came = yard.next()
    assert isinstance(came, Came)
    return came.host


class Told:
    """What was told of one job."""

    def __init__(self, yard: Yard, node: str, parcel: str) -> None:
        self.said: queue.SimpleQueue[Any] = queue.SimpleQueue()
        yard.crew.start(node, FakeEquipment(), parcel, self.said.put, self.said.put)

    def next(self) -> Any:
        return self.said.get(timeout=PATIENCE_S)


def test_a_host_is_what_its_worker_says_as_it_joins(yard: Yard, steady: Host) -> None:
    assert (steady.name, steady.nodes, steady.speed) == ("steady", ("steady:1", "steady:2"), 1.5)
    assert 0 < steady.memory_mib < 1 << 24
    assert steady.disk_mib > 0
    assert steady in yard.crew.attend(yard.heard.put)


def test_a_job_tells_its_phases_and_then_what_came_of_it(yard: Yard, steady: Host) -> None:
    told = Told(yard, steady.nodes[1], "sed")
    assert told.next() == "compile"
    first = told.next()
    assert first.startswith("sed in node-2 by ")
    again = Told(yard, steady.nodes[1], "sed")
    again.next()
    assert again.next() == first  # the same process
    assert told.said.empty()


def test_a_defect_on_a_host_ends_the_job_and_says_what_it_was(yard: Yard, steady: Host) -> None:
    told = Told(yard, steady.nodes[0], "broken")
    assert told.next() == "compile"
    error = told.next()
    assert isinstance(error, MachineError)
    assert "a defect" in error.mend


def test_what_is_abandoned_is_lost_and_its_node_builds_the_next(yard: Yard, steady: Host) -> None:
    told = Told(yard, steady.nodes[0], "hang")
    assert told.next() == "compile"
    yard.crew.abandon(steady.nodes[0])
    error = told.next()
    assert isinstance(error, NodeLost)
    assert str(error) == "it was ended: begin again"  # whole, after its journey
    after = Told(yard, steady.nodes[0], "grep")
    assert (after.next(), after.next()[:4]) == ("compile", "grep")


def test_a_worker_that_dies_is_a_host_that_went_and_its_jobs_are_lost_once(yard: Yard, steady: Host) -> None:
    with yard.worker("mortal"):
        assert yard.next().host.name == "mortal"
        one, other, elsewhere = (Told(yard, node, "hang") for node in ("mortal:1", "mortal:2", steady.nodes[0]))
        assert [told.next() for told in (one, other, elsewhere)] == ["compile"] * 3
    assert yard.next() == Went("mortal", "its connection broke")
    for told in (one, other):
        error = told.next()
        assert isinstance(error, NodeLost)
        assert error.what == "mortal is gone: its connection broke"
    with pytest.raises(NodeLost, match="mortal is gone"):
        raise Told(yard, "mortal:1", "sed").next()
    with yard.worker("mortal", nodes=1):
        came = yard.next()
        assert came.host.nodes == ("mortal:1",)
        fresh = Told(yard, "mortal:1", "sed")
        assert (fresh.next(), fresh.next()[:3]) == ("compile", "sed")
    assert isinstance(yard.next(), Went)
    assert all(told.said.empty() for told in (one, other, elsewhere))
    yard.crew.abandon(steady.nodes[0])
    assert isinstance(elsewhere.next(), NodeLost)


def test_a_host_makes_ready_says_what_it_offers_and_is_told_of_the_pool(yard: Yard, steady: Host) -> None:
    offers: queue.SimpleQueue[tuple[str, Offer]] = queue.SimpleQueue()
    yard.crew.offered = lambda host, offer: offers.put((host, offer))
    offer = Offer("127.0.0.1", 3632, 4, "same")
    yard.crew.equip(steady.name, FakeEquipment("pooled", offer))
    assert offers.get(timeout=PATIENCE_S) == (steady.name, offer)
    pool = Pool((Member("other", "127.0.0.1", 3633, 2),))
    yard.crew.pool(steady.name, pool).result(PATIENCE_S)
    assert eventually(lambda: (yard.directory / steady.name / "pool").exists())
    assert (yard.directory / steady.name / "pool").read_text() == repr(pool)


def test_a_job_that_comes_before_its_host_is_ready_says_what_it_waits_for(yard: Yard, steady: Host) -> None:
    said: queue.SimpleQueue[Any] = queue.SimpleQueue()
    equipment = FakeEquipment("late", Offer("127.0.0.1", 3632, 4, "same"))
    yard.crew.start(steady.nodes[0], equipment, "sed", said.put, said.put)
    assert [said.get(timeout=PATIENCE_S) for _ in range(2)] == ["the host's set-up", "compile"]
    assert said.get(timeout=PATIENCE_S).startswith("sed in node-1")


def test_a_host_measures_the_way_to_a_distccd_and_says_why_there_is_none(yard: Yard, steady: Host) -> None:
    with pytest.raises(MachineError, match="Connect call failed"):
        yard.crew.measure(steady.name, Member("other", "127.0.0.1", free_port(), 2), "gcc")
    with pytest.raises(NodeLost, match="nobody is gone"):
        yard.crew.measure("nobody", Member("other", "127.0.0.1", 1, 2), "gcc")


class FakeClient:
    """Remembers what hosts are told; the first call waits until it may return."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.errands: list[Any] = []
        self.places: list[list[str]] = []
        self.loop = SimpleNamespace(add_callback=lambda call: call(), call_later=lambda seconds, call: call())

    def get(self, graph: dict[Any, Any], keys: list[Any], **how: Any) -> list[None]:
        self.errands += [pickle.loads(packed) for _, packed in graph.values()]
        self.places += map(dask.get_annotations()["workers"], keys)
        return [None for _ in keys]

    def run(self, function: Any, *arguments: Any, workers: list[str], on_error: str) -> None:
        self.calls.put((function.__name__, *arguments, *workers))
        assert self.may.wait(PATIENCE_S)


def came(name: str, address: str, nodes: int) -> tuple[float, dict[str, Any]]:
    said = {"host": name, "speed": 1.0, "memory_mib": 1, "disk_mib": 1, "versions": crews.worker.versions()}
    return 0.0, {"came": address, "resources": {"node-arm64": float(nodes)}, "said": said}


def test_hosts_are_told_of_their_own_slots_when_they_change_and_last_of_the_latest() -> None:
    client = FakeClient()
    crew = crews.Crew(client, TARGET)
    crew.said(came("h", "tls://1", 2))
    crew.share({"h:1": 3, "h:2": 3})  # what they are to build brings it
    for node in ("h:1", "h:2"):
        crew.start(node, FakeEquipment(), "hang", print, print)
    assert [errand.slots for errand in client.errands] == [{"node-1": 3, "node-2": 3}] * 2
    crew.share({"h:1": 3, "h:2": 1, "gone:1": 4})
    assert client.calls.get(timeout=PATIENCE_S) == ("share", {"node-1": 3, "node-2": 1}, "tls://1")
    crew.share({"h:1": 4, "h:2": 0})
    crew.share({"h:1": 2, "h:2": 2})
    crew.share({"h:2": 2, "h:1": 2})
    client.may.set()
    assert client.calls.get(timeout=PATIENCE_S) == ("share", {"node-1": 2, "node-2": 2}, "tls://1")
    crew.calls.shutdown()
    assert client.calls.empty()


def test_jobs_that_leave_together_are_given_to_dask_at_once_but_for_those_whose_host_went() -> None:
    client, later = FakeClient(), []
    client.loop.call_later = lambda seconds, call: later.append(call)
    crew = crews.Crew(client, TARGET)
    for name in "abc":
        crew.said(came(name, f"tls://{name}", 1))
        crew.start(f"{name}:1", FakeEquipment(), name, print, print)
    crew.said((0.0, {"went": "tls://b", "reason": "it left"}))
    (submit,) = later
    submit()
    assert [errand.parcel for errand in client.errands] == ["a", "c"]
    assert client.places == [["tls://a"], ["tls://c"]]
    crew.said((0.0, {"went": "tls://c", "reason": "it left"}))
    crew.said(came("c", "tls://d", 1))
    crew.start("c:1", FakeEquipment(), "d", print, print)
    assert len(later) == 2
    crew.end("the run is being stopped")
    later[1]()
    assert len(client.errands) == 2


def test_a_host_that_is_back_before_it_was_missed_came_anew() -> None:
    crew = crews.Crew(FakeClient(), TARGET)
    heard: list[Any] = []
    assert crew.attend(heard.append) == ()
    for event in (came("h", "tls://1", 1), came("h", "tls://1", 1), came("h", "tls://2", 2)):
        crew.said(event)
    crew.said((0.0, {"went": "tls://1", "reason": "its connection broke"}))  # known already
    assert [type(one) for one in heard] == [Came, Went, Came]
    assert [host.nodes for host in crew.attend(heard.append)] == [("h:1", "h:2")]


def test_who_has_a_certificate_of_another_authority_is_turned_away(yard: Yard, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "stranger").issue("steady")
    context = stranger.client_context()
    context.verify_mode = ssl.CERT_NONE  # it would even talk to us
    with (
        socket.create_connection(("127.0.0.1", yard.scheduler.port), PATIENCE_S) as plain,
        context.wrap_socket(plain) as secure,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        secure.recv(1)


def test_a_host_of_another_version_is_not_taken_and_it_is_said_why() -> None:
    own = {"portage-cluster": "2", "distributed": "1"}
    assert crews.unfitness({"host": "h", "versions": own}, own) == ""
    assert crews.unfitness({}, own) == "it does not say what it is"
    old = {"host": "h", "versions": {**own, "portage-cluster": "1"}}
    assert crews.unfitness(old, own) == "it has portage-cluster 1, the master 2"


def test_a_crew_ends_its_jobs_and_workers_and_nothing_starts_any_more(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    identity = authority.issue("master")
    with schedulers.running(identity, tmp_path) as scheduler:
        with crews.gathering(scheduler, identity, TARGET) as crew:
            yard = Yard(tmp_path, authority, scheduler, crew)
            assert crew.attend(yard.heard.put) == ()
            worker = yard.worker("h")
            assert yard.next().host.name == "h"
            told = Told(yard, "h:1", "hang")
            assert told.next() == "compile"
        assert str(told.next()) == "the run is being stopped"
        assert worker.wait(PATIENCE_S) == 0
        assert (tmp_path / "h" / "stopped").exists()
        assert str(Told(yard, "h:1", "sed").next()) == "the run is being stopped"


def test_without_its_scheduler_a_crew_is_lost() -> None:
    crew = crews.Crew(None, TARGET)
    ended: Any = SimpleNamespace(ended=True, why=lambda: "exit status 1")
    crews._watch(schedulers.Scheduler("tls://1", ended), crew, threading.Event())
    told: list[Any] = []
    crew.start("h:1", FakeEquipment(), "sed", told.append, told.append)
    assert str(told[0]) == "the Dask scheduler has ended: exit status 1"
