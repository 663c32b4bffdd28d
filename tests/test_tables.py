"""Benchmarks on a console."""

from __future__ import annotations

import io

from rich.console import Console

from cluster.bench import emulation, memory, nodes, starts, tables
from cluster.bench.samples import sample, summarize
from cluster.model import Cpv

MACHINE: dict[str, str | int] = {"cpu": "Z80", "cores": 1, "qemu": "10.0", "kernel": "6.1"}


def printed(report: emulation.Report | starts.Report | nodes.Report) -> list[str]:
    console = Console(file=io.StringIO(), width=160)
    match report:
        case emulation.Report():
            tables.emulation(console, report)
        case starts.Report():
            tables.starts(console, report)
        case nodes.Report():
            tables.nodes(console, report)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text.splitlines()


def row(lines: list[str], name: str) -> list[str]:
    """The words of the first line that begins with `name`."""
    return next(line for line in lines if line.split()[:1] == [name]).split()


def test_medians_ratios_spread_and_what_is_left_out() -> None:
    native = summarize([sample((("configure", 5), ("compile", 5)), 12)])
    slow = summarize([sample((("configure", seconds), ("compile", 150)), 200) for seconds in (40, 50, 60)])
    report = emulation.Report(
        Cpv("a/b-1"),
        3,
        {"slow": "a [slow] machine"},
        {"native": native, "slow": slow},
        {"other": "it has none"},
        MACHINE,
    )
    lines = printed(report)
    assert row(lines, "slow") == [
        *("slow", "0.0", "50.0", "10.0x", "150", "30.0x", "0.0", "200", "20.0x", "190-210", "200")
    ]
    assert "slow: a [slow] machine" in lines
    assert "other: left out, it has none" in lines
    assert "1 cores of Z80, Linux 6.1, QEMU 10.0" in lines


def test_the_talks_table_stands_beside_ours() -> None:
    title, variants = tables.talk()
    assert "2009" in title
    assert variants["plain"] == {"extract_s": 5, "configure_s": 160, "compile_s": 170, "total_s": 335}
    native = summarize([sample((("compile", 5),), 12)])
    lines = printed(emulation.Report(Cpv("a/b-1"), 1, {}, {"native": native}, {}, MACHINE))
    lines = lines[lines.index(next(line for line in lines if line.startswith(title))) :]
    assert row(lines, "plain") == ["plain", "5", "5.0x", "160", "10.7x", "170", "42.5x", "335", "16.8x"]
    assert row(lines, "distcc") == ["distcc", "24", "6.0x"]


def test_process_starts() -> None:
    report = starts.Report(3, {"exec": [1.0, 0.5, 2.0]}, {"exec": [5.0, 6.0, 4.0]}, MACHINE)
    assert row(printed(report), "exec") == ["exec", "1.0", "(0.5-2.0)", "5.0", "(4.0-6.0)", "5.0x"]


def waiting(*pss_mib: float) -> memory.Idle:
    one, *others = (memory.Usage(100.0, pss, 40.0, 60.0) for pss in pss_mib)
    return memory.Idle(one, tuple(others))


def of_nodes(idle: memory.Idle) -> nodes.Report:
    built = [nodes.Build(0.8, 6.5, (("boot", 0.8), ("package", 5.7))), nodes.Build(1.0, 7.0, (("boot", 1.0),))]
    made_of = {"cpus": 1, "memory_mib": 1536, "accelerator": "tcg", "kernel": "6.12", "warm": True}
    return nodes.Report(Cpv("a/b-1"), 2, nodes.summarize(built), idle, made_of, MACHINE)


def test_nodes_beside_what_is_promised() -> None:
    lines = printed(of_nodes(waiting(90.0, 70.0, 65.0)))
    assert lines[0].startswith("a/b-1, builds: 2; ")
    assert row(lines, "first") == ["first", "phase", "0.90", "(0.80-1.00)", "1"]
    assert row(lines, "in") == ["in", "the", "binhost", "6.75", "(6.50-7.00)", "6"]
    assert row(lines, "boot") == ["boot", "0.90", "(0.80-1.00)"]
    assert row(lines, "2") == ["2", "of", "2", "100", "65", "40", "60"]
    assert "one node: 90 MiB; each further one: 45 MiB" in lines
    assert "1 cores of Z80, Linux 6.1, QEMU 10.0" in lines


def test_a_node_alone_says_nothing_of_further_ones() -> None:
    assert "one node: 90 MiB" in printed(of_nodes(waiting(90.0, 90.0)))
