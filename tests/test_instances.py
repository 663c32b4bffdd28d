"""Machines of namespaces, on which tests of many hosts rely."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import instances as machines
import pytest
from instances import Network
from processes import eventually

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(machines.missing), reason=machines.missing)]

# A process that starts a machine and waits to be killed.
RUN = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
import instances
with instances.network(Path(sys.argv[1])) as network:
    print(network.start("left").namespace, flush=True)
    sys.stdin.read()
"""


def said(instance: machines.Instance, *argv: str) -> str:
    return subprocess.run(instance.command(*argv), capture_output=True, text=True, check=True, timeout=30).stdout


def test_a_machine_has_its_own_name_processes_and_files(instances: Network) -> None:
    one, other = instances.start("one"), instances.start("other")
    said(one, "touch", "/tmp/here", "/root/here", "/usr/here")
    assert said(one, "hostname") == "one\n"
    assert said(one, "cat", "/proc/1/comm") == "sshd\n"
    for place in ("/tmp", "/root", "/usr"):
        assert "here" in said(one, "ls", place)
        assert "here" not in said(other, "ls", place)
        assert not Path(place, "here").exists()


def test_a_killed_machine_comes_back_as_itself(instances: Network) -> None:
    first = instances.start("one")
    address, key = first.address, first.host_key
    said(first, "touch", "/root/kept")
    instances.kill("one")
    again = instances.start("one")
    assert (again.address, again.host_key) == (address, key)
    assert said(again, "ls", "/root") == "kept\n"


def test_a_machine_that_is_cut_off_is_not_reached_until_it_is_mended(instances: Network) -> None:
    one, other = instances.start("one"), instances.start("other")
    reach = ["timeout", "2", "bash", "-c", f"read line < /dev/tcp/{one.address}/22 && echo $line"]
    instances.cut("one")

    def greeting() -> str:
        return subprocess.run(other.command(*reach), capture_output=True, text=True, check=False, timeout=30).stdout

    assert not greeting()
    instances.mend("one")
    assert eventually(lambda: greeting().startswith("SSH-2.0"))


def test_a_clock_may_be_ahead(instances: Network) -> None:
    fast = instances.start("fast", clock_s=3600)
    assert 3500 < int(said(fast, "date", "+%s")) - time.time() < 3700


def test_what_a_killed_run_left_behind_is_swept(tmp_path: Path) -> None:
    places = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    words = [sys.executable, "-c", RUN, str(tmp_path / "left"), *places]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        namespace = killed.stdout.readline().strip()
        killed.kill()
    assert Path("/run/netns", namespace).exists()
    with machines.network(tmp_path / "next"):
        assert eventually(lambda: not Path("/run/netns", namespace).exists())
