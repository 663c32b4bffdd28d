"""How schedules are measured, and what is said of it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from cluster.bench import schedule, tables
from cluster.errors import InputError
from cluster.report import Reporter

HISTORY = "timestamp,pkgpath,pkgname,outcome,make_jobs,duration,disk_usage\n1,cat/a,a-1,success,1,10000,0\n"
MACHINE: dict[str, str | int] = {"cpu": "Z80", "cores": 1, "kernel": "6.1"}


def row(policy: str, ratio: float, part: str = "equal") -> schedule.Row:
    return schedule.Row(part, "real", "2x1", "", 0, policy, 100 * ratio, 100.0, ratio, None, 0, 1.0, 1.0)  # type: ignore[arg-type]


def silent() -> Reporter:
    return Reporter(Console(file=io.StringIO()))


def printed(report: schedule.Report) -> str:
    console = Console(file=io.StringIO(), width=160)
    tables.schedule(console, report)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_every_policy_is_measured_over_the_files(tmp_path: Path) -> None:
    (tmp_path / "graph").write_text("a-1 -> b-1\na-1 -> c-1\n")
    (tmp_path / "history").write_text(HISTORY)
    report = schedule.measure(tmp_path / "graph", tmp_path / "history", ("equal", "disturbed"), silent())
    assert {one.policy for one in report.of("equal")} == set(tables.POLICIES)
    assert {one.hosts for one in report.of("equal")} == set(schedule.EQUAL)
    assert {one.seed for one in report.of("disturbed")} == set(range(schedule.SEEDS))
    assert all(one.ratio >= 1 for one in report.rows)
    assert set(report.json()) == {"rows", "large", "promised", "missed", "machine"}
    assert "2x4.0,6x1.0, a fifth of hosts leave" in printed(report)


def test_a_large_graph_has_ten_needs_for_each_package() -> None:
    measured = schedule.large(1000)
    assert 10_000 <= measured.edges <= 11_000
    assert measured.ratio >= 1


def test_what_is_not_kept_is_said() -> None:
    kept = (row("ours", 1.004), row("dpb", 1.3))
    assert schedule.Report(kept, (), MACHINE).missed == ()
    far = (row("ours", 1.02), row("dpb", 1.01))
    assert schedule.Report(far, (), MACHINE).missed == (
        "real on 2x1: 1.0200 of the bound, 1.005 is promised",
        "real on 2x1: 1.0200, and dpb 1.0100 of the bound",
    )
    slow = (replace(row("ours", 1.0), slowest_ms=7.0),)
    large = schedule.Large(20_000, 200_000, 1.0, 61.0, 0.1, 6.0, 2, 100)
    report = schedule.Report(slow, (large,), MACHINE)
    assert report.missed == (
        "real on 2x1: a decision took 7.0 ms",
        "20000 packages: 2 decisions took more than 5 ms, the slowest 6.0 ms",
        "20000 packages: 61 s",
    )
    assert "missed: 20000 packages: 61 s" in printed(report)


def test_parts_are_checked_and_missing_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no part 'best': parts: equal, named"):
        schedule.check_names(["equal", "best"])
    with pytest.raises(InputError, match="cannot be read"):
        schedule.measure(tmp_path / "graph", tmp_path / "history", ("equal",), silent())


def test_without_the_data_the_rest_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(schedule, "GRAPH", tmp_path / "graph")
    monkeypatch.setattr(schedule, "SHAPE_PACKAGES", 20)
    console = Console(file=io.StringIO(), width=400)
    report = schedule.measure(tmp_path / "graph", schedule.HISTORY, ("equal", "shapes"), Reporter(console))
    assert {one.part for one in report.rows} == {"shapes"}
    assert "left out: equal, as there is no" in console.file.getvalue()  # type: ignore[attr-defined]
