"""The benchmark of builds: whose turn it is, what is left out, what a failure says, what the report is."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from factories import failure, package, plan

from cluster import config
from cluster.bench import emulation
from cluster.bench import prepared as preparation
from cluster.bench.prepared import Bench, needed
from cluster.bench.samples import Sample, sample, summarize
from cluster.errors import BuildFailed, InputError, MachineError, NodeLost
from cluster.master import building, equipment, planning
from cluster.model import Cpv, Outcome, Verdict

MAKE = package("dev-build/make-4.4.1", requested=True)


class Heard:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.warnings: list[str] = []
        self.told: list[str] = []

    def step(self, text: str) -> None:
        self.steps.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def tell(self, text: str) -> None:
        self.told.append(text)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[emulation.Report, Heard]]:
    """Measure with variants of the test's own, given by name as how each gets ready."""

    def measure(repeat: int, **variants: Callable[..., emulation.Variant]) -> tuple[emulation.Report, Heard]:
        hardware = SimpleNamespace(emulator=SimpleNamespace(version="10.0"))
        monkeypatch.setattr(emulation, "VARIANTS", variants)
        monkeypatch.setattr(planning, "make_plan", lambda session, atoms: plan(MAKE))
        monkeypatch.setattr(equipment, "hardware_for", lambda session, nodes, reporter: hardware)
        monkeypatch.setattr(building, "only_one", lambda session: nullcontext())
        monkeypatch.setattr(preparation, "_scratch_binhost", lambda *words: None)
        monkeypatch.setattr(preparation, "replace", lambda value, **fields: value)
        heard = Heard()
        places = SimpleNamespace(state=tmp_path, logs=tmp_path / "logs", distfiles=tmp_path)
        session: Any = SimpleNamespace(config=config.load(), directories=places)
        return emulation.measure(session, "dev-build/make", tuple(variants), repeat, cast(Any, heard)), heard

    return measure


def ready(seconds: float) -> Callable[..., emulation.Variant]:
    """A variant that takes so long to compile."""

    def build(begin: Callable[[], None]) -> Sample:
        begin()
        return sample((("compile", seconds),), seconds + 1)

    return lambda bench, name: emulation.Variant(f"the {name} machine", build)


def cannot(bench: Bench, name: str) -> emulation.Variant:
    raise MachineError("no such thing here", "buy one")


def test_variants_take_turns(run: Callable[..., tuple[emulation.Report, Heard]]) -> None:
    _, heard = run(2, native=ready(1), slow=ready(5))
    assert heard.steps == [
        "1 of 2: native (the native machine)",
        "1 of 2: slow (the slow machine)",
        "2 of 2: native (the native machine)",
        "2 of 2: slow (the slow machine)",
    ]
    assert [text.split(", ")[2] for text in heard.told] == ["compile 1", "compile 5"] * 2


def test_the_report_is_the_contract(run: Callable[..., tuple[emulation.Report, Heard]]) -> None:
    report, _ = run(3, native=ready(2), slow=ready(10))
    told = json.loads(json.dumps(report.json()))
    assert told["package"] == "dev-build/make-4.4.1"
    assert told["repeat"] == 3
    assert told["ratio_to_native"] == {"native": 1.0, "slow": 5.0}
    assert set(told["machine"]) == {"cpu", "cores", "qemu", "kernel"}
    slow = told["variants"]["slow"]
    assert slow["compile_s"] == slow["total_s"] == 10
    assert slow["wall_s"] == 11
    assert slow["spread"]["compile_s"] == [10, 10]
    assert {"extract_s", "configure_s", "install_s", "made_of"} < set(slow)


def test_what_the_machine_cannot_do_is_left_out_with_the_reason(
    run: Callable[..., tuple[emulation.Report, Heard]],
) -> None:
    report, heard = run(1, native=ready(1), other=cannot)
    assert list(report.summaries) == ["native"]
    assert report.json()["left_out"] == {"other": "no such thing here: buy one"}
    assert heard.warnings == ["other is left out: no such thing here: buy one"]


def test_a_machine_that_can_do_none_of_it(run: Callable[..., tuple[emulation.Report, Heard]]) -> None:
    with pytest.raises(MachineError, match="none of the variants: no such thing here"):
        run(1, other=cannot)


def test_nothing_is_left_in_the_state_directory(
    run: Callable[..., tuple[emulation.Report, Heard]], tmp_path: Path
) -> None:
    def breaks(bench: Bench, name: str) -> emulation.Variant:
        def build(begin: Callable[[], None]) -> Sample:
            (bench.live.directory / "tree").mkdir()
            raise KeyboardInterrupt

        return emulation.Variant("", build)

    with pytest.raises(KeyboardInterrupt):
        run(1, breaks=breaks)
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize("names", [["tuned", "fast"], [], ["tuned", "tuned"]])
def test_variants_that_cannot_be_meant(names: list[str]) -> None:
    with pytest.raises(InputError, match="variants: native, qemu-user, plain, tuned, distcc, full"):
        emulation.check_names(names)


def test_what_is_needed_is_the_whole_closure_and_no_more() -> None:
    tool, library, program = package("a/tool-1"), package("a/library-1", "a/tool-1"), package("a/p-1", "a/library-1")
    made = plan(tool, package("a/other-1"), library, program)
    assert needed(made, program) == (tool, library)
    assert needed(made, tool) == ()


def test_a_build_that_failed_names_variant_reason_and_log() -> None:
    with pytest.raises(BuildFailed, match=r"plain: a/b-1 failed: configure failed: see /logs/b\.log") as caught:
        emulation._sample_of("plain", failure(Cpv("a/b-1")))
    assert caught.value.exit_code == 2


def test_a_node_that_was_lost_is_not_the_packages_fault() -> None:
    with pytest.raises(NodeLost, match="tuned: a/b-1 lost"):
        emulation._sample_of("tuned", replace(failure(Cpv("a/b-1")), verdict=Verdict.LOST))


def test_a_build_in_a_node_becomes_a_sample() -> None:
    built = Outcome(Cpv("a/b-1"), Verdict.BUILT, phases=(("boot", 7.0), ("compile", 30.0)), seconds=41.5)
    summary = summarize([emulation._sample_of("tuned", built)])
    assert (summary.median.total_s, summary.median.wall_s) == (30.0, 41.5)
