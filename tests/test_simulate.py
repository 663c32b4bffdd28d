"""`cluster simulate` as its users meet it."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from repos import write_repository

from cluster import cli
from cluster.node.installed import write_installed

HISTORY = """\
timestamp,pkgpath,pkgname,outcome,make_jobs,duration,disk_usage
1,cat/a,a-1,success,1,10000,0
1,cat/b,b-1,success,1,20000,0
1,cat/c,c-1,success,1,5000,0
"""
KEYS = {
    *("policy", "hosts", "makespan_s", "lower_bound_s", "ratio", "packages", "lost", "wall_s"),
    *("undisturbed_bound_s", "decisions", "median_decision_ms", "slowest_decision_ms", "unknown", "seed"),
}


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    """A graph with its history."""
    (tmp_path / "graph").write_text("a-1 -> b-1\na-1 -> c-1\nnew-1\n")
    (tmp_path / "history.csv").write_text(HISTORY)
    return ["simulate", "--graph", str(tmp_path / "graph"), "--history", str(tmp_path / "history.csv")]


def test_the_answer_for_programs(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*given, "--hosts", "2x1", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert set(answer) == KEYS
    assert (answer["policy"], answer["hosts"], answer["packages"], answer["unknown"]) == ("ours", "2x1", 4, 1)
    assert (answer["makespan_s"], answer["lower_bound_s"], answer["lost"]) == (60.0, 60.0, 0)


def test_all_policies_are_a_list_and_the_same_again(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = [*given, "--hosts", "1x2,1x1", "--policy", "all", "--json"]
    words += ["--fail-rate", "0.3", "--spot-loss", "0.5", "--estimate-error", "1", "--seed", "7"]
    answers = []
    for _ in range(2):
        assert cli.run(words) == 0
        found = json.loads(capsys.readouterr().out)
        answers.append([{key: one[key] for key in one if not key.endswith(("wall_s", "_ms"))} for one in found])
    assert answers[0] == answers[1]
    assert [one["policy"] for one in answers[0]] == ["ours", "dpb", "hydra", "poudriere", "portage", "random"]


def test_a_person_gets_a_table_and_a_sentence(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*given, "--hosts", "2x1", "--policy", "all"]) == 0
    said = capsys.readouterr().out
    assert "poudriere" in said
    assert "4 packages, 1 of them taken to need 60 s, are built on 2x1 in 60 s by ours, 0.0% more" in said


def test_the_chart_is_written(given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*given, "--hosts", "2x1", "--gantt", str(tmp_path / "run.svg")]) == 0
    assert ElementTree.parse(tmp_path / "run.svg").getroot().tag.endswith("svg")
    assert capsys.readouterr().err == ""


def test_without_a_graph_it_is_the_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    repository = write_repository(tmp_path / "repo", {"app/b-1": {"DEPEND": "app/a"}, "app/a-1": {}})
    installed = write_installed(("sys-devel/gcc-12.2.0:12",), tmp_path / "stage", "arm64")
    words = ["--repo", f"{repository.name}={repository.location}", "--profile", repository.location / "profiles/arm64"]
    words += ["--installed", installed, "--target", "arm64", "--state", tmp_path / "state", "--json"]
    assert cli.run(["simulate", "app/b", "--hosts", "2x2", *map(str, words)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["packages"], answer["unknown"], answer["makespan_s"]) == (2, 2, 60.0)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--hosts", "2"], "--hosts '2' is not COUNTxSPEED"),
        ([], "hosts"),
        (["--hosts", "1x1", "--policy", "best"], "best"),
        (["--hosts", "1x1", "--fail-rate", "2"], "--fail-rate 2 is no share"),
        (["--hosts", "1x1", "--estimate-error", "-1"], "--estimate-error -1"),
        (["--hosts", "1x1", "--policy", "all", "--gantt", "x.svg"], "--gantt is of one policy"),
        (["--hosts", "1x1", "--gantt", "/nowhere/x.svg"], "--gantt /nowhere/x.svg cannot be written"),
        (["cat/a", "--hosts", "1x1"], "exclude each other"),
    ],
)
def test_what_is_wrong_is_one_line(
    given: list[str], capsys: pytest.CaptureFixture[str], words: list[str], complaint: str
) -> None:
    assert cli.run([*given, *words]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("cluster: ")
    assert said.err.count("\n") == 1
    assert complaint in said.err
