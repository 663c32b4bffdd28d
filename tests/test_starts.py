"""The report of process starts."""

from __future__ import annotations

from cluster.bench import starts

MACHINE: dict[str, str | int] = {"cpu": "Z80", "cores": 1, "qemu": "10.0", "kernel": "6.1"}


def test_medians_spread_and_ratio() -> None:
    report = starts.Report(3, {"exec": [1.0, 0.5, 2.0]}, {"exec": [5.0, 6.5, 4.0]}, MACHINE)
    told = report.json()
    assert told["native"] == {"exec": {"median_ms": 1.0, "min_ms": 0.5, "max_ms": 2.0}}
    assert told["node"] == {"exec": {"median_ms": 5.0, "min_ms": 4.0, "max_ms": 6.5}}
    assert told["ratio_to_native"] == {"exec": 5.0}
    assert told["machine"] == MACHINE


def test_the_answer_is_the_last_line() -> None:
    assert starts._parsed('a warning\n{"exec": [1.5]}\n') == {"exec": [1.5]}
