"""Child processes: how they end, and that nothing of them is left."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import alive, eventually, members

from cluster.errors import CommandFailed, MachineError
from cluster.process import Child, find_program, run, tail


def test_run_returns_stdout_alone() -> None:
    assert run(["sh", "-c", "echo out; echo err >&2"], deadline_s=10) == "out\n"


def test_run_closes_stdin() -> None:
    assert run(["cat"], deadline_s=10) == ""


def test_run_takes_environment_and_directory(tmp_path: Path) -> None:
    said = run(["/bin/sh", "-c", 'echo "$A|$HOME|$PWD"'], deadline_s=10, env={"A": "b"}, cwd=tmp_path)
    assert said == f"b||{tmp_path}\n"


def test_run_writes_both_streams_to_output(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as stream:
        assert run(["sh", "-c", "echo out; echo err >&2"], deadline_s=10, output=stream) == ""
    assert (tmp_path / "log").read_text() == "out\nerr\n"


def test_a_failure_tells_the_status_and_the_tail_of_stderr() -> None:
    script = "echo noise; i=0; while [ $i -lt 50 ]; do echo line $i >&2; i=$((i+1)); done; exit 3"
    with pytest.raises(CommandFailed) as caught:
        run(["sh", "-c", script], deadline_s=10)
    assert caught.value.what == "sh failed with exit status 3"
    assert caught.value.mend == " | ".join(f"line {n}" for n in range(44, 50))


def test_a_silent_failure_tells_the_command() -> None:
    with pytest.raises(CommandFailed, match=r"exit status 1: sh -c 'exit 1'"):
        run(["sh", "-c", "exit 1"], deadline_s=10)


def test_a_missing_program_is_a_failed_command(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=r"cannot run /no/such/program: No such file"):
        run(["/no/such/program"], deadline_s=10)
    with pytest.raises(CommandFailed, match="cannot run /no/such/program"):
        Child(["/no/such/program"], log_path=tmp_path / "log")


def test_the_deadline_kills_the_whole_process_group(tmp_path: Path) -> None:
    # The grandchild holds stdout open: killing the child alone would wait for it.
    pids = tmp_path / "pids"
    with pytest.raises(CommandFailed, match=r"did not end within 1\.5 s"):
        run(["sh", "-c", f"sleep 60 & echo $$ $! > {pids}; wait"], deadline_s=1.5)
    child, grandchild = map(int, pids.read_text().split())
    assert eventually(lambda: not alive(child) and not alive(grandchild))


def test_find_program_names_the_package() -> None:
    assert find_program("sh", "dash").endswith("/sh")
    with pytest.raises(MachineError, match="apt-get install such-package"):
        find_program("no-such-program", "such-package")


def test_tail_skips_empty_lines() -> None:
    assert tail("a\n\n b \n\nc\n\n", 2) == "b | c"


def test_leaving_a_child_kills_its_process_group(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 60 & echo $$ $! > {pids}.new; mv {pids}.new {pids}; wait"
    with Child(["sh", "-c", script], log_path=tmp_path / "log") as child:
        assert eventually(pids.exists)
        shell, sleep = map(int, pids.read_text().split())
        assert members(child.pid) == {shell, sleep}
        assert not child.ended
    assert child.ended
    assert eventually(lambda: not alive(sleep))


def test_a_child_that_ended_tells_why(tmp_path: Path) -> None:
    with Child(["sh", "-c", "echo starting; echo no such machine >&2; exit 7"], log_path=tmp_path / "log") as child:
        assert child.wait(10) == 7
        assert child.why() == "exit status 7: starting | no such machine"


def test_a_child_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = f"""
import sys, time
from pathlib import Path
from cluster.process import Child
child = Child(["sleep", "60"], log_path=Path({str(tmp_path / "log")!r}))
print(child.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as master:
        assert master.stdout is not None
        pid = int(master.stdout.readline())
        assert alive(pid)
        master.send_signal(signal.SIGKILL)
    assert eventually(lambda: not alive(pid))
