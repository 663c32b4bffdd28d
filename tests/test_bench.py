"""The benches of a host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from benches import FakeBench, FakeEquipment

from cluster.errors import NodeLost
from cluster.host.bench import Benches


@dataclass(frozen=True, slots=True)
class Broken:
    """Cannot be made."""

    @property
    def is_early(self) -> bool:
        return False

    def bench(self, directory: Path) -> FakeBench:
        raise NodeLost("no stage")


def test_what_is_the_same_is_made_once(tmp_path: Path) -> None:
    benches = Benches(tmp_path)
    assert benches.of(FakeEquipment("a")) is benches.of(FakeEquipment("a"))
    assert benches.of(FakeEquipment("a")) is not benches.of(FakeEquipment("b"))


def test_a_bench_knows_its_slots_though_it_was_made_after_they_were_told(tmp_path: Path) -> None:
    benches = Benches(tmp_path)
    benches.share({"node-1": 3})
    assert not (tmp_path / "slots").exists()
    benches.of(FakeEquipment())
    assert (tmp_path / "slots").read_text() == "{'node-1': 3}"
    benches.share({"node-1": 4})
    assert (tmp_path / "slots").read_text() == "{'node-1': 4}"


def test_one_that_cannot_be_made_is_tried_again(tmp_path: Path) -> None:
    benches = Benches(tmp_path)
    for _ in range(2):
        with pytest.raises(NodeLost, match="no stage"):
            benches.of(Broken())


def test_a_bench_that_is_made_as_its_host_leaves_is_stopped(tmp_path: Path) -> None:
    benches = Benches(tmp_path)
    benches.stop()
    with pytest.raises(NodeLost, match="leaving"):
        benches.of(FakeEquipment())
    assert (tmp_path / "stopped").exists()
