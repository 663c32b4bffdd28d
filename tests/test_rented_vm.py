"""A build on rented hosts with nothing left out but Amazon: ssh, Dask, distccd, chroots of the stage, in namespaces."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import paths, target
from cluster.cli import run
from cluster.master.ec2 import userdata
from cluster.master.hosts.registry import Registry
from cluster.process import run as run_program
from tests import amazon as amazons
from tests import instances
from tests.land import Land

pytestmark = [pytest.mark.vm, pytest.mark.skipif(bool(instances.missing), reason=instances.missing)]

NATIVE = next((name for name in target.names() if target.load(name).runs_on(os.uname().machine)), "arm64")
"""Chroots of this machine's own architecture are the fastest nodes that there are."""
TYPE = "c7g.large" if NATIVE == "arm64" else "c7i.large"
HOSTS = 4
NODES = len(os.sched_getaffinity(0))
"""On a host, at most."""
LONGEST = "media-libs/libpng"
"""Long enough to be met while it is being built."""
CLUSTER = (sys.executable, "-m", "cluster")
DEADLINE_S = 600.0


@pytest.fixture
def land(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Land]:
    with amazons.serving() as amazon, instances.network(tmp_path / "machines") as network:
        amazons.configure(monkeypatch, amazon.url)
        amazon.clear()
        monkeypatch.setattr(userdata, "USER", instances.USER)
        yield Land(amazon, network)


class Fate:
    """What becomes of two hosts while they build: Amazon takes one back, and one, in the midst of it, breaks down."""

    def __init__(self, land: Land, binhost: Path) -> None:
        self.land, self.binhost = land, binhost
        self.taken = self.dead = ""
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        self.dead = self._building(LONGEST, {"prepare", "configure"})
        self.land.fail(self._instance(self.dead))
        self.taken = self._building("", set())
        said = json.dumps({"action": "terminate", "time": "2026-01-01T00:02:00Z"})
        notice = self.land.up[self._instance(self.taken)].command("sh", "-c", f"echo '{said}' >{userdata.NOTICE}")
        run_program(notice, deadline_s=20)

    def _building(self, package: str, phases: set[str]) -> str:
        """Wait for a host that builds `package`, or any, and is in one of `phases`, or in any."""
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            said = subprocess.run([*CLUSTER, "status", "--json"], stdout=subprocess.PIPE, check=True, timeout=60).stdout
            for node in (node for build in json.loads(said)["runs"] for node in build["nodes"]):
                wanted = node["package"].startswith(package) and (not phases or node["phase"] in phases)
                if wanted and node["host"] != self.dead:
                    return str(node["host"])
            time.sleep(0.2)
        raise TimeoutError

    def _instance(self, name: str) -> str:
        return Registry(paths.directories().hosts).get(name).rented


def test_a_build_outlives_the_hosts_that_go_and_is_billed(
    land: Land, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--from", f"{land.network.master}/24", "--target", NATIVE]
    limits = ["--max-price", "5", "--budget", "20"]
    assert run(["ec2", "up", "--instances", f"{TYPE}={HOSTS}", *place, *limits]) == 0
    assert len(Registry(paths.directories().hosts).all()) == HOSTS
    binhost, config = tmp_path / "binhost", tmp_path / "config.toml"
    config.write_text("[ec2]\nscale = false\n")  # else hosts are let go that are to be lost
    fate = Fate(land, binhost)
    words = ["--target", NATIVE, "--binhost", str(binhost), "--config", str(config)]
    assert run(["build", "@quickstart", *words, "--json"]) == 0
    said = capsys.readouterr()
    packages = json.loads(said.out[said.out.index("{") :])["packages"]
    assert {one["outcome"] for one in packages.values()} == {"built"}
    assert f"{fate.taken} is given no more packages: Amazon takes it back" in said.err
    lost = [line for line in said.err.splitlines() if line.strip().startswith("lost ")]
    assert 1 <= len(lost) <= NODES  # what it was building, and nothing else
    assert all(fate.dead in line for line in lost)
    assert run(["ec2", "status", "--json"]) == 0
    (rental,) = json.loads(capsys.readouterr().out)["rentals"]
    assert packages.keys() <= rental["bill"]["packages"].keys()
    assert run(["ec2", "down"]) == 0
    assert land.amazon.running() == []
    assert Registry(paths.directories().hosts).all() == ()
