"""The benchmarks on real nodes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.bench import driver

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

_DEADLINE_S = 1500


def bench(tmp_path: Path, *words: str) -> Any:
    """What `cluster bench WORDS --json` prints."""
    places = ["--state", str(tmp_path / "state"), "--binhost", str(tmp_path / "binhost")]
    argv = [sys.executable, "-m", "cluster", "bench", *words, *places, "--json"]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=_DEADLINE_S, check=False)
    assert ended.returncode == 0, ended.stderr
    assert list((tmp_path / "state" / "runs").iterdir()) == []
    return json.loads(ended.stdout)


def test_the_same_package_is_built_natively_under_qemu_user_and_in_a_node(tmp_path: Path) -> None:
    told = bench(
        tmp_path, "emulation", "--package", "app-arch/pigz", "--repeat", "1", "--variants", "native,qemu-user,tuned"
    )
    assert told["package"] == "app-arch/pigz-2.8"
    assert set(told["variants"]) | set(told["left_out"]) == {"native", "qemu-user", "tuned"}
    assert "tuned" in told["variants"]
    for variant in told["variants"].values():
        assert variant["compile_s"] > 0
        assert variant["wall_s"] > variant["total_s"] > 0
    assert not (tmp_path / "binhost" / "app-arch" / "plzip").exists()


def test_process_starts_are_measured_in_the_node(tmp_path: Path) -> None:
    told = bench(tmp_path, "process", "--repeat", "2")
    assert list(told["node"]) == list(told["native"]) == list(driver.COMMANDS)
    assert told["ratio_to_native"]["compile"] > 1


def test_a_node_s_latency_and_memory(tmp_path: Path) -> None:
    told = bench(tmp_path, "node", "--repeat", "1", "--nodes", "2")
    assert told["package"] == "demo-meta/quickstart-1"
    latency = told["latency"]
    assert 0 < latency["first_phase"]["median_s"] < latency["admitted"]["median_s"]  # so it was admitted
    assert {"boot", "start", "setup", "install", "package", "admit"} <= set(latency["steps"])
    assert told["node"]["warm"]
    assert told["node"]["memory_mib"] > told["memory"]["one_mib"] > 0
    assert len(told["memory"]["nodes"]) == 2
    for node in told["memory"]["nodes"]:
        assert node["private_mib"] > 0
        assert node["shared_mib"] > 0
    assert not list((tmp_path / "binhost").rglob("*.gpkg.tar"))
