"""What an instance is told at its first boot, by cloud-init: its host key, who may log in, and when it ends itself.

Two parts of one MIME message (https://cloudinit.readthedocs.io/en/latest/explanation/format.html): a cloud-config,
whose host key is in place before sshd starts, and `ec2/user-data.sh.j2`. There is no secret in it but that host key.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from pathlib import PurePosixPath
from typing import Any

import jinja2

from cluster import paths
from cluster.errors import MachineError

USER = "cluster"
"""Whom the master logs in as; may do all by sudo."""
DIRECTORY = PurePosixPath("/var/lib/portage-cluster")
ALIVE = DIRECTORY / "alive"
"""Where the master leaves the instance's /proc/uptime, as a sign of life."""
NOTICE = DIRECTORY / "notice"
"""Where the instance leaves what Amazon says of an interruption."""

LIMIT_BYTES = 16384
"""EC2 API reference, RunInstances, UserData: before it is encoded."""
_PROGRAM = "/usr/local/sbin/portage-cluster-switch"
_UNIT = "/etc/systemd/system/portage-cluster-switch.service"
_RESERVE_S = 300
"""An instance ends itself so long before its hours are over: shutting down is paid for too."""


@dataclass(frozen=True, slots=True)
class Words:
    """What differs between rentals."""

    run: str
    host_key: str
    """Private, in OpenSSH's format."""
    host_key_public: str
    authorized: tuple[str, ...]
    """The public keys that may log in."""
    hours: float
    silence_min: int


def render(words: Words) -> str:
    """The user data. Raises MachineError if it is larger than AWS takes."""
    message = MIMEMultipart(boundary="portage-cluster")
    message.attach(MIMEText("#cloud-config\n" + json.dumps(_cloud_config(words)), "cloud-config", "us-ascii"))
    message.attach(MIMEText(_template("user-data.sh.j2", words), "x-shellscript", "us-ascii"))
    text = message.as_string()
    if len(text.encode()) > LIMIT_BYTES:
        raise MachineError(f"the user data has {len(text.encode())} bytes, and AWS takes {LIMIT_BYTES}", "shorten it")
    return text


def _cloud_config(words: Words) -> dict[str, Any]:
    """JSON, which is YAML. Its modules: https://cloudinit.readthedocs.io/en/latest/reference/modules.html"""
    return {
        "ssh_deletekeys": True,
        "ssh_genkeytypes": [],
        "ssh_keys": {"ed25519_private": words.host_key, "ed25519_public": words.host_key_public},
        "ssh_pwauth": False,
        "disable_root": True,
        "users": [
            {
                "name": USER,
                "shell": "/bin/bash",
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "ssh_authorized_keys": list(words.authorized),
            }
        ],
        "write_files": [
            {"path": _PROGRAM, "permissions": "0755", "content": paths.data("ec2", "switch.py").read_text()},
            {"path": _UNIT, "permissions": "0644", "content": _template("switch.service.j2", words)},
        ],
    }


def _template(name: str, words: Words) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(paths.data("ec2")), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    end_s = int(words.hours * 3600) - _RESERVE_S
    return environment.get_template(name).render(
        run=words.run,
        user=USER,
        directory=DIRECTORY,
        program=_PROGRAM,
        silence_s=words.silence_min * 60,
        end_s=end_s,
        end_min=end_s // 60,
    )
