"""What a person and a program are told."""

from __future__ import annotations

import io
import itertools
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from factories import failure, package, plan
from rich.console import Console

from cluster import report
from cluster.model import Action, Compiles, Cpv, Job, Outcome, Plan, Result, Served, Verdict

A, B, C, D = (Cpv(f"cat/{name}-1") for name in "abcd")

_SILENT_S = 5.0
NOON = time.mktime((2026, 5, 4, 12, 0, 0, 0, 0, -1))


def a_plan() -> Plan:
    return plan(
        package(A, action=Action.SKIP, reason="in the binhost", slot="0/1"),
        package(B, A, use=("icu",), iuse=("icu", "test"), requested=True),
        package(C, A, B),
        package(D),
    )


BINHOST = Path("/binhost/arm64")


def a_result() -> Result:
    return Result(
        a_plan(),
        (
            Outcome(A, Verdict.SKIPPED, reason="in the binhost"),
            failure(B, reason="configure failed [with brackets]"),
            Outcome(C, Verdict.BLOCKED, reason=f"needs {B}, which failed"),
            Outcome(
                D,
                Verdict.BUILT,
                node="node-2",
                attempt=2,
                phases=(("compile", 9.0),),
                compiles=Compiles(90, 4, 0, host=7, cached=3),
            ),
        ),
        55.25,
        BINHOST,
    )


def text_console() -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, width=80), stream


# JSON.


def test_plan_json_is_the_contract() -> None:
    said = json.loads(json.dumps(report.plan_json(a_plan())))
    assert list(said) == ["target", "repositories", "packages", "order", "left_out", "warnings"]
    assert said["repositories"] == [{"name": "test", "location": "/repo", "revision": ""}]
    assert said["target"] == "arm64"
    assert said["order"] == [A, B, C, D]
    assert said["packages"][0] == {
        "cpv": A,
        "use": [],
        "slot": "0/1",
        "action": "skip",
        "reason": "in the binhost",
        "requires": [],
    }
    assert said["packages"][1]["use"] == ["icu"]
    assert said["packages"][2]["requires"] == [A, B]


def test_build_json_is_the_contract() -> None:
    said = json.loads(json.dumps(report.build_json(a_result())))
    assert set(said) == {
        "built",
        "failed",
        "lost",
        "blocked",
        "skipped",
        "compiles",
        "distcc",
        "seconds",
        "packages",
        "left_out",
        "warnings",
    }
    assert (said["built"], said["failed"], said["lost"], said["blocked"], said["skipped"]) == ([D], [B], [], [C], [A])
    assert said["compiles"] == asdict(Compiles(93, 5, 2, host=7, cached=3))
    assert said["seconds"] == 55.25
    assert list(said["packages"]) == [A, B, C, D]
    failed = said["packages"][B]
    assert failed["node"] == "node-1"
    assert failed["phases"] == {"boot": 7.0, "configure": 30.0}
    assert failed["compiles"] == asdict(Compiles(3, 1, 2))
    assert failed["log"] == "/logs/b.log"
    assert failed["reason"] == "configure failed [with brackets]"
    assert said["packages"][C]["log"] is None
    assert said["packages"][D]["attempt"] == 2


# The summary.


def test_summary_names_what_failed_and_what_that_blocks() -> None:
    console, stream = text_console()
    report.summary(console, a_result())
    lines = stream.getvalue().splitlines()
    assert f"failed {B}: configure failed [with brackets] (log: /logs/b.log)" in lines
    assert f"blocked {C}: needs {B}, which failed" in lines
    assert f"1 built, 1 failed, 1 blocked, 1 skipped in 55 s; compiles: {Compiles(93, 5, 2, 7, 3)}" in lines
    assert "binhost: /binhost/arm64" in lines


def pooled_result() -> Result:
    served = ((Served("b", 40, 0, 2.5, 900), Served("a", 100, 2)), (Served("a", 20, seconds=1.5, wire_bytes=100),))
    outcomes = tuple(Outcome(cpv, Verdict.BUILT, served=hosts) for cpv, hosts in zip((B, D), served, strict=True))
    return Result(a_plan(), outcomes, 55.25, BINHOST)


