"""What more hosts would bring."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import advicetable, cli
from cluster.errors import InputError
from cluster.master.schedule import advice, hosts, tasks
from cluster.master.schedule.advice import Kind
from cluster.master.schedule.tasks import Task, Tasks
from cluster.model import Cpv
from cluster.options import seconds

SLOW, FAST = Kind(1.0, 0.1), Kind(4.0, 1.0)


def chain(*seconds: float, beside: int = 0) -> Tasks:
    """Packages of which each needs the one before, and some of 1 s that need nothing."""
    names = [Cpv(f"cat/c{number}-1") for number in range(len(seconds))]
    linked = [
        Task(cpv, took, tuple(names[:at][-1:])) for at, (cpv, took) in enumerate(zip(names, seconds, strict=True))
    ]
    return tasks.of([*linked, *(Task(Cpv(f"cat/x{number}-1"), 1.0) for number in range(beside))])


def test_a_chain_is_to_blame_and_only_a_faster_node_helps() -> None:
    todo, two = chain(100.0, 200.0, 60.0, beside=5), hosts.parse("2x1")
    found = advice.advise(todo, two, [SLOW, FAST])
    assert found.end_s == found.bound_s == found.longest_s == 360.0
    assert found.longest == tuple(link.cpv for link in found.blame) == ("cat/c0-1", "cat/c1-1", "cat/c2-1")
    assert [link.waited_for for link in found.blame] == ["", "need", "need"]
    assert [advice.saves(found, mix) for mix in found.one_more] == [0.0, 270.0]
    said = "\n".join(advicetable.sentences(advicetable.Answer(two, len(todo), 0, found)))
    assert "A chain of 3 packages is what it waits for" in said
    assert "One node more at 1x saves nothing.\nOne node more at 4x saves 4.5 min." in said


def test_too_few_nodes_are_to_blame_where_all_are_busy() -> None:
    todo, two = chain(beside=40), hosts.parse("2x1")
    found = advice.advise(todo, two, [SLOW])
    assert found.end_s == 20.0
    assert found.idle == 0.0
    assert {link.waited_for for link in found.blame} == {"", "node"}
    assert found.one_more[0].end_s == 14.0
    assert "Nodes are what it waits for" in "\n".join(advicetable.sentences(advicetable.Answer(two, 40, 0, found)))


def test_a_deadline_takes_the_fewest_nodes_that_keep_it() -> None:
    todo, one = chain(beside=40), hosts.parse("1x1")
    mix = advice.in_time(todo, one, SLOW, 10.0)
    assert mix is not None
    assert (mix.count, mix.end_s, mix.cost) == (3, 10.0, pytest.approx(3 * 0.1 * 10 / 3600))
    assert advice.in_time(todo, one, SLOW, 40.0) == advice.Mix(SLOW, 0, 40.0, 0.0)


def test_a_deadline_before_the_longest_chain_is_kept_by_no_number_of_nodes() -> None:
    todo, one = chain(100.0, 100.0), hosts.parse("1x1")
    assert advice.in_time(todo, one, SLOW, 199.0) is None
    assert advice.in_time(todo, one, FAST, 50.0) is not None


def test_a_budget_is_never_exceeded() -> None:
    todo, one, dear = chain(beside=60), hosts.parse("1x1"), Kind(1.0, 60.0)  # USD an hour: one for each minute
    mix = advice.within(todo, one, dear, 0.79)
    assert (mix.count, mix.end_s, mix.cost) == (3, 15.0, 0.75)  # four more take 12 s, for 0.80 USD
    assert advice.within(todo, one, dear, 0.1).count == 0


@st.composite
def graphs(draw: st.DrawFn) -> Tasks:
    names = [Cpv(f"cat/p{number}-1") for number in range(draw(st.integers(1, 12)))]
    return tasks.of(
        Task(
            cpv, draw(st.floats(1.0, 50.0)), tuple(draw(st.sets(st.sampled_from(names[:at]), max_size=2))) if at else ()
        )
        for at, cpv in enumerate(names)
    )


@given(graphs(), st.sampled_from(["1x1", "2x1", "1x4,2x1", "3x0.5"]))
def test_the_chain_to_blame_leads_without_a_gap_from_the_end_to_where_nothing_was_waited_for(
    todo: Tasks, mix: str
) -> None:
    trace = advice.play(todo, hosts.parse(mix))
    links = advice.blame(todo, trace)
    assert links[-1].until == trace.end
    assert links[0].waited_for == ""
    for before, after in pairwise(links):
        assert before.until <= after.since
        if after.waited_for == "need":
            assert todo.places[before.cpv] in todo.needs[todo.places[after.cpv]]
        else:
            assert (after.waited_for, before.node) == ("node", after.node)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--kinds", "fast"], "--kinds 'fast' is not SPEED"),
        (["--kinds", "0"], "--kinds '0' is not SPEED"),
        (["--deadline", "soon"], "--deadline 'soon' is no time"),
        (["--budget", "3"], "needs prices"),
        (["--hosts", "2x"], "--hosts '2x' is not COUNTxSPEED"),
        (["--history", "past.csv"], "past.csv cannot be read"),
        (["--graph", "nowhere"], "nowhere cannot be read"),
        (["cat/a", "--graph", "nowhere"], "--graph nowhere and cat/a exclude each other"),
    ],
)
def test_bad_words_get_one_line(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["advise", *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line


def test_times_have_units() -> None:
    assert [seconds(text, "--deadline") for text in ("90m", "1.5h", "2d", "30s")] == [5400.0, 5400.0, 172800.0, 30.0]
    with pytest.raises(InputError, match="90m"):
        seconds("5400", "--deadline")


def test_the_answer_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = tmp_path / "graph"
    graph.write_text("a-1 -> b-1\nc-1\n")
    words = ["--graph", str(graph), "--hosts", "1x1", "--kinds", "1=0.5", "--deadline", "2m", "--budget", "9"]
    assert cli.run(["advise", *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["packages"], found["unknown"], found["end_s"], found["lower_bound_s"]) == (3, 3, 180.0, 180.0)
    assert found["one_more"] == [{"speed": 1.0, "count": 1, "end_s": 120.0, "cost_usd": 0.02, "saves_s": 60.0}]
    assert found["deadline"]["mixes"][0]["count"] == 1
    assert found["budget"]["mixes"][0]["end_s"] == 120.0
    assert found["longest"] == {"packages": ["a-1", "b-1"], "seconds": 120.0}
