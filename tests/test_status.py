"""`cluster status` and `cluster explain` over what builds have published: a running, an ended and a killed one."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from test_cli import Cluster, Ended, cluster
from test_schedule import TWO, begin, built, task

from cluster.errors import InputError
from cluster.host.runs import Run
from cluster.master import bulletin
from cluster.master.bulletin import Bulletin, Past, Phase, Publisher
from cluster.master.schedule import core
from cluster.master.schedule.events import Drained, Finished, Joined, Left, Resumed
from cluster.master.schedule.hosts import THIS_MACHINE, Exclusion, Host, Why
from cluster.master.schedule.outlook import outlook
from cluster.master.schedule.saved import save
from cluster.master.schedule.simulation import Stay
from cluster.master.schedule.state import State
from cluster.master.standing import HostStanding, Life, Stage, Standing, having, standing
from cluster.model import Cpv, Verdict

__all__ = ["cluster"]  # the fixture

ZLIB, PNG, GZIP, VIRTUAL = (
    Cpv(f"{name}-1.2") for name in ("sys-libs/zlib", "media-libs/libpng", "app-arch/gzip", "dev-libs/gzip")
)
MIDNIGHT = time.mktime((2026, 5, 4, 0, 0, 0, 0, 0, -1))

# A build that publishes once and then waits to be killed.
MASTER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_schedule import ONE, begin, task
from cluster.master.bulletin import Publisher
from cluster.host.runs import Run
state = Path(sys.argv[1])
run = Run(state)
publisher = Publisher(state / "status", "killed", run.directory.name, lambda end: None)
publisher.saw(begin(task("sys-libs/zlib-1.2"), task("media-libs/libpng-1.2", "sys-libs/zlib-1.2"), on=ONE)[0], 0.0)
print("ready", flush=True)
time.sleep(60)
"""


def a_state() -> State:
    """One package is built, two are being built, one waits."""
    some = (task(ZLIB, seconds=600.0), task(PNG, ZLIB, seconds=1200.0), task(GZIP, seconds=900.0), task(VIRTUAL, PNG))
    state, _ = begin(*some, on=TWO)
    return built(state, ZLIB, 660.0)[0]


def a_bulletin(name: str = "arm64", run: str = "", began: float = MIDNIGHT, **more: object) -> Bulletin:
    past = (Past(Stay("node-1", ZLIB, 0.0, 660.0, Verdict.BUILT), 600.0),)
    phases = {"node-1": Phase("compile", 700.0)}
    ahead = outlook(a_state(), 720.0)
    values = {"at": 720.0, "over": "", "first_end": 1810.0, "state": save(a_state()), "ahead": ahead}
    values |= {"past": past, "phases": phases}
    return Bulletin(name, run, began, **{**values, **more})  # type: ignore[arg-type]


def running(**more: object) -> Standing:
    return standing(a_bulletin(**more), True, MIDNIGHT + 720.0)  # type: ignore[arg-type]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def live(state: Path) -> Iterator[Run]:
    with Run(state) as run:
        yield run


def asked(cluster: Cluster, state: Path, *words: str) -> Ended:
    return cluster(*words, "--state", state)


# The standing of a run.


def test_packages_are_counted_by_where_they_are() -> None:
    counts = running().counts()
    assert {stage.value: count for stage, count in counts.items() if count} == {"building": 2, "waiting": 1, "built": 1}
    state, _ = core.schedule(a_state(), Finished(700.0, PNG, Verdict.FAILED))
    counts = running(state=save(state)).counts()
    assert (counts[Stage.FAILED], counts[Stage.BLOCKED]) == (1, 1)


def test_every_package_has_a_start_and_an_end() -> None:
    run = running()
    assert {cpv: run.span(cpv) for cpv in (ZLIB, PNG, GZIP, VIRTUAL)} == {
        ZLIB: (0.0, 660.0),
        PNG: (660.0, 1860.0),
        GZIP: (0.0, 900.0),
        VIRTUAL: (1860.0, 1870.0),
    }
    assert run.end is not None
    assert run.end.at == 1870.0


def test_ends_are_stretched_by_what_finished_packages_took() -> None:
    past = tuple(Past(Stay("node-1", ZLIB, 0.0, seconds, Verdict.BUILT), 100.0) for seconds in (100.0, 200.0, 300.0))
    run = running(past=past)
    assert run.end is not None
    assert (run.end.at, run.end.earliest, run.end.latest) == (
        pytest.approx(720.0 + 2.0 * 1150.0),
        pytest.approx(720.0 + 1.2 * 1150.0),
        pytest.approx(720.0 + 2.8 * 1150.0),
    )
    assert run.span(GZIP)[1] == pytest.approx(720.0 + 2.0 * 180.0)


