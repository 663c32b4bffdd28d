"""The chart of a run, and what its end waited for."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.drawing import gantt
from cluster.master import trial
from cluster.master.schedule import critical, hosts, tasks
from cluster.master.schedule.tasks import Task
from cluster.model import Cpv

SVG = "{http://www.w3.org/2000/svg}"
A, B, C, LONG = (Cpv(f"cat/{name}-1") for name in ("a", "b", "c", "long"))
SOME = tasks.of([Task(A, 10.0), Task(B, 20.0, (A,)), Task(C, 5.0, (A,)), Task(LONG, 12.0)])


def drawn(mix: str, upset: trial.Upset = trial.CALM, some: tasks.Tasks = SOME) -> ElementTree.Element:
    on = hosts.parse(mix)
    return ElementTree.fromstring(gantt.svg(trial.run("ours", some, on, upset), on, "a <title>"))


def classes(svg: ElementTree.Element) -> dict[str, list[str]]:
    """The classes of the bars of each package."""
    found: dict[str, list[str]] = {}
    for bar in svg.iter(f"{SVG}rect"):
        title = bar.find(f"{SVG}title")
        if title is not None and title.text:
            found.setdefault(title.text.partition("\n")[0], []).append(bar.attrib["class"])
    return found


def test_every_build_is_a_bar_and_what_the_end_waited_for_is_marked() -> None:
    bars = classes(drawn("2x1"))
    assert set(bars) == {A, B, C, LONG}
    assert {cpv for cpv, (one,) in bars.items() if "chained" in one} == {A, B}


def test_lost_nodes_and_hosts_that_left_are_seen() -> None:
    disturbed = drawn("4x1", trial.Upset(fail_rate=0.5, spot_loss=0.5, seed=3))
    assert any("lost" in one for bars in classes(disturbed).values() for one in bars)
    texts = [text.text for text in disturbed.iter(f"{SVG}text")]
    assert "lost its node" in texts
    assert "the host has left" in texts
    assert len([one for one in disturbed.iter(f"{SVG}rect") if one.attrib.get("class") == "away"]) > 1


def test_nodes_of_one_speed_stand_together_the_fastest_first() -> None:
    texts = [text.text or "" for text in drawn("1x1,1x4.0,2x1").iter(f"{SVG}text")]
    headings = [text for text in texts if text.startswith("speed")]
    assert [text.partition(", busy")[0] for text in headings] == ["speed 4: 1 node", "speed 1: 3 nodes"]


def test_many_nodes_have_thin_rows_without_names() -> None:
    svg = drawn("400x1")
    assert float(svg.attrib["height"]) < 2000
    assert "1@1" not in [text.text for text in svg.iter(f"{SVG}text")]


def test_names_are_only_text() -> None:
    name = Cpv('cat/<b>"&-1')
    assert set(classes(drawn("1x1", some=tasks.of([Task(name, 1.0)])))) == {name}


def test_nothing_to_build_is_an_empty_chart() -> None:
    assert classes(drawn("1x1", some=tasks.of([]))) == {}


@pytest.mark.parametrize(
    ("end", "first"), [(9, "1 s"), (100, "10 s"), (600, "1 min"), (17513, "30 min"), (40000, "1 h"), (9e6, "14 d")]
)
def test_ticks_are_steps_that_a_person_counts_in(end: float, first: str) -> None:
    found = gantt.ticks(end)
    assert [found[0].label, found[1].label] == ["0", first]
    assert len(found) <= 13
    assert found[-1].at <= end


@given(st.integers(0, 99), st.sampled_from(["1x1", "2x1", "1x3,2x1"]), st.sampled_from([0.0, 0.5]))
def test_the_chain_leads_from_the_start_to_the_end_without_overlap(seed: int, mix: str, fail_rate: float) -> None:
    found = trial.run("dpb", SOME, hosts.parse(mix), trial.Upset(fail_rate=fail_rate, seed=seed))
    chain = critical.chain(found.trace)
    assert chain[-1].until == found.makespan_s
    assert chain[0].since == 0.0
    assert all(one.until <= after.since for one, after in pairwise(chain))
