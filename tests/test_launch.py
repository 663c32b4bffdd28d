"""The command of a host's worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.host.tls import Authority
from cluster.master.hosts import launch

pytest.importorskip("distributed")


def test_dask_understands_the_command_of_a_worker_in_a_tunnel(tmp_path: Path) -> None:
    from distributed.cli import dask_worker

    post = launch.Post(
        "h",
        {"arm64": 2, "riscv": 1},
        Authority(tmp_path / "authority").issue("h"),
        Path("/d"),
        listen="tls://127.0.0.1:7001",
        contact="tls://127.0.0.1:7002",
    )
    words = launch.words("python3", "tls://127.0.0.1:7000", post)
    assert words[:4] == ["python3", "-m", "dask", "worker"]
    understood = dask_worker.main.make_context("worker", words[4:]).params
    assert understood["resources"] == "node-arm64=2,node-riscv=1"
    assert understood["nthreads"] == 4
    assert understood["contact_address"] == "tls://127.0.0.1:7002"
    assert not understood["nanny"]
    assert list(understood["preload_argv"]) == ["--host-name", "h", "--speed", "1", "--directory", "/d"]
