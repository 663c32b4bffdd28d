"""Graphs, hosts and runs for the tests of the schedule."""

from __future__ import annotations

from hypothesis import strategies as st

from cluster.master.schedule import simulation
from cluster.master.schedule.hosts import Host
from cluster.master.schedule.peers import PEERS
from cluster.master.schedule.rules import Earliest
from cluster.master.schedule.state import State
from cluster.master.schedule.tasks import Task
from cluster.model import Cpv

A, B, C, D = (Cpv(f"cat/{name}-1") for name in "abcd")
ONE = (Host("here", ("node-1",)),)
TWO = (Host("here", ("node-1", "node-2")),)
FAST_AND_SLOW = (Host("fast", ("fast",), 4.0), Host("slow", ("slow",), 1.0))
OURS = Earliest()
RULES = st.sampled_from([OURS, Earliest(0.5, 30.0), *PEERS.values()])


def task(cpv: str, *needs: str, seconds: float = 10.0, **more: float | str | bool) -> Task:
    return Task(Cpv(cpv), seconds, tuple(map(Cpv, needs)), **more)  # type: ignore[arg-type]


def run(state: State, **world: object) -> simulation.Trace:
    expected = tuple(one.seconds for one in state.tasks.all)
    return simulation.run(state, simulation.World(**{"seconds": expected, **world}))  # type: ignore[arg-type]


@st.composite
def graphs(draw: st.DrawFn, most: int = 12) -> list[Task]:
    """A random DAG of packages that use some of their host."""
    names = [Cpv(f"cat/p{number}-1") for number in range(draw(st.integers(1, most)))]
    return [
        Task(
            cpv,
            draw(st.floats(0.5, 100.0)),
            tuple(draw(st.sets(st.sampled_from(names[:number]), max_size=3))) if number else (),
            memory_mib=draw(st.sampled_from([0.0, 100.0, 500.0, 2000.0])),
            disk_mib=draw(st.sampled_from([0.0, 300.0])),
            apart=draw(st.sampled_from(["", "", "", "browser"])),
            urgent=draw(st.booleans()),
        )
        for number, cpv in enumerate(names)
    ]


@st.composite
def machines(draw: st.DrawFn) -> tuple[Host, ...]:
    """Some hosts, some of them with little memory."""
    return tuple(
        Host(
            f"host{number}",
            tuple(f"host{number}/{node}" for node in range(draw(st.integers(1, 3)))),
            draw(st.sampled_from([0.5, 1.0, 1.0, 4.0])),
            memory_mib=draw(st.sampled_from([float("inf"), 600.0, 1000.0])),
            disk_mib=draw(st.sampled_from([float("inf"), 400.0])),
        )
        for number in range(draw(st.integers(1, 3)))
    )
