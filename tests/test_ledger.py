"""What is noted of rented hosts' nodes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from scheduling import task

from cluster.master.ec2.ledger import Ledger
from cluster.master.ec2.rental import Instance, Limits, Market, Rental, Rentals
from cluster.master.schedule import core, events, tasks
from cluster.master.schedule.hosts import Host
from cluster.master.schedule.rules import Earliest
from cluster.master.schedule.state import State, ranked
from cluster.model import Verdict

RENTED = Instance("i-0000aaaa", "c7g.large", 0.1, since=0.0)


@pytest.fixture
def rentals(tmp_path: Path) -> Rentals:
    made = Rentals(tmp_path)
    limits = Limits(2, 1.0, 1.0)
    made.save(Rental("run", "here", Market.SPOT, {}, limits, 1.0, 30, "::/0", 0.0, instances=(RENTED,)))
    return made


def begun(ledger: Ledger, host: str) -> State:
    """Two packages on two nodes of `host`, of which the ledger was shown."""
    graph = tasks.of([task("cat/a-1"), task("cat/b-1")])
    nodes = (f"{host}:1", f"{host}:2")
    state = core.start(graph, [Host(host, nodes)], ranked(Earliest(), graph), attempts=2)
    for now, event in ((0.0, None), (5.0, events.Tick(5.0))):
        state = state if event is None else core.schedule(state, event)[0]
        ledger.saw(state, now)
    return state


@pytest.mark.parametrize("verdict", [Verdict.BUILT, Verdict.FAILED, Verdict.LOST])
def test_a_node_that_a_package_left_is_noted_from_its_begin_to_its_end(rentals: Rentals, verdict: Verdict) -> None:
    ledger = Ledger(rentals)
    state, _ = core.schedule(begun(ledger, RENTED.name), events.Finished(25.0, task("cat/a-1").cpv, verdict))
    ledger.saw(state, 25.0)
    ledger.note()
    [span] = rentals.spans("run")
    assert (span.package, span.host) == ("cat/a-1", RENTED.name)
    assert span.seconds == pytest.approx(20.0, abs=1.0)
    assert span.ended == pytest.approx(time.time(), abs=5.0)
    ledger.note()
    assert len(rentals.spans("run")) == 1


def test_what_a_host_takes_with_it_and_what_is_interrupted_is_noted_too(rentals: Rentals) -> None:
    lost, interrupted = Ledger(rentals), Ledger(rentals)
    state, _ = core.schedule(begun(lost, RENTED.name), events.Left(25.0, RENTED.name))
    lost.saw(state, 25.0)
    begun(interrupted, RENTED.name)
    interrupted.close()
    for ledger in (lost, interrupted):
        ledger.note()
    assert sorted(span.package for span in rentals.spans("run")) == ["cat/a-1", "cat/a-1", "cat/b-1", "cat/b-1"]


def test_hosts_that_are_not_rented_are_not_noted(rentals: Rentals) -> None:
    ledger = Ledger(rentals)
    state, _ = core.schedule(begun(ledger, "alpha"), events.Left(25.0, "alpha"))
    ledger.saw(state, 25.0)
    ledger.note()
    assert rentals.spans("run") == ()