def test_a_run_that_is_over_promises_nothing() -> None:
    for over, lives, life in (
        ("ended", True, Life.ENDED),
        ("interrupted", False, Life.INTERRUPTED),
        ("", False, Life.KILLED),
    ):
        run = standing(a_bulletin(over=over), lives, MIDNIGHT + 5000.0)
        assert (run.life, run.now, run.end) == (life, 720.0, None)
        assert run.span(VIRTUAL) == (None, None)


def test_a_package_is_found_by_its_name_its_category_or_its_version() -> None:
    for name in ("zlib", "sys-libs/zlib", "sys-libs/zlib-1.2", "=sys-libs/zlib-1.2"):
        ((_, cpv),) = having(name, [running()])
        assert cpv == ZLIB
    with pytest.raises(InputError, match=f"gzip may be {GZIP} or {VIRTUAL}: name one, as {GZIP}"):
        having("gzip", [running()])
    with pytest.raises(InputError, match="nothing is in no build that is known"):
        having("nothing", [running()])


def of(state: State) -> dict[str, object]:
    """What a bulletin says of `state`."""
    return {"state": save(state), "ahead": outlook(state, 720.0), "past": (), "phases": {}}


FARM = tuple(Host(name, (f"{name}:1", f"{name}:2")) for name in ("alpha", "beta", "delta", "gamma"))
WHY = "what failed or was lost there was built elsewhere: app-arch/gzip-1.2"


def a_state_of_hosts() -> State:
    """Two packages are being built by two of four hosts, and three are given nothing more."""
    on = tuple(replace(host, speed=speed) for host, speed in zip(FARM, (4.0, 3.0, 2.0, 1.0), strict=True))
    state, _ = begin(*(task(cpv, seconds=600.0) for cpv in (ZLIB, PNG, GZIP)), on=on)
    for event in (
        Drained(10.0, "beta", Exclusion(Why.DRAINED, "asked to")),
        Drained(20.0, "delta", Exclusion(Why.QUARANTINED, WHY)),
        Left(30.0, "gamma", reason="its connection broke"),
    ):
        state, _ = core.schedule(state, event)
    return state


def test_hosts_are_building_or_idle_or_given_nothing_for_a_reason() -> None:
    alpha, beta, delta, gamma = running(**of(a_state_of_hosts())).hosts()
    assert alpha == HostStanding("alpha", "building", "", 2, (ZLIB, PNG))
    assert beta == HostStanding("beta", "drained", "asked to", 2, (GZIP,))
    assert delta == HostStanding("delta", "quarantined", WHY, 2, ())
    assert gamma == HostStanding("gamma", "gone", "its connection broke", 0, ())


def test_a_host_that_is_resumed_or_comes_back_is_idle() -> None:
    state = a_state_of_hosts()
    for event in (Resumed(40.0, "delta"), Joined(50.0, FARM[3])):
        state, _ = core.schedule(state, event)
    assert [(host.name, host.state, host.nodes) for host in running(**of(state)).hosts()[2:]] == [
        ("delta", "idle", 2),
        ("gamma", "idle", 2),
    ]


# The verbs.


def test_a_running_build_says_what_it_does_and_when_it_ends(cluster: Cluster, state: Path, live: Run) -> None:
    began = time.time() - 720.0
    bulletin.write(state / "status", a_bulletin(run=live.directory.name, began=began))
    said = asked(cluster, state, "status")
    assert said.code == 0
    assert re.search(
        r"^arm64: building since \S+.*, ends about .* \(in 19\.\d min; at first .* was expected\)", said.out
    )
    assert "2 building, 0 ready, 1 waiting, 0 blocked, 1 built, 0 failed of 4" in said.out
    assert re.search(rf"node-1 +{PNG} +compile +6\d s +20\.0 min +19\.0 min", said.out)
    (run,) = asked(cluster, state, "status", "--json").json["runs"]
    assert (run["name"], run["life"]) == ("arm64", "running")
    assert run["end"]["at"] == pytest.approx(began + 1870.0)
    assert run["first_end"] == pytest.approx(began + 1810.0)
    assert run["packages"][VIRTUAL]["start"] == pytest.approx(began + 1860.0)
    assert {node["node"]: (node["package"], node["phase"]) for node in run["nodes"]} == {
        "node-1": (PNG, "compile"),
        "node-2": (GZIP, None),
    }