def test_summary_says_which_hosts_compiled() -> None:
    console, stream = text_console()
    report.summary(console, pooled_result())
    assert "distcc: a 120 (2 failed), b 40" in stream.getvalue().splitlines()


def test_summary_says_nothing_of_a_pool_where_there_is_none() -> None:
    console, stream = text_console()
    report.summary(console, a_result())
    assert "distcc:" not in stream.getvalue()


def test_build_json_says_which_hosts_compiled_of_all_and_of_each_package() -> None:
    said = report.build_json(pooled_result())
    assert said["distcc"] == {
        "a": {"compiled": 120, "failed": 2, "seconds": 1.5, "wire_bytes": 100},
        "b": {"compiled": 40, "failed": 0, "seconds": 2.5, "wire_bytes": 900},
    }
    assert said["packages"][D]["distcc"] == {"a": {"compiled": 20, "failed": 0, "seconds": 1.5, "wire_bytes": 100}}
    assert report.build_json(a_result())["distcc"] == {}


def test_summary_of_nothing_to_build() -> None:
    console, stream = text_console()
    skipped = plan(package(A, action=Action.SKIP))
    report.summary(console, Result(skipped, (Outcome(A, Verdict.SKIPPED),), 0.1, BINHOST))
    assert stream.getvalue() == "Nothing to build: all 1 packages are in the binhost /binhost/arm64\n"


def test_summary_cuts_no_name_when_it_is_piped() -> None:
    name = Cpv("sys-apps/a-package-with-a-name-of-some-length-20240101-r12")
    console, stream = text_console()
    report.summary(
        console,
        Result(plan(package(name)), (Outcome(name, Verdict.BUILT, node="node-1", seconds=1234.0),), 1.0, BINHOST),
    )
    assert name in stream.getvalue()


def test_plan_table_names_every_package_and_its_flags() -> None:
    console, stream = text_console()
    report.plan_table(console, a_plan())
    said = stream.getvalue()
    assert all(cpv in said for cpv in (A, B, C, D))
    assert "icu -test" in said
    assert "3 to build, 1 in the binhost already" in said


# Progress where there is no terminal.


class Clock:
    """Says what time it is, and has time pass."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@dataclass
class Patience:
    """Takes the place of the event that the heartbeat waits for: each wait passes at once, `times` of them."""

    clock: Clock
    times: int
    waited: list[float] = field(default_factory=list)

    def wait(self, seconds: float) -> bool:
        if len(self.waited) == self.times:
            return True
        self.clock.now += seconds
        self.waited.append(seconds)
        return False


class Watched:
    """A reporter on a file, with a clock of its own; `said` are its lines and when they came."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.said: list[tuple[float, str]] = []
        self.console = Console(file=self, width=200)  # type: ignore[arg-type]
        self.reporter = report.Reporter(self.console)

    def write(self, text: str) -> int:
        self.said += [(self.clock.now, line) for line in text.splitlines() if line]
        return len(text)

    def flush(self) -> None:
        pass

    def beat(self, seconds: int) -> list[str]:
        """Let the heart beat for so long; returns what it said."""
        before = len(self.said)
        self.reporter._ended = Patience(self.clock, seconds)  # type: ignore[assignment]
        self.reporter._beat()
        return [line for _, line in self.said[before:]]

    def longest_silence(self) -> float:
        times = [when for when, _ in self.said] + [self.clock.now]
        return max(after - before for before, after in itertools.pairwise(times))


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    clock = Clock()
    monkeypatch.setattr(report, "time", SimpleNamespace(monotonic=clock.monotonic, time=lambda: NOON))
    return Watched(clock)


def test_heartbeat_names_the_step_it_waits_for(watched: Watched) -> None:
    watched.reporter.step("unpacking [the] kernel")
    said = watched.beat(60)
    assert said[0].strip() == "unpacking [the] kernel: 4 s"
    assert said[-1].strip() == "unpacking [the] kernel: 60 s"
    assert watched.longest_silence() <= _SILENT_S


