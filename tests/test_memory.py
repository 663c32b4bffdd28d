"""What smaps_rollup says, and what nodes that wait add up to."""

from __future__ import annotations

import os

import pytest

from cluster.bench import memory
from cluster.bench.memory import Idle, Usage
from cluster.errors import NodeLost

ROLLUP = """\
55a0d0a00000-7ffd4b7fe000 ---p 00000000 00:00 0                          [rollup]
Rss:              102400 kB
Pss:               71680 kB
Pss_Dirty:         20480 kB
Pss_Anon:          10240 kB
Shared_Clean:      51200 kB
Shared_Dirty:       1024 kB
Private_Clean:     20480 kB
Private_Dirty:     29696 kB
Referenced:       102400 kB
Anonymous:         20480 kB
Swap:                  0 kB
"""


def usage(pss_mib: float) -> Usage:
    return Usage(rss_mib=100.0, pss_mib=pss_mib, private_mib=40.0, shared_mib=60.0)


def test_a_rollup_in_mib() -> None:
    assert memory.parse(ROLLUP) == Usage(rss_mib=100.0, pss_mib=70.0, private_mib=49.0, shared_mib=51.0)


@pytest.mark.parametrize("text", ["", "Rss: 12 kB\n", ROLLUP.replace("Pss:", "Pxx:")])
def test_what_is_no_rollup(text: str) -> None:
    with pytest.raises(ValueError, match="in smaps_rollup"):
        memory.parse(text)


def test_each_further_node_adds_its_part_of_the_sum() -> None:
    idle = Idle(usage(90.0), (usage(60.0), usage(50.0), usage(55.0)))
    assert idle.sum_mib == 165.0
    assert idle.further_mib == 37.5


def test_one_node_has_no_further_ones() -> None:
    assert Idle(usage(90.0), (usage(90.0),)).further_mib is None


def test_this_process_is_in_memory() -> None:
    (mine,) = memory.of([os.getpid()])
    assert mine.rss_mib >= mine.pss_mib > 0
    assert mine.private_mib > 0


def test_a_process_that_is_gone() -> None:
    with pytest.raises(NodeLost):
        memory.of([2**22 + 1])  # above the greatest process id of Linux
