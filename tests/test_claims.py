"""How runs of one machine meet, over real directories, locks and processes."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from cluster import paths
from cluster.errors import MachineError
from cluster.master import claims
from cluster.master.claims import Sharing

pytestmark = pytest.mark.slow

# A run of its own process, which wants and holds what it is told, a line each, and answers what it may use.
RUN = """
import sys
from pathlib import Path
from cluster.master.claims import Sharing
with Sharing(Path(sys.argv[1]), weight=float(sys.argv[2]), nodes=int(sys.argv[3]), tell=lambda text: None) as share:
    for line in sys.stdin:
        wants, holds, urgent = map(int, line.split())
        print(share.allowed(wants=wants, holds=holds, urgent=bool(urgent)), flush=True)
"""


class Run:
    """Such a process."""

    def __init__(self, place: Path, weight: float, nodes: int) -> None:
        words = [sys.executable, "-c", RUN, str(place), str(weight), str(nodes)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, wants: int, holds: int = 0, urgent: bool = False) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(wants, holds, int(urgent), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def begun(weight: float = 1.0, nodes: int = 2) -> Run:
        runs.append(Run(tmp_path, weight, nodes))
        return runs[-1]

    yield begun
    for run in runs:
        run.process.communicate()


@contextmanager
def sharing(place: Path, nodes: int = 2) -> Iterator[tuple[Sharing, list[str]]]:
    told: list[str] = []
    with Sharing(place, weight=1.0, nodes=nodes, tell=told.append) as share:
        yield share, told


def files(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


# Runs.


def test_a_run_that_is_alone_may_use_all_nodes_whatever_it_wants_now(begin: Callable[..., Run]) -> None:
    assert begin(nodes=4)(wants=1) == 4


def test_a_second_run_waits_for_what_the_first_uses_and_then_both_have_half(begin: Callable[..., Run]) -> None:
    one, other = begin(nodes=4), begin(nodes=4)
    assert one(wants=9) == 4
    assert other(wants=9) == 0
    assert one(wants=9, holds=4) == 2
    assert other(wants=9) == 0
    assert one(wants=9, holds=3) == 2
    assert other(wants=9) == 1
    assert one(wants=9, holds=2) == 2
    assert other(wants=9, holds=1) == 2


def test_a_run_of_twice_the_weight_has_twice_the_nodes(begin: Callable[..., Run]) -> None:
    one, other = begin(weight=1.0, nodes=3), begin(weight=2.0, nodes=3)
    one(wants=9)
    other(wants=9)
    assert one(wants=9, holds=0) == 1
    assert other(wants=9) == 2


def test_an_urgent_run_has_the_one_node_when_the_package_on_it_ends(begin: Callable[..., Run]) -> None:
    one, other = begin(nodes=1), begin(nodes=1)
    one(wants=1)
    assert other(wants=1, urgent=True) == 0
    assert one(wants=1, holds=1) == 0
    assert one(wants=1, holds=0) == 0
    assert other(wants=1, urgent=True) == 1


def test_the_machine_bears_what_the_greatest_run_says(begin: Callable[..., Run]) -> None:
    small, great = begin(nodes=1), begin(nodes=4)
    assert small(wants=1) == 1
    assert great(wants=4) == 3


def test_the_claim_of_a_killed_run_is_gone(begin: Callable[..., Run], tmp_path: Path) -> None:
    one, other = begin(), begin()
    one(wants=2)
    assert other(wants=2) == 0
    one.kill()
    assert len(files(tmp_path)) == 2
    assert other(wants=2) == 2
    assert len(files(tmp_path)) == 1


def test_the_claim_of_a_run_that_ended_is_gone(begin: Callable[..., Run], tmp_path: Path) -> None:
    run = begin()
    run(wants=2)
    assert len(files(tmp_path)) == 1
    run.process.communicate()
    assert files(tmp_path) == []


# What a person is told.


def test_a_person_is_told_when_the_share_changes_and_no_more(tmp_path: Path) -> None:
    with sharing(tmp_path) as (share, told):
        share.allowed(wants=2, holds=0, urgent=False)
        assert told == []
        with sharing(tmp_path) as (other, _), sharing(tmp_path):
            other.allowed(wants=1, holds=0, urgent=False)
            for wants in (2, 1, 2, 2):
                share.allowed(wants=wants, holds=1, urgent=False)
            assert told == ["2 other builds share this machine: this one may use 1 of 2 nodes"]
        for wants in (2, 1):
            share.allowed(wants=wants, holds=1, urgent=False)
        assert told[1:] == ["no other build shares this machine: this one may use 2 of 2 nodes"]


def test_a_directory_that_is_lost_is_told_and_stops_nothing(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with sharing(place) as (share, told):
        share.allowed(wants=2, holds=0, urgent=False)
        for path in place.iterdir():
            path.unlink()
        place.rmdir()
        for _ in range(2):
            assert share.allowed(wants=2, holds=2, urgent=False) == 2
    assert len(told) == 1
    assert "this one may use 2 nodes" in told[0]


def test_a_run_that_cannot_claim_says_so_at_once(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="cannot be written"), sharing(tmp_path / "gone"):
        pass


# What other users may put there.


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"weight": 0}', "\0" * 10_000],
)
def test_a_claim_that_says_nothing_useful_counts_for_nothing(tmp_path: Path, text: str) -> None:
    with locked(tmp_path / "claim-strange", text), sharing(tmp_path) as (share, _):
        assert share.allowed(wants=2, holds=0, urgent=False) == 2
        assert "claim-strange" in files(tmp_path)


VALID = {"nodes": 2, "at": 0.0, "weight": 1.0, "urgent": False, "wants": 2, "holds": 2, "served": 0.0}


@pytest.mark.parametrize(
    "wrong",
    [
        {"weight": 0.0},
        {"weight": -1.0},
        {"weight": 1e308},
        {"wants": -1},
        {"holds": "2"},
        {"served": -1.0},
        {"at": None},
    ],
)
def test_a_claim_with_a_wrong_value_counts_for_nothing(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with sharing(tmp_path) as (share, _):
        with locked(tmp_path / "claim-right", json.dumps(VALID)):
            assert share.allowed(wants=2, holds=0, urgent=False) == 0
        with locked(tmp_path / "claim-wrong", json.dumps({**VALID, **wrong})):
            assert share.allowed(wants=2, holds=0, urgent=False) == 2


def test_a_pipe_a_link_and_a_directory_hold_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "claim-pipe")
    (tmp_path / "claim-directory").mkdir()
    secret = tmp_path / "secret"
    secret.write_text("kept")
    (tmp_path / "claim-link").symlink_to(secret)
    with sharing(tmp_path) as (share, _):
        assert share.allowed(wants=2, holds=0, urgent=False) == 2
    assert secret.read_text() == "kept"


@contextmanager
def locked(path: Path, text: str) -> Iterator[IO[str]]:
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.write(text)
        stream.flush()
        yield stream


# The place.


def for_all(path: Path) -> Path:
    path.mkdir()
    path.chmod(0o1777)
    return path


def test_all_users_meet_in_the_first_place_in_which_all_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "private").mkdir(0o755)
    shared = for_all(tmp_path / "shared")
    monkeypatch.setattr(claims, "PLACES", (tmp_path / "none", tmp_path / "private", shared))
    before = os.umask(0o077)
    try:
        found = claims.directory()
    finally:
        os.umask(before)
    assert found == shared / "portage-cluster"
    assert stat.S_IMODE(found.stat().st_mode) == 0o1777
    assert claims.directory() == found


def test_a_place_that_another_keeps_for_himself_is_left_to_him(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, linked = for_all(tmp_path / "kept"), for_all(tmp_path / "linked")
    (kept / "portage-cluster").mkdir(0o755)
    (linked / "portage-cluster").symlink_to(for_all(tmp_path / "elsewhere"))
    monkeypatch.setattr(claims, "PLACES", (kept, linked))
    assert claims.directory() == paths.runtime() / "claims"
    assert claims.directory().is_dir()


def test_every_user_may_read_a_claim(tmp_path: Path) -> None:
    with sharing(tmp_path):
        (claim,) = tmp_path.iterdir()
        assert stat.S_IMODE(claim.stat().st_mode) == 0o644
