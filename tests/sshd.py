"""A real sshd on loopback, that lets root in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.node import keypair
from cluster.node.qemu import free_port
from cluster.node.ssh import Connection
from cluster.process import Child

SSHD = Path("/usr/sbin/sshd")

needed = pytest.mark.skipif(
    not SSHD.exists() or os.geteuid() != 0, reason="needs sshd, and root, for a node is logged into as root"
)


@dataclass(frozen=True)
class Server:
    port: int
    keys: Path

    def connect(self, *, host_key: str = "host_key", identity: str = "id") -> Connection:
        return Connection(
            self.port, host_key=self.keys / f"{host_key}.pub", identity=self.keys / identity, deadline_s=60
        )


@contextmanager
def serving(keys: Path) -> Iterator[Server]:
    """An sshd with the key `host_key` that `id` opens; these, and one of a `stranger`, are made in `keys`."""
    for name in ("host_key", "id", "stranger"):
        keypair.make(keys / name)
    port = free_port()
    config = keys / "sshd_config"
    config.write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {keys}/host_key\nPidFile none\n"
        f"AuthorizedKeysFile {keys}/id.pub\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
        "KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nMaxStartups 100\n"
        "Subsystem sftp internal-sftp\n"
    )
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd refuses to start without it
    with Child([SSHD, "-D", "-e", "-f", config], log_path=keys / "log"):
        yield Server(port, keys)
