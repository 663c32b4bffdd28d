"""What a run publishes of itself, and that it comes back as it was."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from factories import package, plan
from hypothesis import given
from hypothesis import strategies as st
from processes import eventually
from test_dispatch import COMPILES, FakeEngine, FakeProgress, todo
from test_explanation import moments
from test_schedule import ONE, OURS, begin, built, task

from cluster.errors import InputError
from cluster.master import bulletin, dispatch
from cluster.master.bulletin import Bulletin, Past, Phase, Publisher
from cluster.master.schedule import lookahead
from cluster.master.schedule.outlook import outlook
from cluster.master.schedule.saved import restore, save
from cluster.master.schedule.simulation import Stay
from cluster.master.schedule.state import State
from cluster.model import Cpv, Plan, Verdict

PHASES = {"node-1": Phase("x", 0.1)}
A, B, C = (Cpv(f"cat/{name}-1") for name in "abc")


def publisher(directory: Path, ends: list[float] | None = None) -> Publisher:
    return Publisher(directory, "arm64", "run-1", (ends if ends is not None else []).append)


def build(what: Plan, engine: FakeEngine, watcher: Publisher, progress: FakeProgress | None = None) -> None:
    with watcher:
        dispatch.run(
            what,
            engine,
            attempts=2,
            todo=todo(what),
            compiles=COMPILES,
            progress=progress or FakeProgress(),
            record=lambda outcome: None,
            watchers=(watcher,),
        )


@given(moments(st.sampled_from(list(lookahead.candidates()))), st.floats(0.0, 1e9))
def test_a_published_state_comes_back_as_it_was(moment: tuple[State, float], began: float) -> None:
    state, now = moment
    past = (Past(Stay("node-1", A, 0.1, 0.3, Verdict.LOST), 0.2),)
    given_ = Bulletin("arm64", "run-1", began, now, "", float("inf"), save(state), outlook(state, now), past, PHASES)
    with tempfile.TemporaryDirectory() as directory:
        bulletin.write(Path(directory), given_)
        (read,) = bulletin.read(Path(directory))
    restored = restore(read.state)
    assert restored.tasks.all == state.tasks.all
    assert replace(restored, tasks=state.tasks) == state
    assert (read.began, read.at, read.first_end) == (began, now, float("inf"))
    assert (read.ahead, read.past, read.phases) == (given_.ahead, past, PHASES)


def test_a_build_leaves_how_it_ended(tmp_path: Path) -> None:
    engine = FakeEngine({A: (Verdict.LOST, Verdict.BUILT), B: (Verdict.FAILED,)})
    build(plan(package(A), package(B), package(C, B)), engine, publisher(tmp_path))
    (last,) = bulletin.read(tmp_path)
    state = restore(last.state)
    assert (last.name, last.run, last.over) == ("arm64", "run-1", "ended")
    assert {state.tasks.all[place].cpv: verdict for place, verdict in state.ended.items()} == {
        A: Verdict.BUILT,
        B: Verdict.FAILED,
        C: Verdict.BLOCKED,
    }
    stays = sorted((past.stay.cpv, past.stay.verdict.value, past.expected_s) for past in last.past)
    assert stays == [(A, "built", 10.0), (A, "lost", 10.0), (B, "failed", 10.0)]
    assert len(last.ratios) == 1


def test_an_interrupted_build_says_so(tmp_path: Path) -> None:
    engine = FakeEngine({A: ("hang",)})
    with pytest.raises(KeyboardInterrupt):
        build(plan(package(A), package(B)), engine, publisher(tmp_path), FakeProgress(interrupt_at=B))
    (last,) = bulletin.read(tmp_path)
    assert last.over == "interrupted"
    assert restore(last.state).running


def test_bulletins_come_now_and_then_and_always_in_the_end(tmp_path: Path) -> None:
    state, _ = begin(task(A), task(B, A), on=ONE)

    def latest() -> Bulletin:
        (found,) = bulletin.read(tmp_path)
        return found

    with publisher(tmp_path) as watcher:
        watcher.saw(state, 0.0)
        watcher.entered("node-1", "compile")
        watcher.saw(state, 0.5)
        assert (latest().at, latest().phases) == (0.0, {})
        watcher.saw(state, 500.0)
        assert latest().at == 500.0
        assert latest().phases["node-1"].name == "compile"
        state, _ = built(state, A, 500.1)
        watcher.saw(state, 500.1)
        assert latest().past == ()
    assert (latest().at, latest().over, len(latest().past)) == (500.1, "ended", 1)
    assert latest().phases == {}  # it was that of the package before


def test_the_run_is_told_when_it_will_end_and_keeps_what_was_said_first(tmp_path: Path) -> None:
    state, _ = begin(task(A), task(B, A), on=ONE)
    ends: list[float] = []

    def told(state: State, now: float, times: int) -> bool:
        watcher.saw(state, now)
        return len(ends) == times

    with publisher(tmp_path, ends) as watcher:
        assert eventually(lambda: told(state, 0.0, 1))
        later, _ = built(state, A, 500.0)
        assert eventually(lambda: told(later, 500.0, 2))
    (last,) = bulletin.read(tmp_path)
    assert ends == [last.began + 20.0, last.began + 510.0]
    assert (last.first_end, last.ahead.end, set(last.ahead.stays)) == (20.0, 510.0, {B})


def test_a_build_goes_on_where_nothing_can_be_published(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "status").touch()
    engine = FakeEngine()
    with caplog.at_level(logging.WARNING):
        build(plan(package(A)), engine, publisher(tmp_path / "status"))
    assert engine.jobs == [(A, 1)]
    assert "cannot be published" in caplog.text


@pytest.mark.parametrize("text", ["", "{}", '{"name": "arm64"}'])
def test_what_another_version_wrote_is_refused_by_its_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "arm64.json").write_text(text)
    with pytest.raises(InputError, match=r"arm64\.json is not what this version writes"):
        bulletin.read(tmp_path)


def test_a_rule_that_is_not_known_is_refused() -> None:
    state, _ = begin(task(A))
    saved = save(state)
    assert restore(saved).ranking.rule == OURS
    with pytest.raises(InputError, match="there is no rule 'by dice'"):
        restore(replace(saved, rule="by dice"))


def test_nothing_was_published_where_nothing_was_built(tmp_path: Path) -> None:
    assert bulletin.read(tmp_path / "absent") == ()
    with publisher(tmp_path):
        pass
    assert bulletin.read(tmp_path) == ()
