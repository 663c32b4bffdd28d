"""The benchmark of nodes: where a build's time went, what several come to, what the report is."""

from __future__ import annotations

import json

import pytest

from cluster.bench import memory, nodes
from cluster.model import Cpv

MACHINE: dict[str, str | int] = {"cpu": "Z80", "cores": 1, "qemu": "10.0", "kernel": "6.1"}
MADE_OF = {"cpus": 1, "memory_mib": 1536, "accelerator": "tcg", "kernel": "6.12", "warm": True}

ENTERED = (
    ("fetch", 0.0),
    ("prerequisites", 0.5),
    ("job disk", 1.0),
    ("boot", 1.25),
    ("build", 2.0),
    ("prerequisites", 2.5),  # Portage's own words, told as they come
    ("unpack", 4.0),
    ("install", 6.0),
    ("package", 7.0),
    ("results", 9.0),
    ("admit", 9.5),
)
PHASES = (
    ("boot", 0.7),
    ("prerequisites", 0.5),
    ("start", 1.0),
    ("setup", 0.5),
    ("install", 1.5),
    ("between", 1.5),
    ("package", 1.5),
)


def test_where_the_time_of_a_build_went() -> None:
    built = nodes.build(ENTERED, PHASES, 10.0)
    assert built.steps == (
        ("fetch", 0.5),
        ("materials", 0.5),
        ("job disk", 0.25),
        ("boot", 0.75),
        ("mount", 0.5),
        ("prerequisites", 0.5),
        ("start", 1.0),
        ("setup", 0.5),
        ("install", 1.5),
        ("between", 1.5),
        ("package", 1.5),
        ("results", 0.5),
        ("admit", 0.5),
    )
    assert built.first_phase_s == 4.0
    assert built.admitted_s == sum(seconds for _, seconds in built.steps) == 10.0


def build(first_phase_s: float, admitted_s: float) -> nodes.Build:
    return nodes.Build(first_phase_s, admitted_s, (("boot", first_phase_s), ("install", admitted_s - first_phase_s)))


def report() -> nodes.Report:
    one = memory.Usage(rss_mib=100.0, pss_mib=90.0, private_mib=80.0, shared_mib=20.0)
    both = memory.Usage(rss_mib=100.0, pss_mib=60.0, private_mib=40.0, shared_mib=60.0)
    latency = nodes.summarize([build(1.0, 5.0), build(3.0, 6.0), build(1.5, 9.0)])
    return nodes.Report(Cpv("a/b-1"), 3, latency, memory.Idle(one, (both, both)), MADE_OF, MACHINE)


def test_median_least_and_greatest() -> None:
    latency = report().latency
    assert latency.first_phase == nodes.Spread(1.5, 1.0, 3.0)
    assert latency.admitted == nodes.Spread(6.0, 5.0, 9.0)
    assert latency.steps == {"boot": nodes.Spread(1.5, 1.0, 3.0), "install": nodes.Spread(4.0, 3.0, 7.5)}


def test_the_contract() -> None:
    told = json.loads(json.dumps(report().json()))
    assert set(told) == {"package", "repeat", "latency", "memory", "promised", "node", "machine"}
    assert told["latency"]["first_phase"] == {"median_s": 1.5, "min_s": 1.0, "max_s": 3.0}
    assert set(told["latency"]) == {"first_phase", "admitted", "steps"}
    assert told["latency"]["steps"]["boot"]["max_s"] == 3.0
    assert told["memory"]["one_mib"] == 90.0
    assert told["memory"]["further_mib"] == 30.0
    assert told["memory"]["sum_mib"] == 120.0
    assert told["memory"]["nodes"][1] == {"rss_mib": 100.0, "pss_mib": 60.0, "private_mib": 40.0, "shared_mib": 60.0}
    assert told["promised"] == {"first_phase_s": 1.0, "admitted_s": 6.0, "memory_mib": 1536}
    assert told["node"] == MADE_OF
    assert told["machine"] == MACHINE


@pytest.mark.parametrize("phases", [(), (("boot", 1.0),)])
def test_a_build_without_marks_tells_nothing(phases: tuple[tuple[str, float], ...]) -> None:
    with pytest.raises(ValueError, match="start"):
        nodes.build(ENTERED, phases, 10.0)