def test_a_build_on_hosts_says_how_they_stand(cluster: Cluster, state: Path, live: Run) -> None:
    bulletin.write(
        state / "status", a_bulletin(run=live.directory.name, began=time.time() - 720.0, **of(a_state_of_hosts()))
    )
    said = asked(cluster, state, "status").out
    assert re.search(rf"alpha +building +2 +2 +{ZLIB}, {PNG}", said)
    assert re.search(rf"beta +drained +2 +1 +{GZIP}", said)
    assert re.search(r"gamma +gone +0", said)
    assert "  beta is drained: asked to\n" in said
    assert f"  delta is quarantined: {WHY}\n" in said
    assert "  gamma is gone: its connection broke\n" in said
    (run,) = asked(cluster, state, "status", "--json").json["runs"]
    assert run["hosts"][1] == {
        "name": "beta",
        "state": "drained",
        "reason": "asked to",
        "nodes": 2,
        "packages": [GZIP],
    }


def test_a_build_on_this_machine_alone_does_not_speak_of_hosts(cluster: Cluster, state: Path, live: Run) -> None:
    here, _ = begin(task(ZLIB), on=(Host(THIS_MACHINE, ("node-1",), trusted=True),))
    bulletin.write(state / "status", a_bulletin(run=live.directory.name, began=time.time(), **of(here)))
    said = asked(cluster, state, "status")
    assert "node-1" in said.out
    assert "host" not in said.out
    assert THIS_MACHINE not in said.out
    assert asked(cluster, state, "status", "--json").json["runs"][0]["hosts"][0]["name"] == THIS_MACHINE


def test_explain_says_why_and_until_when(cluster: Cluster, state: Path, live: Run) -> None:
    bulletin.write(state / "status", a_bulletin(run=live.directory.name, began=time.time() - 720.0))
    said = asked(cluster, state, "explain", "dev-libs/gzip").out
    assert said.startswith(f"arm64: {VIRTUAL}: waiting since ")
    assert f"for {PNG} (building on node-1, 5% of its usual time); to be built from about " in said
    assert "compile, 5% of its usual time; ends about " in asked(cluster, state, "explain", "libpng").out
    found = asked(cluster, state, "explain", VIRTUAL, "--json").json
    (run,) = found["runs"]
    assert (found["package"], run["stage"], run["reason"]["kind"]) == (VIRTUAL, "waiting", "waiting")
    assert (run["reason"]["need"], run["reason"]["need_now"]["kind"]) == (PNG, "building")
    assert run["sentence"].startswith("waiting since")


def test_a_build_that_was_killed_says_so_and_when_it_was_last_heard_of(cluster: Cluster, state: Path) -> None:
    words = [sys.executable, "-c", MASTER, str(state), str(Path(__file__).parent)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert asked(cluster, state, "status").out.startswith("killed: building since ")
        process.kill()
    assert " and was killed; the last that is known of it is from " in asked(cluster, state, "status").out
    said = asked(cluster, state, "explain", "libpng").out
    assert re.match(rf"killed: {PNG}: its build was killed and last heard of at \S+, when it was: waiting since ", said)
    (run,) = asked(cluster, state, "status", "--json").json["runs"]
    assert (run["life"], run["end"]) == ("killed", None)


def test_a_build_that_has_ended_says_how_and_comes_after_what_goes_on(cluster: Cluster, state: Path, live: Run) -> None:
    with Publisher(state / "status", "a", "run-gone", lambda end: None) as publisher:
        publisher.saw(a_state(), 720.0)
    bulletin.write(state / "status", a_bulletin("b", "run-gone", over="interrupted"))
    bulletin.write(state / "status", a_bulletin("c", live.directory.name, began=time.time() - 720.0))
    lines = [line for line in asked(cluster, state, "status").out.splitlines() if re.match("[abc]: ", line)]
    assert [line[0] for line in lines] == ["c", "a", "b"]
    assert " and ended at " in lines[1]
    assert lines[2].endswith("00:12, after 12.0 min")
    said = asked(cluster, state, "explain", "zlib").out.splitlines()
    assert [line.partition(" built at ")[0] for line in said] == [f"{name}: {ZLIB}:" for name in "cab"]


def test_where_nothing_was_built_there_is_nothing_to_say(cluster: Cluster, state: Path) -> None:
    assert asked(cluster, state, "status").out == f"No build is known in {state}\n"
    assert asked(cluster, state, "status", "--json").json == {"runs": []}
    assert asked(cluster, state, "explain", "zlib").complaint.startswith(f"no build is known in {state}: ")
    assert not state.exists()


def test_a_package_that_cannot_be_told_is_one_line(cluster: Cluster, state: Path) -> None:
    bulletin.write(state / "status", a_bulletin())
    assert asked(cluster, state, "explain", "gzip").complaint.startswith(f"gzip may be {GZIP} or {VIRTUAL}: ")
    assert asked(cluster, state, "explain", "nothing").complaint.startswith("nothing is in no build that is known: ")
    assert asked(cluster, state, "explain", "a b").complaint.startswith("'a b' is not a package: ")
