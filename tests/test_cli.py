"""The command line as its users meet it: exit codes, one line for what is wrong, JSON for programs."""

from __future__ import annotations

import json
import logging
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from factories import package, past, plan
from repos import write_repository

from cluster import cli, paths, target
from cluster.errors import MachineError
from cluster.master import building, equipment, journal, judge, progress, rented, session
from cluster.model import Action, Cpv, Outcome, Plan, Result, Verdict
from cluster.node import kernel
from cluster.node.installed import write_installed
from cluster.verbs import bench

EBUILDS = {
    "app/editor-1": {"DEPEND": "lib/text", "RDEPEND": "lib/text", "IUSE": "+icu x"},
    "lib/text-1": {"DEPEND": "sys-devel/gcc"},
    "app/masked-1": {"KEYWORDS": "~arm64"},
    "app/wants-1": {"DEPEND": "lib/nowhere"},
    "loop/one-1": {"DEPEND": "loop/two"},
    "loop/two-1": {"DEPEND": "loop/one"},
}
EDITOR, TEXT = "app/editor-1", "lib/text-1"


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def complaint(self) -> str:
        """The one line on stderr of a command that could not run."""
        assert self.code == 1, self
        assert self.err.startswith("cluster: "), self
        assert self.err.count("\n") == 1, self
        assert self.err.endswith("\n"), self
        return self.err.removeprefix("cluster: ").rstrip("\n")


Cluster = Callable[..., Ended]


@pytest.fixture
def cluster(capsys: pytest.CaptureFixture[str]) -> Cluster:
    """Run a command line."""

    def run(*words: object) -> Ended:
        code = cli.run([str(word) for word in words])
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return Ended(code, said.out, said.err)

    return run


@pytest.fixture
def over(tmp_path: Path) -> list[str]:
    """The options that plan over the small repository and a stage with a compiler."""
    repository = write_repository(tmp_path / "repo", EBUILDS)
    installed = write_installed(("sys-devel/gcc-12.2.0:12",), tmp_path / "stage", "arm64")
    profile = repository.location / "profiles/arm64"
    words = ["--repo", f"test={repository.location}", "--profile", str(profile), "--installed", str(installed)]
    return [*words, "--state", str(tmp_path / "state"), "--binhost", str(tmp_path / "binhost")]


