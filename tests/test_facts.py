"""What a host says of itself, and how it compares with the master."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time

import pytest

from cluster.errors import MachineError
from cluster.host.facts import Facts, Rates

MASTER = Facts("x86_64", 2, 4000, 9000, "3.11.2", "0.1.0", "Debian 12", False, 1.0, Rates(700.0, 600.0))


@pytest.mark.slow
def test_a_host_prints_what_the_master_reads() -> None:
    words = [sys.executable, "-m", "cluster.host.facts"]
    text = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout
    facts = Facts.parse(f"a shell's greeting\n{text}")
    assert facts.arch == platform.machine()
    assert facts.cpus == len(os.sched_getaffinity(0))
    assert facts.memory_mib > 100
    assert facts.disk_mib > 0
    assert facts.python == platform.python_version()
    assert abs(facts.clock_s - time.time()) < 60
    assert facts.rates.alone > 0
    assert facts.rates.together > 0


def test_the_master_is_of_speed_1_and_others_by_all_their_processors_at_work() -> None:
    assert MASTER.beside(MASTER, 0.0).speed == 1.0
    faster = Facts("x86_64", 64, 4000, 9000, "3.11.2", "0.1.0", "Debian 12", False, 1.0, Rates(2100.0, 900.0))
    assert faster.beside(MASTER, -7.0).speed == 1.5
    assert faster.beside(MASTER, -7.0).clock_offset_s == -7.0


@pytest.mark.parametrize("text", ["", "sh: python: not found", "{}", '{"arch": 1}'])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(MachineError, match="does not say what it is"):
        Facts.parse(text)
