"""Idle processors of hosts, handed out as the run goes."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace

import pytest
from processes import eventually
from scheduling import task

from cluster.errors import MachineError, NodeLost
from cluster.host.pool import Member, Offer, Pool
from cluster.host.relay import Measured
from cluster.master.dispatch import Compiles
from cluster.master.engines.lender import Lender
from cluster.master.schedule import core, events
from cluster.master.schedule.hosts import Host
from cluster.master.schedule.rules import Earliest
from cluster.master.schedule.state import State, ranked
from cluster.master.schedule.tasks import of as tasks_of

pytestmark = pytest.mark.slow

OFFER = Offer("127.0.0.1", 3632, 4, "same")
COMPILES = Compiles(jobs=3, most_jobs=8, slots=4)


class Hands:
    """Remembers what hosts are told."""

    def __init__(self) -> None:
        self.told: dict[str, Pool] = {}
        self.measured: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self.done: Future[None] = Future()
        self.done.set_result(None)
        self.unreached: set[str] = set()

    def pool(self, host: str, pool: Pool) -> Future[None]:
        self.told[host] = pool
        return self.done

    def measure(self, host: str, member: Member, compiler: str) -> Measured:
        self.measured.put((host, member.name))
        if member.name in self.unreached:
            raise MachineError("a line was not compiled within 60 s")
        return Measured(0.001, 5e6)


def way(here: str, there: str, offer: Offer) -> Member:
    if there == "cut":
        raise NodeLost(f"there is no way from {here} to {there}")
    return Member(there, "127.0.0.1", 40000 + ord(there[0]), offer.cores, tunnel=True)


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def warned() -> list[str]:
    return []


@pytest.fixture
def lender(hands: Hands, warned: list[str]) -> Iterator[Lender]:
    yield (made := Lender(hands, way, "gcc", COMPILES, warned.append))
    made._measuring.shutdown()


def running(*names: str, packages: int = 1) -> State:
    """So many packages, of which each host builds one."""
    tasks = tasks_of([task(f"cat/p{number}-1") for number in range(packages)])
    state = core.start(tasks, [Host(name, (f"{name}:1",)) for name in names], ranked(Earliest(), tasks), 1)
    return core.schedule(state, events.Tick(0.0))[0]


def settled(lender: Lender, state: State) -> None:
    """Ways are measured, and what follows from that is told."""
    lender.lend(state)
    assert eventually(lambda: all(way.done() for way in lender._ways.values()))
    lender.lend(state)


def slots(pool: Pool) -> dict[str, int]:
    return {member.name: member.slots for member in pool.members}


def test_a_package_gets_the_idle_processors_of_all_hosts_through_ways_that_were_measured(
    lender: Lender, hands: Hands
) -> None:
    state = running("a", "b")
    (builder,) = [one.host for one in state.running.values()]
    other = {"a": "b", "b": "a"}[builder]
    lender.offered("a", OFFER)
    lender.lend(state)
    assert not hands.told  # alone a host has what it began with
    lender.offered("b", OFFER)
    settled(lender, state)
    assert sorted(hands.measured.get(timeout=10) for _ in range(2)) == [("a", "b"), ("b", "a")]
    pool = hands.told[builder]
    assert slots(pool) == {builder: 2, other: 1}  # three at once is what is known of the package
    assert {member.name: member.tunnel for member in pool.members} == {builder: False, other: True}
    assert pool.lzo  # 5 MB/s is slower than it compresses
    assert slots(hands.told[other]) == {builder: 0, other: 0}


def test_a_host_is_told_when_something_changes_and_the_last_call_is_over(lender: Lender, hands: Hands) -> None:
    state = running("a", "b")
    for name in "ab":
        lender.offered(name, OFFER)
    settled(lender, state)
    hands.told.clear()
    lender.lend(state)
    assert not hands.told
    (cpv,) = [state.tasks.all[place].cpv for place in state.running]
    ended, _ = core.schedule(state, events.Finished(1.0, cpv, core.Verdict.BUILT))
    hands.done = Future()
    lender.lend(ended)
    assert not any(pool.packages for pool in hands.told.values())
    hands.told.clear()
    lender.lend(state)
    assert not hands.told
    hands.done.set_result(None)
    lender.lend(state)
    assert any(pool.packages for pool in hands.told.values())


def test_a_host_that_comes_anew_is_reached_anew(lender: Lender, hands: Hands) -> None:
    state = running("a", "b")
    for name in "ab":
        lender.offered(name, OFFER)
    settled(lender, state)
    lender.offered("b", replace(OFFER, port=4000))
    settled(lender, state)
    assert [hands.measured.get(timeout=10) for _ in range(4)].count(("a", "b")) == 2
    (own,) = [member for member in hands.told["b"].members if member.name == "b"]
    assert own.port == 4000


def test_a_host_that_went_compiles_for_nobody(lender: Lender, hands: Hands) -> None:
    for name in "ab":
        lender.offered(name, OFFER)
    settled(lender, running("a", "b"))
    lender.lend(running("a"))
    assert list(slots(hands.told["a"])) == ["a"]


def test_who_does_not_compile_for_others_is_said_once(lender: Lender, hands: Hands, warned: list[str]) -> None:
    state = running("a", "b", "odd", "cut")
    hands.unreached = {"b"}
    for name in ("a", "b", "cut"):
        lender.offered(name, OFFER)
    lender.offered("odd", replace(OFFER, signature="another"))
    settled(lender, state)
    lender.lend(state)
    assert list(slots(hands.told["a"])) == ["a"]
    assert warned.count("odd does not compile for others: its compiler is not the nodes' own") == 1
    assert "cut does not compile for others: a does not reach it: there is no way from a to cut" in warned
    assert "b does not compile for others: a does not reach it: a line was not compiled within 60 s" in warned


def test_it_goes_by_what_it_sees_until_it_is_left(lender: Lender, hands: Hands) -> None:
    with lender:
        for name in "ab":
            lender.offered(name, OFFER)
        lender.saw(running("a", "b"), 0.0)
        assert eventually(lambda: len(hands.told) == 2 and len(hands.told["a"].members) == 2)


def test_of_a_host_without_nodes_all_processors_are_lent_while_it_is_there(lender: Lender, hands: Hands) -> None:
    helping = {"smithy"}
    lender.helpers = lambda: helping
    state = running("a", packages=1)
    lender.offered("a", replace(OFFER, cores=1))
    lender.offered("smithy", replace(OFFER, cores=16))
    settled(lender, state)
    assert hands.measured.get(timeout=10) == ("a", "smithy")
    assert slots(hands.told["a"]) == {"a": 1, "smithy": 2}
    assert hands.measured.empty()
    assert "smithy" not in hands.told  # it has nobody to tell
    helping.clear()
    lender.lend(state)
    assert slots(hands.told["a"]) == {"a": 1}


def test_the_compiler_of_hosts_without_nodes_is_not_the_nodes_own(
    lender: Lender, hands: Hands, warned: list[str]
) -> None:
    lender.helpers = lambda: {"b", "c"}
    lender.offered("a", OFFER)
    for name in "bc":
        lender.offered(name, replace(OFFER, signature="another"))
    settled(lender, running("a"))
    assert list(slots(hands.told["a"])) == ["a"]
    assert sorted(warned) == [
        f"{name} does not compile for others: its compiler is not the nodes' own" for name in "bc"
    ]


def test_hosts_without_nodes_are_the_first_to_be_reached(lender: Lender, hands: Hands) -> None:
    names = [f"h{number}" for number in range(10)]
    lender.helpers = lambda: {"smithy"}
    for name in names:
        lender.offered(name, replace(OFFER, cores=2))
    lender.offered("smithy", replace(OFFER, cores=2))
    settled(lender, running(*names))
    assert {mine for mine, other in lender._ways if other == "smithy"} == set(names)


def test_why_a_host_has_nothing_is_said(lender: Lender, warned: list[str]) -> None:
    lender.refused("smithy", "the arm64 stage is not there")
    assert warned == ["smithy does not compile for others: the arm64 stage is not there"]


def test_what_hosts_lend_each_other_raises_how_many_jobs_a_package_may_have(lender: Lender) -> None:
    state = running("a", "b", packages=2)
    for name in "ab":
        lender.offered(name, replace(OFFER, cores=8))
    assert lender.compiles.lent() == 0
    settled(lender, state)
    assert lender.compiles.lent() == 1 + 2 * 7