@pytest.fixture
def all_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Everything is in the binhost."""
    (tmp_path / "binhost").mkdir()

    def judged(plan: Plan, *binhosts: object) -> Plan:
        packages = (replace(package, action=Action.SKIP, reason=judge.KEPT) for package in plan.packages)
        return replace(plan, packages=tuple(packages))

    monkeypatch.setattr(judge, "judged", judged)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with room and a stage, and no emulator to find."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100 << 30))
    stage = SimpleNamespace(facts={"compiler": "12.2.0"}, signature=tmp_path / "compiler")
    monkeypatch.setattr(equipment, "hardware_for", lambda *arguments: SimpleNamespace(stage=stage))


# Plans.


@pytest.mark.slow
def test_plan_json_is_the_contract(cluster: Cluster) -> None:
    ended = cluster("plan", "@demo", "--target", "arm64", "--json")
    assert (ended.code, ended.err) == (0, "")
    said = ended.json
    assert set(said) == {"target", "repositories", "packages", "order", "left_out", "warnings"}
    (repository,) = said["repositories"]
    assert (repository["name"], repository["location"]) == ("demo", str(paths.data("overlays", "demo")))
    assert repository["revision"]
    assert said["target"] == "arm64"
    assert said["order"] == [package["cpv"] for package in said["packages"]]
    assert len(said["order"]) >= 14
    before: set[str] = set()
    for entry in said["packages"]:
        assert set(entry) == {"cpv", "use", "slot", "action", "reason", "requires"}
        assert entry["use"] == sorted(entry["use"])
        assert entry["action"] == "build"
        assert set(entry["requires"]) <= before, entry["cpv"]
        before.add(entry["cpv"])


def test_plan_makes_no_directories(cluster: Cluster, over: list[str], tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    assert cluster("plan", "app/editor", *over).code == 0
    assert set(tmp_path.iterdir()) == before


def test_plan_over_any_repository(cluster: Cluster, over: list[str]) -> None:
    said = cluster("plan", "app/editor", "--json", *over).json
    assert said["order"] == [TEXT, EDITOR]
    editor = said["packages"][1]
    assert (editor["use"], editor["requires"]) == (["icu"], [TEXT])


def test_plan_for_a_person(cluster: Cluster, over: list[str]) -> None:
    ended = cluster("plan", "app/editor", *over)
    assert (ended.code, ended.err) == (0, "")
    assert EDITOR in ended.out
    assert "2 to build, 0 in the binhost already" in ended.out


def test_graph_writes_the_format_of_the_suffix_and_says_what_takes_longest(
    cluster: Cluster, over: list[str], tmp_path: Path
) -> None:
    ended = cluster("graph", "app/editor", "--output", tmp_path / "plan.svg", *over)
    assert (ended.code, ended.err) == (0, "")
    assert (tmp_path / "plan.svg").read_text().startswith("<svg")
    assert "levels        2; the widest is level 0 with 1 package" in ended.out
    assert cluster("graph", "app/editor", "--format", "dot", *over).out.startswith("digraph")


def test_graph_json_is_the_contract(cluster: Cluster, over: list[str], tmp_path: Path) -> None:
    said = cluster("graph", "app/editor", "--json", "--output", tmp_path / "plan.json", *over).json
    assert said == json.loads((tmp_path / "plan.json").read_text())
    assert said["edges"] == [{"package": EDITOR, "needs": TEXT, "kinds": ["build", "run"], "atoms": ["lib/text"]}]
    assert said["packages"][1] == {
        **{"cpv": EDITOR, "slot": "0", "use": ["icu"], "action": "build", "requested": True},
        **{"level": 1, "component": 2, "circular": False, "critical": True, "seconds": 60.0, "basis": "assumed"},
    }
    assert [one["cpv"] for one in said["critical_path"]] == [TEXT, EDITOR]
    assert (said["work_s"], said["critical_s"], said["parallelism"]) == (120.0, 120.0, 1.0)


def test_graph_complains_in_one_line(cluster: Cluster, over: list[str], tmp_path: Path) -> None:
    assert "plan.png" in cluster("graph", "app/editor", "--output", tmp_path / "plan.png", *over).complaint
    assert "nowhere" in cluster("graph", "app/editor", "--output", tmp_path / "nowhere/p.svg", *over).complaint
    assert "--format svg" in cluster("graph", "app/editor", "--format", "svg", "--json", *over).complaint


def test_why_shows_the_chain_with_its_words(cluster: Cluster, over: list[str]) -> None:
    ended = cluster("why", "text", "app/editor", *over)
    assert (ended.code, ended.err) == (0, "")
    assert f"app/editor\n└── {EDITOR}\n    └── {TEXT} to build and to run: lib/text" in ended.out
    said = cluster("why", "gcc", "app/editor", "--json", *over).json
    assert (said["cpv"], said["planned"]) == ("sys-devel/gcc-12.2.0", False)
    assert [[link["cpv"] for link in chain] for chain in said["chains"]] == [[EDITOR, TEXT, "sys-devel/gcc-12.2.0"]]


@pytest.mark.slow
def test_why_and_impact_take_every_set_of_the_repositories(cluster: Cluster) -> None:
    assert {chain[0]["atoms"][0] for chain in cluster("why", "zlib", "--json").json["chains"]} == {
        "@demo",
        "@quickstart",
    }
    assert cluster("impact", "zlib", "--json").json["packages"] >= 14
    assert "there is nothing to plan" in cluster("plan").complaint


@pytest.mark.slow
def test_impact_takes_its_times_from_the_journal(cluster: Cluster, over: list[str], tmp_path: Path) -> None:
    record = journal.Journal(tmp_path / "state/journal.sqlite").record
    record("arm64", Outcome(Cpv(TEXT), Verdict.BUILT, seconds=7.0))
    record("arm64", Outcome(Cpv("app/editor-0.9"), Verdict.BUILT, seconds=50.0))
    said = cluster("impact", "text", "app/editor", "--json", *over).json
    assert [(one["cpv"], one["seconds"], one["basis"]) for one in said["rebuilds"]] == [
        (EDITOR, 50.0, "version"),
        (TEXT, 7.0, "built"),
    ]
    ended = cluster("impact", "text", "app/editor", *over)
    assert f"A change of {TEXT} rebuilds 2 of 2 packages: 57 s of work" in ended.out
    assert "nothing is not in the plan" in cluster("impact", "nothing", "app/editor", *over).complaint


@pytest.mark.parametrize(
    ("atom", "names"),
    [
        ("app/nothing", "app/nothing"),
        ("app/masked", "app/masked"),
        ("app/wants", "lib/nowhere"),
        ("loop/one", "loop/two"),
        ("not//an/atom", "not//an/atom"),
        ("@nothing", "nothing"),
    ],
)
@pytest.mark.parametrize("verb", ["plan", "build"])
def test_an_atom_that_cannot_be_had(cluster: Cluster, over: list[str], verb: str, atom: str, names: str) -> None:
    ended = cluster(verb, atom, *over)
    assert names in ended.complaint
    assert ended.out == ""


@pytest.mark.slow
def test_keep_going_plans_the_rest_and_names_what_is_left_out(cluster: Cluster, over: list[str]) -> None:
    asked = ["app/editor", "app/masked", "app/wants", "loop/one"]
    ended = cluster("plan", *asked, "--keep-going", *over)
    assert ended.code == 2
    assert "2 to build, 0 in the binhost already; 3 left out" in ended.out
    lines = ended.err.splitlines()
    assert [line.split(": ")[0] for line in lines] == ["! app/masked", "! app/wants", "! loop/one"]
    assert "app/wants-1 needs lib/nowhere, which no repository has (test)" in lines[1]
    ended = cluster("plan", *asked, "--keep-going", "--json", *over)
    assert (ended.code, ended.json["order"]) == (2, [TEXT, EDITOR])
    assert [set(one) for one in ended.json["left_out"]] == [{"what", "reason", "mend"}] * 3
    assert ended.json["left_out"][0] == {
        "what": "app/masked",
        "reason": "app/masked-1 is masked by ~arm64 keyword",
        "mend": 'put ACCEPT_KEYWORDS="~arm64" in make_conf',
    }


def test_keep_going_with_nothing_wrong_and_with_nothing_left(cluster: Cluster, over: list[str]) -> None:
    ended = cluster("plan", "app/editor", "--keep-going", *over)
    assert (ended.code, ended.err) == (0, "")
    ended = cluster("plan", "app/masked", "app/wants", "--keep-going", *over)
    assert (ended.code, ended.out) == (1, "")
    *left, last = ended.err.splitlines()
    assert [line.split(": ")[0] for line in left] == ["! app/masked", "! app/wants"]
    assert last == "cluster: nothing of what was asked for can be planned: mend one of the lines above"


@pytest.mark.slow
@pytest.mark.parametrize("verb", [["graph"], ["why", "text"], ["impact", "text"]])
def test_questions_about_a_plan_keep_going_too(cluster: Cluster, over: list[str], verb: list[str]) -> None:
    ended = cluster(*verb, "app/editor", "app/masked", "--keep-going", "--json", *over)
    assert ended.code == 2
    assert [one["what"] for one in ended.json["left_out"]] == ["app/masked"]
    assert ended.err.startswith("! app/masked: ")
    assert "app/masked" in cluster(*verb, "app/editor", "app/masked", *over).complaint


@pytest.mark.usefixtures("all_there")
def test_build_keeps_going_and_says_so_with_its_exit_code(cluster: Cluster, over: list[str]) -> None:
    asked = ["build", "app/editor", "app/masked", "--keep-going", *over]
    ended = cluster(*asked)
    assert ended.code == 2
    assert "Nothing to build: all 2 packages are in the binhost" in ended.out
    assert ended.out.splitlines()[-1].startswith("! app/masked: ")
    said = cluster(*asked, "--json")
    assert (said.code, said.json["skipped"]) == (2, [TEXT, EDITOR])
    assert [one["what"] for one in said.json["left_out"]] == ["app/masked"]


def test_build_keeps_going_without_a_repository(
    cluster: Cluster, over: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[session.Session] = []

    def build(chosen: session.Session, made: Plan, *rest: object, **_: object) -> Result:
        built.append(chosen)
        return Result(made, (), 0.0, chosen.binhost)

    monkeypatch.setattr(building, "build", build)
    words = ["build", "app/editor", "--repo", f"gone={tmp_path / 'gone'}", *over]
    assert "repository gone: there is no directory" in cluster(*words).complaint
    assert cluster(*words, "--keep-going", "--json").code == 2
    assert [repository.name for repository in built[0].repositories] == ["test"]


@pytest.mark.slow
def test_keep_going_breaks_circles_first(cluster: Cluster, over: list[str], tmp_path: Path) -> None:
    ebuilds = {
        "loop/soft-1": {"IUSE": "+x", "DEPEND": "x? ( loop/hard )"},
        "loop/hard-1": {"DEPEND": "loop/soft"},
        "app/masked-1": {"KEYWORDS": "~arm64"},
    }
    write_repository(tmp_path / "repo", ebuilds)
    ended = cluster("plan", "loop/hard", "app/masked", "--keep-going", "--break-cycles", "--json", *over)
    assert ended.code == 2
    assert [one["what"] for one in ended.json["left_out"]] == ["app/masked"]
    assert set(ended.json["order"]) == {"loop/soft-1", "loop/hard-1"}
    alone = cluster("plan", "loop/hard", "app/masked", "--keep-going", *over)
    assert alone.code == 1
    assert "circular dependencies" in alone.err


def test_no_atom(cluster: Cluster, over: list[str]) -> None:
    assert "name an atom or a set" in cluster("plan", *over).complaint


def test_an_unknown_target(cluster: Cluster) -> None:
    said = cluster("plan", "@demo", "--target", "pdp11").complaint
    assert "'pdp11'" in said
    assert "arm64" in said


@pytest.mark.parametrize("word", ["nothing", "=dir", "name="])
def test_a_repo_that_is_not_name_and_directory(cluster: Cluster, word: str) -> None:
    said = cluster("plan", "@demo", f"--repo={word}").complaint
    assert f"'{word}'" in said
    assert "NAME=DIR" in said


def test_a_repo_that_is_not_there(cluster: Cluster, tmp_path: Path) -> None:
    assert str(tmp_path / "absent") in cluster("plan", "@demo", "--repo", f"x={tmp_path / 'absent'}").complaint


def test_a_profile_that_is_not_there(cluster: Cluster, over: list[str], tmp_path: Path) -> None:
    words = list(over)
    words[words.index("--profile") + 1] = str(tmp_path / "absent")
    assert str(tmp_path / "absent") in cluster("plan", "app/editor", *words).complaint


def test_an_installed_directory_that_is_not_there(cluster: Cluster, tmp_path: Path) -> None:
    assert str(tmp_path / "absent") in cluster("plan", "@demo", "--installed", tmp_path / "absent").complaint


@pytest.mark.parametrize("verb", ["plan", "build"])
def test_a_binhost_directory_that_is_not_ours(cluster: Cluster, over: list[str], tmp_path: Path, verb: str) -> None:
    dear = tmp_path / "binhost" / "thesis.tex"
    dear.parent.mkdir()
    dear.write_text("dear")
    said = cluster(verb, "app/editor", *over).complaint
    assert str(tmp_path / "binhost") in said
    assert "--binhost" in said
    assert [path.name for path in dear.parent.iterdir()] == ["thesis.tex"]


def test_a_broken_config_key(cluster: Cluster, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text("[build]\nnoodles = 2\n")
    for verb in (["plan", "@demo"], ["build", "@demo"], ["config"]):
        said = cluster(*verb, "--config", mine).complaint
        assert f"{mine}: build.noodles = 2" in said


# Words that are wrong.


@pytest.mark.parametrize("words", [["--help"], ["plan", "--help"], ["build", "--help"], ["stage", "--help"]])
def test_help(cluster: Cluster, words: list[str]) -> None:
    ended = cluster(*words)
    assert (ended.code, ended.err) == (0, "")
    assert "Usage: cluster" in ended.out


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["frobnicate"], "frobnicate"),
        (["plan", "@demo", "--frobnicate"], "--frobnicate"),
        (["build", "@demo", "--nodes", "two"], "--nodes"),
        (["build", "@demo", "--nodes"], "--nodes"),
        (["build", "@demo", "--nodes", "0"], "--nodes"),
        (["stage", "show"], "stage show"),
    ],
)
def test_a_usage_error(cluster: Cluster, words: list[str], names: str) -> None:
    assert names in cluster(*words).complaint


def test_debug_logs_the_traceback(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    assert cluster("plan", "@demo", "--target", "pdp11").code == 1
    assert not [record for record in caplog.records if record.exc_info]
    with caplog.at_level(logging.DEBUG):
        assert cli.run(["plan", "@demo", "--target", "pdp11", "--debug"]) == 1
    assert [record for record in caplog.records if record.exc_info]


def test_an_interrupt_says_that_what_was_finished_is_kept(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, over: list[str]
) -> None:
    def interrupted(*arguments: object, **_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(building, "build", interrupted)
    ended = cluster("build", "app/editor", *over)
    assert ended.code == 130
    assert ended.err.count("\n") == 1
    assert "kept" in ended.err


@pytest.mark.parametrize("ending", [None, KeyboardInterrupt])
def test_what_is_rented_ends_with_a_build_that_is_to_end_it_however_it_ends(
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    over: list[str],
    tmp_path: Path,
    ending: type[BaseException] | None,
) -> None:
    done: list[str] = []

    def build(chosen: session.Session, made: Plan, *rest: object, **_: object) -> Result:
        done.append("built")
        if ending is not None:
            raise ending
        return Result(made, (), 0.0, chosen.binhost)

    monkeypatch.setattr(building, "build", build)
    monkeypatch.setattr(rented, "down", lambda sessions, reporter: done.append("ended"))
    cluster("build", "app/editor", *over)
    assert done == ["built"]
    cluster("build", "app/editor", "--ec2-down", *over)
    assert done == ["built", "built", "ended"]


# Builds.


@pytest.mark.usefixtures("all_there")
def test_nothing_to_build(cluster: Cluster, over: list[str], tmp_path: Path) -> None:
    ended = cluster("build", "app/editor", *over)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"Nothing to build: all 2 packages are in the binhost {tmp_path / 'binhost'}\n"


@pytest.mark.usefixtures("all_there")
def test_nothing_to_build_for_a_program(cluster: Cluster, over: list[str]) -> None:
    ended = cluster("build", "app/editor", "--json", *over)
    assert (ended.code, ended.err) == (0, "")
    said = ended.json
    assert said["skipped"] == [TEXT, EDITOR]
    assert said["built"] == said["failed"] == said["lost"] == said["blocked"] == []
    assert set(said["compiles"].values()) == {0}
    assert set(said["packages"]) == {TEXT, EDITOR}
    assert said["packages"][EDITOR]["reason"].startswith("in the binhost")


@pytest.mark.parametrize("as_json", [False, True])
def test_what_failed_and_what_that_blocks(
    cluster: Cluster, over: list[str], monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    outcomes = (
        Outcome(Cpv(TEXT), Verdict.FAILED, node="node-1", attempt=1, log=Path("/text.log"), reason="compile failed"),
        Outcome(Cpv(EDITOR), Verdict.BLOCKED, reason=f"needs {TEXT}, which failed"),
    )
    result = Result(plan(package(TEXT), package(EDITOR, TEXT)), outcomes, 3.0, Path())
    monkeypatch.setattr(building, "build", lambda *arguments, **_: result)
    ended = cluster("build", "app/editor", *over, *(["--json"] if as_json else []))
    assert ended.code == 2
    assert ended.err == ""
    if as_json:
        assert (ended.json["failed"], ended.json["blocked"]) == ([TEXT], [EDITOR])
        assert ended.json["packages"][EDITOR]["reason"] == f"needs {TEXT}, which failed"
    else:
        assert f"failed {TEXT}: compile failed (log: /text.log)\n" in ended.out
        assert f"blocked {EDITOR}: needs {TEXT}, which failed\n" in ended.out


def test_json_keeps_progress_off_stdout(cluster: Cluster, over: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def build(
        opened: object, made: Any, nodes: int, reporter: progress.Reporter, urgent: object, **_: object
    ) -> Result:
        reporter.step("looking for QEMU")
        reporter.start(made)
        return Result(made, (), 0.0, Path())

    monkeypatch.setattr(building, "build", build)
    ended = cluster("build", "app/editor", *over, "--json")
    assert ended.json["built"] == []
    assert "looking for QEMU" in ended.err


@pytest.mark.slow
def test_weight_and_priority_reach_the_build(
    cluster: Cluster, over: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[float, set[str]]] = []

    def build(
        opened: session.Session, made: Plan, nodes: int, reporter: object, urgent: set[str], **_: object
    ) -> Result:
        asked.append((opened.config.build.weight, urgent))
        return Result(made, (), 0.0, Path())

    monkeypatch.setattr(building, "build", build)
    assert cluster("build", "app/editor", *over).code == 0
    assert cluster("build", "app/editor", "--weight", "2.5", "--priority", "text", *over).code == 0
    assert asked == [(1.0, set()), (2.5, {TEXT})]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--weight", "0"], "--weight 0 is no weight: use 0.001 to 1000; other builds have 1"),
        (["--weight", "-1"], "--weight -1 is no weight: use 0.001 to 1000; other builds have 1"),
        (["--weight", "nan"], "--weight nan is no weight: use 0.001 to 1000; other builds have 1"),
        (["--weight", "inf"], "--weight inf is no weight: use 0.001 to 1000; other builds have 1"),
        (["--priority", "app/nano"], "--priority app/nano names no package of the plan: name one of `cluster plan` as"),
    ],
)
def test_a_weight_or_priority_that_means_nothing_is_refused(
    cluster: Cluster, over: list[str], words: list[str], complaint: str
) -> None:
    assert cluster("build", "app/editor", *words, *over).complaint.startswith(complaint)


@pytest.mark.slow
@pytest.mark.usefixtures("machine")
def test_a_second_build_is_refused(
    cluster: Cluster, over: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    second: list[Ended] = []

    def while_building(*arguments: object) -> None:
        second.append(cluster("build", "app/editor", *over))
        raise MachineError("this is as far as the first one comes")

    monkeypatch.setattr(equipment, "hardware_for", while_building)
    assert cluster("build", "app/editor", *over).complaint == "this is as far as the first one comes"
    assert str(tmp_path / "state") in second[0].complaint
    assert "another build for arm64 is running" in second[0].complaint
    cluster("build", "app/editor", *over)
    assert "another build" in second[1].err, "the lock of an ended build must not stand in the way"


def test_no_disk_space(cluster: Cluster, over: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10 << 20))
    said = cluster("build", "app/editor", *over).complaint
    assert f"{tmp_path / 'state'} has 10 MiB free" in said
    assert "--state" in said


def test_too_little_memory(cluster: Cluster, over: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100 << 30))
    mine = tmp_path / "mine.toml"
    mine.write_text("[node]\nmemory_mib = 1_000_000_000\n")
    said = cluster("build", "app/editor", *over, "--config", mine).complaint
    assert "2 nodes of 1000000000 MiB" in said
    assert "--nodes" in said


def test_a_state_directory_that_is_a_file(cluster: Cluster, over: list[str], tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    assert str(tmp_path / "state") in cluster("build", "app/editor", *over).complaint


# The other verbs.


def test_verify_of_what_was_never_built(cluster: Cluster, over: list[str]) -> None:
    said = cluster("verify", "app/editor", *over).complaint
    assert TEXT in said
    assert "cluster build" in said


def test_targets(cluster: Cluster) -> None:
    assert "arm64\taarch64-linux-gnu\t" in cluster("targets").out
    assert {entry["name"]: entry["native"] for entry in cluster("targets", "--json").json} == {
        name: target.load(name).runs_on() for name in target.names()
    }


def test_config_prints_a_reference_that_is_valid(cluster: Cluster, tmp_path: Path) -> None:
    copy = tmp_path / "copy.toml"
    copy.write_text(cluster("config").out)
    assert cluster("config", "--config", copy, "--json").json["build"]["target"] == "arm64"


def test_a_stage_that_is_not_there(cluster: Cluster) -> None:
    assert "'nothing'" in cluster("stage", "show", "nothing").complaint
    assert cluster("stage", "list", "--json").json == []


# Kernels.


@pytest.fixture
def own_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[bool]:
    """A stage in the cache and a kernel that takes no time; returns whether the newest was asked for, each time."""
    directory = paths.directories().cache / "stages/arm64-1"
    directory.mkdir(parents=True)
    facts = dict.fromkeys(("release", "compiler", "portage"), "1") | {"target": "arm64", "kernel": "6.12-debian"}
    (directory / "stage.json").write_text(json.dumps(facts))
    built = kernel.Kernel(tmp_path / "own-arm64-1")
    asked: list[bool] = []

    def ensure(chosen: object, recipe: object, cache: Path, say: Callable[[str], None], newest: bool) -> kernel.Kernel:
        asked.append(newest)
        say("compiling the kernel")
        built.directory.mkdir()
        (built.directory / "kernel.json").write_text('{"release": "6.12-ours"}')
        return built

    monkeypatch.setattr(kernel, "ensure", ensure)
    monkeypatch.setattr(kernel, "find", lambda *words: built if built.directory.exists() else None)
    return asked


def test_a_kernel_of_our_own_is_built_and_said_to_take_minutes(cluster: Cluster, own_kernel: list[bool]) -> None:
    ended = cluster("stage", "kernel", "--json")
    assert (ended.code, own_kernel) == (0, [False])
    assert ended.json["release"] == "6.12-ours"
    assert "minutes" in ended.err.splitlines()[0]
    assert "compiling the kernel" in ended.err


def test_a_kernel_that_nodes_do_not_boot_is_said_to_be_one(
    cluster: Cluster, own_kernel: list[bool], tmp_path: Path
) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text("[node]\nown_kernel = false\n")
    assert "node.own_kernel is false" in cluster("stage", "kernel", "--newest", "--config", mine).out
    assert own_kernel == [True]
    assert cluster("stage", "show", "arm64-1", "--config", mine, "--json").json["boots"] == "6.12-debian"


@pytest.mark.usefixtures("own_kernel")
def test_stages_say_which_kernel_their_nodes_boot(cluster: Cluster) -> None:
    assert cluster("stage", "show", "arm64-1", "--json").json["boots"] == "6.12-debian"
    cluster("stage", "kernel")
    assert "boots: 6.12-ours\n" in cluster("stage", "show", "arm64-1").out
    (listed,) = cluster("stage", "list", "--json").json
    assert (listed["kernel"], listed["boots"]) == ("6.12-debian", "6.12-ours")
    assert "6.12-ours" in cluster("stage", "list").out


# Repositories.


@pytest.fixture
def configured(tmp_path: Path) -> tuple[str, Path]:
    """A configuration of a plain directory and a copy of it; the option that names it."""
    plain = write_repository(tmp_path / "plain", {"a/sourced-1": {"_body": "RDEPEND=\n"}}, name="plain")
    far = write_repository(tmp_path / "far", {"a/cached-1": {}}, name="far")
    mine = tmp_path / "mine.toml"
    mine.write_text(
        f'[repositories]\nplain = "{plain.location}"\n[repositories.far]\nsync = "rsync"\nuri = "{far.location}"\n'
    )
    return "--config", mine


@pytest.mark.slow
def test_repositories_are_synced_and_shown(cluster: Cluster, configured: tuple[str, Path]) -> None:
    before = cluster("tree", "status", *configured)
    assert (before.code, before.err) == (0, "")
    assert "not synced yet" in before.out
    synced = cluster("tree", "sync", "--json", *configured)
    assert synced.code == 0
    plain, far = synced.json["trees"]
    assert (plain["sync"], plain["metadata"]["generated"], plain["synced"]) == ("directory", 1, None)
    assert (far["sync"], far["ebuilds"], far["metadata"]["fresh"], far["problem"]) == ("rsync", 1, 1, "")
    assert far["directory"] == str(paths.directories().cache / "trees/far")
    assert "syncing far" in synced.err
    (shown,) = cluster("tree", "status", "far", "--json", *configured).json["trees"]
    assert shown["revision"] == far["revision"]
    table = cluster("tree", "status", *configured).out
    assert far["revision"] in table
    assert far["directory"] in table


@pytest.mark.slow
def test_a_plan_reads_what_was_generated_and_says_which_revision(
    cluster: Cluster, configured: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cluster("tree", "sync", *configured).code == 0
    monkeypatch.delattr("portage.dbapi.porttree.portdbapi._run_metadata_phase")  # what sources an ebuild
    options = ["--profile", tmp_path / "plain/profiles/arm64", "--installed", tmp_path, *configured]
    said = cluster("plan", "a/sourced", "a/cached", "--json", *options).json
    assert sorted(said["order"]) == ["a/cached-1", "a/sourced-1"]
    known = cluster("tree", "status", "--json", *configured).json["trees"]
    assert said["repositories"] == [
        {"name": tree["name"], "location": tree["directory"], "revision": tree["revision"]} for tree in known
    ]


def test_a_plan_over_what_was_never_synced(cluster: Cluster, configured: tuple[str, Path]) -> None:
    assert "cluster tree sync far" in cluster("plan", "a/cached", *configured).complaint


@pytest.mark.parametrize("verb", ["sync", "status"])
def test_an_unknown_repository(cluster: Cluster, configured: tuple[str, Path], verb: str) -> None:
    ended = cluster("tree", verb, "near", "plain", *configured)
    assert ended.code == 2
    assert "there is no repository 'near': repositories: plain, far\n" in ended.out
    assert "plain" in ended.out.splitlines()[-2]


def test_a_repository_that_cannot_be_fetched(cluster: Cluster, configured: tuple[str, Path], tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "far")
    ended = cluster("tree", "sync", "--json", *configured)
    assert ended.code == 2
    plain, far = ended.json["trees"]
    assert plain["metadata"]["generated"] == 1
    assert far["problem"].startswith(f"repository far: {tmp_path / 'far'} cannot be fetched: ")
    assert f"! {far['problem']}\n" in ended.err


@pytest.mark.slow
@pytest.mark.usefixtures("machine")
def test_no_sync_under_a_build(
    cluster: Cluster, over: list[str], configured: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    during: list[Ended] = []

    def while_building(*arguments: object) -> None:
        during.append(cluster("tree", "sync", *configured, "--state", tmp_path / "state"))
        raise MachineError("this is as far as it comes")

    monkeypatch.setattr(equipment, "hardware_for", while_building)
    cluster("build", "app/editor", *over)
    assert f"a build is running in {tmp_path / 'state'}" in during[0].complaint
    assert cluster("tree", "sync", *configured, "--state", tmp_path / "state").code == 0


def test_a_port_in_use(cluster: Cluster, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = cluster("binhost", "serve", "--port", port, "--binhost", tmp_path / "binhost").complaint
    assert f"port {port} of 127.0.0.1 is in use" in said


def test_binhost_list_of_an_empty_one(cluster: Cluster, tmp_path: Path) -> None:
    assert cluster("binhost", "list", "--json", "--binhost", tmp_path / "binhost").json == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("emulation", "--variants", "tuned,fast"), "there is no variant 'fast': variants: native, qemu-user, plain"),
        (("emulation", "--repeat", "0"), "--repeat 0 is too few: use at least 1"),
        (("process", "--repeat", "0"), "--repeat 0 is too few: use at least 1"),
        (("node", "--repeat", "0"), "--repeat 0 is too few: use at least 1"),
        (("node", "--nodes", "0"), "--nodes 0 is too few: use at least 1"),
    ],
)
def test_a_benchmark_that_cannot_be_meant(cluster: Cluster, words: tuple[str, ...], said: str) -> None:
    assert cluster("bench", *words).complaint.startswith(said)


def test_the_benchmark_of_nodes_is_told_what_to_measure(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []

    def measure(session: object, *words: object) -> SimpleNamespace:
        asked.append(words[:3])
        return SimpleNamespace(json=lambda: {"repeat": 4})

    monkeypatch.setattr(bench.node_bench, "measure", measure)
    assert cluster("bench", "node", "--json").json == {"repeat": 4}
    assert cluster("bench", "node", "--package", "a/b", "--nodes", "3", "--repeat", "1", "--json").code == 0
    assert asked == [("demo-meta/quickstart", 2, 5), ("a/b", 3, 1)]


def test_a_chart_without_matplotlib_is_refused_before_anything_is_built(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise MachineError("a chart needs matplotlib", "install it")

    monkeypatch.setattr(bench.chart, "require", missing)
    assert cluster("bench", "emulation", "--output", str(tmp_path / "out")).complaint == (
        "a chart needs matplotlib: install it"
    )
    assert not (tmp_path / "out").exists()


def test_plan_says_why_in_a_line_for_each_package(cluster: Cluster, over: list[str]) -> None:
    said = cluster("plan", "app/editor", "--reason", *over)
    assert said.code == 0
    assert said.out.splitlines() == [
        f"build {TEXT}: needed by {EDITOR}",
        f"build {EDITOR}: requested [app/editor]",
        "2 to build, 0 in the binhost already",
    ]


# Several targets and variants.


@pytest.fixture
def varied(tmp_path: Path, over: list[str]) -> list[str]:
    """The options with a configuration of two variants, of which `small` has another USE for the library."""
    (tmp_path / "small").mkdir()
    (tmp_path / "small/package.use").write_text("app/editor -icu\n")
    file = tmp_path / "config.toml"
    file.write_text(f'[variants]\nfull = {{}}\nsmall = {{ portage = "{tmp_path}/small" }}\n')
    return [*over, "--config", str(file)]


def test_variants_are_planned_in_one_go_and_share_what_is_the_same(cluster: Cluster, varied: list[str]) -> None:
    words = ["plan", "app/editor", "--variant", "full", "--variant", "small", *varied]
    said = cluster(*words, "--json").json
    actions = {name: [entry["action"] for entry in part["packages"]] for name, part in said.items()}
    assert actions == {"full": ["build", "build"], "small": ["take", "build"]}
    assert said["small"]["packages"][0]["reason"] == "full has the same"
    shown = cluster(*words, "--reason").out.splitlines()
    assert [line for line in shown if " " not in line] == ["full", "small"]
    assert "1 to build, 1 to take from another binhost, 0 in the binhost already" in shown


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["plan", "--variant", "smal"], "there is no variant 'smal': variants: full, small"),
        (["plan", "--variant", "full", "--target", "arm64"], "--variant and --target exclude each other"),
        (["verify", "--variant", "full", "--variant", "small"], "this is for one target or variant at a time"),
    ],
)
def test_what_is_wrong_with_a_variant(cluster: Cluster, varied: list[str], words: list[str], told: str) -> None:
    ended = cluster(words[0], "app/editor", *words[1:], *varied)
    assert ended.code == 1
    assert told in ended.err


# Past builds.


def test_history_goes_out_and_comes_in_elsewhere_once(cluster: Cluster, tmp_path: Path) -> None:
    here, there = ["--state", tmp_path / "here"], ["--state", tmp_path / "there"]
    builds = past("c/zlib-1.3", 10.0, 50.0, cpu_s=20.0, jobs=2) + past("c/sed-4", 7.0, target="arm", memory_mib=256.5)
    journal.Journal(tmp_path / "here/journal.sqlite").add(builds)
    file = tmp_path / "past.csv.xz"
    assert "3 builds written to" in cluster("history", "export", file, *here).out
    assert cluster("history", "import", file, *there, "--json").json == {"added": 3, "known": 0}
    assert cluster("history", "import", file, *there).out == "0 builds added, 3 were on record already\n"
    assert cluster("history", "show", "--json", *there).json == cluster("history", "show", "--json", *here).json


def test_history_says_what_the_builds_of_a_version_come_to(cluster: Cluster, tmp_path: Path) -> None:
    state = ["--state", tmp_path]
    builds = past("c/zlib-1.3", 10.0, 50.0, 40.0, cpu_s=20.0) + past("c/sed-4", 7.0, target="arm", memory_mib=256.5)
    journal.Journal(tmp_path / "journal.sqlite").add(builds + past("chat/irc-1nb2", 1.0))
    said = cluster("history", "show", ">=zlib-1", "--json", *state).json
    (zlib,), (surprise,) = said["packages"], said["surprises"]
    assert (zlib["cpv"], zlib["builds"], zlib["seconds"], zlib["spread"]) == ("c/zlib-1.3", 3, 45.0, 1.25)
    assert (surprise["seconds"], surprise["expected_s"]) == (50.0, 10.0)
    ended = cluster("history", "show", *state)
    assert "c/zlib-1.3 (arm64) took 50 s on 1970-01-01" in ended.out
    assert "not the 10 s that were expected: the estimate starts anew" in ended.out
    shown = [line.split()[0] for line in ended.out.splitlines()[3:6]]
    assert shown == ["c/sed-4", "c/zlib-1.3", "chat/irc-1nb2"]
    only = cluster("history", "show", "irc", "c/sed", "--json", *state).json["packages"]
    assert [(one["cpv"], one["memory_mib"]) for one in only] == [("c/sed-4", 256.5), ("chat/irc-1nb2", None)]
    assert len(cluster("history", "show", "--target", "arm", "--json", *state).json["packages"]) == 1


def test_history_of_elsewhere_needs_a_target(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "past.csv"
    file.write_text("cpv,ended,verdict,seconds\nc/zlib-1.3,7,built,2.5\n")
    state = ["--state", tmp_path / "state"]
    assert "name it with --target" in cluster("history", "import", file, *state).complaint
    assert "unknown target 'vax'" in cluster("history", "import", file, "--target", "vax", *state).complaint
    assert not (tmp_path / "state").exists()
    assert cluster("history", "import", file, "--target", "arm64", *state).code == 0
    assert "nothing was never built" in cluster("history", "show", "nothing", *state).complaint
    assert "'=nothing' is not a package" in cluster("history", "show", "=nothing", *state).complaint


def test_history_says_how_good_estimates_are(cluster: Cluster, tmp_path: Path) -> None:
    state = ["--state", tmp_path]
    assert cluster("history", "errors", "--json", *state).json == []
    journal.Journal(tmp_path / "journal.sqlite").add(past("c/zlib-1.3", 10.0, 15.0) + past("c/zlib-1.4", 10.0))
    built, version = cluster("history", "errors", "--json", *state).json
    assert built == {"basis": "built", "versions": 1, "median": 1.5, "ninth": 1.5}
    assert (version["basis"], version["versions"], version["median"]) == ("version", 2, 1.375)
    assert "built" in cluster("history", "errors", *state).out