def test_heartbeat_names_what_each_node_does(watched: Watched) -> None:
    reporter = watched.reporter
    reporter.step("starting distccd")
    reporter.start(a_plan())
    reporter.dispatched(Job(package(B), 1), "node-1")
    reporter.dispatched(Job(package(D), 1), "node-2")
    reporter.entered("node-1", "configure")
    watched.clock.now += 2
    reporter.entered("node-2", "compile")
    said = watched.beat(2)
    assert [line.strip() for line in said] == [f"0 of 3 done; node-1 {B} configure 4 s; node-2 {D} compile 2 s"]
    reporter.ended(Outcome(D, Verdict.BUILT, node="node-2"))
    said = watched.beat(4)
    assert [line.strip() for line in said] == [f"1 of 3 done; node-1 {B} configure 8 s"]


def test_heartbeat_says_when_all_is_expected_to_be_done(watched: Watched) -> None:
    watched.reporter.start(a_plan())
    watched.reporter.dispatched(Job(package(B), 1), "node-1")
    watched.reporter.expect(NOON + 90 * 60)
    assert watched.beat(4)[0].strip() == f"0 of 3 done, about 13:30; node-1 {B} starting 4 s"


def test_a_second_round_is_counted_from_its_own_beginning(watched: Watched) -> None:
    watched.reporter.start(a_plan())
    watched.reporter.expect(NOON)
    watched.reporter.ended(Outcome(B, Verdict.BUILT, node="node-1"))
    watched.reporter.start(plan(package(D)))
    watched.reporter.dispatched(Job(package(D), 1), "node-1")
    assert watched.beat(4)[0].strip() == f"0 of 1 done; node-1 {D} starting 4 s"


def test_heartbeat_is_quiet_while_there_is_other_news_and_when_nothing_goes_on(watched: Watched) -> None:
    watched.reporter.step("making the stage")
    for _ in range(5):
        assert watched.beat(2) == []
        watched.reporter.warn("something")
    watched.reporter.start(a_plan())
    assert watched.beat(30) == []


def test_a_lost_package_is_not_done_and_its_next_attempt_is_shown(watched: Watched) -> None:
    reporter = watched.reporter
    reporter.start(a_plan())
    reporter.dispatched(Job(package(B), 1), "node-1")
    reporter.ended(Outcome(B, Verdict.LOST, node="node-1", reason="the console fell silent"))
    reporter.dispatched(Job(package(B), 2), "node-1")
    lines = [line for _, line in watched.said]
    assert f"   lost {B}  the console fell silent" in lines
    assert f"node-1: {B} starts (attempt 2)" in lines
    assert watched.beat(4)[0].strip().startswith("0 of 3 done; ")


def test_a_step_that_ends_with_an_error_is_not_ticked_off(watched: Watched) -> None:
    with pytest.raises(RuntimeError), watched.reporter:
        watched.reporter.step("one")
        watched.reporter.step("two")
        raise RuntimeError
    lines = [line for _, line in watched.said]
    assert lines == ["… one", "✓ one 0 s", "… two", "✗ two 0 s"]


def test_a_first_round_is_told_before_the_second() -> None:
    first = Result(
        plan(package(B)), (Outcome(B, Verdict.BUILT, node="node-1", seconds=9.0),), 9.0, Path("/binhost/first")
    )
    second = Result(plan(package(A)), (Outcome(A, Verdict.BUILT, node="node-1", seconds=5.0),), 14.0, BINHOST, first)
    console, stream = text_console()
    report.summary(console, second)
    said = stream.getvalue()
    places = [said.index(words) for words in ("The first round:", B, "binhost: /binhost/first", "The second", A)]
    assert places == sorted(places)
    assert report.build_json(second)["first"]["built"] == [B]
    both = plan(package(A), first=plan(package(B, reason="breaks a circle with -x")))
    assert report.plan_json(both)["first"]["order"] == [B]
    console, stream = text_console()
    report.plan_reasons(console, both)
    assert stream.getvalue().splitlines()[:2] == [
        "First, into a binhost of their own:",
        f"build {B}: breaks a circle with -x",
    ]


def test_a_failed_first_round_fails_the_whole() -> None:
    first = Result(plan(package(B)), (failure(B),), 9.0, BINHOST)
    assert Result(plan(package(A)), (Outcome(A, Verdict.SKIPPED),), 9.0, BINHOST, first).exit_code == 2
