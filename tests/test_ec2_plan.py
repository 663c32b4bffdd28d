"""`cluster ec2 plan` and `cluster ec2 catalogue` as their users meet them."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cluster import cli, paths
from cluster.master.ec2 import refresh, speeds

pytestmark = pytest.mark.slow

SVG = "{http://www.w3.org/2000/svg}"
HISTORY = """\
timestamp,pkgpath,pkgname,outcome,make_jobs,duration,disk_usage,build,cpu:build
1,cat/a,a-1,success,4,10000000,0,10000000,38000000
1,cat/b,b-1,success,4,5000000,0,5000000,5000000
1,cat/c,c-1,success,4,5000000,0,5000000,5000000
"""


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    """A graph with its history."""
    (tmp_path / "graph").write_text("a-1 -> b-1\na-1 -> c-1\nnew-1\n")
    (tmp_path / "history.csv").write_text(HISTORY)
    return ["ec2", "plan", "--graph", str(tmp_path / "graph"), "--history", str(tmp_path / "history.csv")]


def test_the_answer_for_programs(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*given, "--json", "--max-hosts", "4"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["target"], found["region"], found["packages"], found["unknown"]) == ("arm64", "us-east-1", 4, 1)
    for mix in found["mixes"]:
        assert {"instances", "market", "finish_s", "cost_usd"} <= set(mix)
        assert sum(mix["instances"].values()) <= 4
        assert mix["finish_s"] >= mix["lower_bound_s"] >= found["lower_bound_s"] > 0
    assert {mix["market"] for mix in found["mixes"]} == {"on-demand", "spot"}
    assert any(mix["compiling"] for mix in found["mixes"])


def test_a_person_gets_a_table_and_what_it_rests_on(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*given, "--market", "spot", "--types", "c7g.xlarge,c7i.4xlarge"]) == 0
    said = capsys.readouterr().out
    assert "1 c7g.xlarge" in said
    assert "on-demand" not in said
    assert "4 packages for arm64; within these limits nothing ends before" in said
    assert "Of 1 no build is known: they are taken to need 60 s." in said
    assert "Prices are those of us-east-1 on 2025-06-01; speeds are estimates until measured: c7g.xlarge." in said


def test_measured_speeds_are_used_and_said(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = [*given, "--types", "c7g.xlarge", "--max-hosts", "1", "--market", "spot", "--json"]
    ends = []
    for speed in (1.0, 4.0):
        speeds.note(speeds.file(paths.directories()), "c7g.xlarge", "arm64", speed)
        assert cli.run(words) == 0
        ends.append(json.loads(capsys.readouterr().out)["mixes"][0]["finish_s"])
    assert ends[1] < 0.5 * ends[0]
    assert cli.run(words[:-1]) == 0
    assert "speeds were measured." in capsys.readouterr().out


@pytest.mark.slow
def test_the_chart_has_a_point_for_each_mix(given: list[str], tmp_path: Path) -> None:
    chart = tmp_path / "mixes.svg"
    assert cli.run([*given, "--chart", str(chart)]) == 0
    drawn = ElementTree.parse(chart)
    dots = [one for one in drawn.iter(f"{SVG}circle") if one.attrib["class"].startswith("dot")]
    titles = [one.findtext(f"{SVG}title") or "" for one in dots]
    assert len(titles) >= 2
    assert all("USD" in title for title in titles)
    assert {one.attrib["class"] for one in drawn.iter(f"{SVG}polyline")} == {"line on-demand", "line spot"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--types", "z9.large"], "--types z9.large is not in the catalogue"),
        (["--region", "moon-1"], "--region moon-1 is not in the catalogue"),
        (["--budget", "0.01"], "--budget 0.01 is too little for one hour of the cheapest instance"),
        (["--budget", "-1"], "--budget -1 is too little"),
        (["--max-price", "0.02"], "--max-price 0.02 is too little for one hour"),
        (["--max-hosts", "0"], "--max-hosts 0 lets nothing be rented"),
        (["--deadline", "soon"], "--deadline 'soon' is no time"),
        (["--deadline", "5m"], "no mix keeps both budget and deadline: the cheapest is"),
        (["--target", "vax"], "unknown target 'vax'"),
        (["--chart", "/nowhere/a.svg"], "--chart /nowhere/a.svg cannot be written"),
        (["cat/a"], "exclude each other"),
    ],
)
def test_bad_words_get_one_line(
    given: list[str], words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([*given, *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line


def test_types_without_room_for_a_node_are_refused(
    given: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = paths.data("ec2", "catalogue.toml").read_text()
    small = tmp_path / "ec2" / "catalogue.toml"
    small.parent.mkdir()
    small.write_text(text.replace("memory_mib = 2048", "memory_mib = 65536"))
    there = paths.data
    monkeypatch.setattr(paths, "data", lambda *parts: small if parts[0] == "ec2" else there(*parts))
    assert cli.run([*given, "--types", "c7g.large,c7i.xlarge"]) == 1
    assert "no node for arm64 fits on c7g.large,c7i.xlarge: name larger --types" in capsys.readouterr().err


def test_the_catalogue_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["ec2", "catalogue", "--types", "c7g.large,c7i.large", "--target", "arm", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["type"], one["driver"], one["nodes"]) for one in found["types"]] == [
        ("c7g.large", "native", 1),
        ("c7i.large", "emulated", 1),
    ]
    assert cli.run(["ec2", "catalogue"]) == 0
    assert "~1.60" in capsys.readouterr().out


def test_a_refresh_without_credentials_is_one_line_and_with_them_it_is_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert cli.run(["ec2", "catalogue", "--refresh"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "there are no AWS credentials" in line
    monkeypatch.setattr(
        refresh, "refreshed", lambda wanted, cloud, now, warn: wanted.model_copy(update={"dated": now.date()})
    )
    assert cli.run(["ec2", "catalogue", "--refresh", "--region", "eu-west-1"]) == 0
    capsys.readouterr()
    assert cli.run(["ec2", "catalogue", "--region", "eu-west-1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["dated"] > "2026"
