"""What a run owns, and what the next run does about one that was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from processes import alive, eventually, members

from cluster.errors import NodeLost
from cluster.host.runs import Run, sweep

pytestmark = pytest.mark.slow

# A master with one process group of two processes, which knows nothing of its master's death.
MASTER = """
import os, subprocess, sys, time
from pathlib import Path
from cluster.host.runs import Run
run = Run(Path(sys.argv[1]))
env = dict(os.environ, PLACE=str(run.public))
child = subprocess.Popen(["sh", "-c", "sleep 60 & wait"], env=env, stdin=subprocess.DEVNULL,
                         stdout=subprocess.DEVNULL, start_new_session=True)
run.own(child.pid)
print(child.pid, run.directory, run.public, flush=True)
time.sleep(60)
"""


@dataclass(frozen=True)
class Master:
    process: subprocess.Popen[str]
    pgid: int
    directory: Path
    public: Path

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Master]:
    with subprocess.Popen([sys.executable, "-c", MASTER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pgid, directory, public = process.stdout.readline().split()
        started = Master(process, int(pgid), Path(directory), Path(public))
        assert eventually(lambda: len(members(started.pgid)) == 2)
        yield started
        started.kill()
        for pid in members(started.pgid):
            os.kill(pid, signal.SIGKILL)
    sweep(tmp_path)


@contextmanager
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        yield process
        process.kill()


def test_sweep_ends_all_of_a_dead_run(tmp_path: Path, master: Master) -> None:
    disk = master.directory / "nodes/a/disk"
    disk.parent.mkdir(parents=True)
    disk.write_text("large")
    master.kill()
    assert members(master.pgid)
    assert sweep(tmp_path) == 1
    assert eventually(lambda: not members(master.pgid))
    assert not master.directory.exists()
    assert not master.public.exists()
    assert sweep(tmp_path) == 0


def test_sweep_ends_a_group_whose_leader_is_gone(tmp_path: Path, master: Master) -> None:
    # distccd's leader dies with the master; its workers would keep the port.
    master.kill()
    os.kill(master.pgid, signal.SIGKILL)
    assert eventually(lambda: not Path(f"/proc/{master.pgid}").exists())
    assert members(master.pgid)
    sweep(tmp_path)
    assert eventually(lambda: not members(master.pgid))


def test_sweep_leaves_a_live_run_alone(tmp_path: Path, master: Master) -> None:
    assert sweep(tmp_path) == 0
    assert len(members(master.pgid)) == 2
    assert master.directory.is_dir()
    assert master.public.is_dir()


def dead_run(state: Path, children: str) -> None:
    directory = state / "runs/run-dead"
    directory.mkdir(parents=True)
    (directory / "lock").touch()
    (directory / "children").write_text(children)


@pytest.mark.parametrize("line", ["{} 1", "{}", "{} "])
def test_sweep_does_not_kill_a_reused_process_id(tmp_path: Path, line: str) -> None:
    with sleeper() as stranger:
        dead_run(tmp_path, line.format(stranger.pid) + "\n")
        assert sweep(tmp_path) == 1
        with pytest.raises(subprocess.TimeoutExpired):
            stranger.wait(0.1)


def test_sweep_does_not_kill_a_strangers_group_without_a_leader(tmp_path: Path) -> None:
    with subprocess.Popen(["sh", "-c", "sleep 60 & exit"], start_new_session=True) as leader:
        leader.wait()
        dead_run(tmp_path, f"{leader.pid} 1\n")
        (tmp_path / "runs/run-dead/public").write_text(str(tmp_path / "public"))
        (member,) = members(leader.pid)
        assert sweep(tmp_path) == 1
        assert not eventually(lambda: not alive(member), 0.1)
        os.kill(member, signal.SIGKILL)


def test_sweep_without_any_run(tmp_path: Path) -> None:
    assert sweep(tmp_path) == 0


def test_stop_ends_the_children_and_lets_no_new_one_start(tmp_path: Path) -> None:
    with Run(tmp_path) as run, sleeper() as first, sleeper() as second:
        run.own(first.pid)
        run.stop()
        assert first.wait(10) == -signal.SIGKILL
        with pytest.raises(NodeLost, match="being stopped"):
            run.own(second.pid)
        assert second.poll() is None


def test_stop_does_not_mind_a_child_that_is_gone(tmp_path: Path) -> None:
    with Run(tmp_path) as run, sleeper() as first, sleeper() as second:
        run.own(first.pid)
        run.own(second.pid)
        first.kill()
        first.wait()
        run.stop()
        assert second.wait(10) == -signal.SIGKILL


def test_stop_does_not_kill_a_reused_process_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Run(tmp_path) as run, sleeper() as stranger:
        with monkeypatch.context() as patch:
            patch.setattr("cluster.host.runs._start_time", lambda pid: "1")
            run.own(stranger.pid)
        run.stop()
        with pytest.raises(subprocess.TimeoutExpired):
            stranger.wait(0.1)


def test_a_run_removes_its_directories(tmp_path: Path) -> None:
    with Run(tmp_path) as run:
        directory, public = run.directory, run.public
        assert public.stat().st_mode & 0o777 == 0o755
        with run.node_directory("n1") as place:
            (place / "disk").write_text("x")
            assert len(str(place)) < 60
            assert (directory / "nodes/n1/disk").read_text() == "x"
        assert not place.is_symlink()
        assert not (directory / "nodes/n1").exists()
    assert not directory.exists()
    assert not public.exists()


def test_a_node_directory_goes_with_an_error(tmp_path: Path) -> None:
    def fail(enter: Callable[[], object]) -> None:
        enter()
        raise NodeLost("gone")

    with Run(tmp_path) as run:
        with pytest.raises(NodeLost), run.node_directory("n1") as place:
            fail(lambda: (place / "disk").touch())
        with run.node_directory("n1") as again:
            assert not list(again.iterdir())


def test_a_node_that_is_ended_starts_nothing_more_until_it_has_another_directory(tmp_path: Path) -> None:
    with Run(tmp_path) as run, sleeper() as first, sleeper() as other, sleeper() as second:
        run.own(other.pid, "node-2")
        with run.node_directory("node-1"):
            run.own(first.pid, "node-1")
            run.end("node-1")
            assert first.wait(10) == -signal.SIGKILL
            with pytest.raises(NodeLost, match="abandoned"):
                run.own(second.pid, "node-1")
        with run.node_directory("node-1"):
            run.own(second.pid, "node-1")
        assert (other.poll(), second.poll()) == (None, None)
        run.stop()


def test_what_a_node_left_behind_is_there_until_the_next_one_asks(tmp_path: Path) -> None:
    with Run(tmp_path) as run:
        (run.results("node-1") / "x").touch()
        (run.results("node-2") / "y").touch()
        assert list(run.results("node-1").iterdir()) == []
        assert (run.directory / "results/node-2/y").exists()
