"""A build over four machines of namespaces, with nothing left out: ssh, Dask, distccd, chroots of the stage."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from cluster_of_instances import farm, later, power_goes
from instances import missing

from cluster import target

pytestmark = [pytest.mark.vm, pytest.mark.skipif(bool(missing), reason=missing)]

NATIVE = next((name for name in target.names() if target.load(name).runs_on()), "arm64")
"""Chroots of this machine's own architecture are the fastest nodes that there are."""


def test_a_host_that_dies_costs_its_package_alone(tmp_path: Path) -> None:
    with farm(tmp_path, 4, "chroot", NATIVE) as hosts:
        victim = later(hosts, 2, power_goes)
        ran = hosts.build("@quickstart", "--target", NATIVE, "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert ran.returncode == 0, ran.stderr
        said = json.loads(ran.stdout)
        assert {one["outcome"] for one in said["packages"].values()} == {"built"}
        (lost,) = [line for line in ran.stderr.splitlines() if line.strip().startswith("lost ")]
        assert f"{victim.result(0)} is gone" in lost
        assert len({one["node"] for one in said["packages"].values()}) >= 3
