"""A land whose instances, those of moto, are machines of namespaces."""

from __future__ import annotations

import email
import json
from base64 import b64decode
from typing import Any

from cluster.master.ec2 import userdata
from cluster.process import run as run_program
from tests import instances
from tests.amazon import Amazon, Call


class Land:
    """Where instances of moto are machines: as each is asked about, those that are to run do, and no others."""

    def __init__(self, amazon: Amazon, network: instances.Network) -> None:
        self.amazon, self.network = amazon, network
        self.up: dict[str, instances.Instance] = {}
        self.broken: set[str] = set()
        self.strangers = 0
        """How many of the next ones have a host key of their own."""
        amazon.faults.append(self.look)

    def look(self, call: Call) -> None:
        if call.action == "DescribeInstances":
            for one in self.amazon.running():
                if one.id not in self.up:
                    self.start(one)
            for name in set(self.up) - {one.id for one in self.amazon.running()}:
                self.kill(name)

    def kill(self, instance: str) -> None:
        machine = self.up.pop(instance)
        if instance not in self.broken:
            self.network.kill(machine.name)

    def fail(self, instance: str) -> None:
        """The machine breaks down, which Amazon does not see."""
        self.broken.add(instance)
        self.network.kill(self.up[instance].name)

    def start(self, one: Any) -> None:
        config = cloud_config(one.user_data)
        made = self.network.start(one.id[-8:])
        if self.strangers:
            self.strangers -= 1
        else:
            self.network.kill(made.name)
            key = made.directory / "ssh/ssh_host_ed25519_key"
            key.write_text(config["ssh_keys"]["ed25519_private"])
            key.with_suffix(".pub").write_text(config["ssh_keys"]["ed25519_public"])
            made = self.network.start(made.name)
        for line in config["users"][0]["ssh_authorized_keys"]:
            made.admit(line, instances.USER)
        owned = f"install -o {instances.USER}"
        words = f"{owned} -d {userdata.DIRECTORY} && {owned} /dev/null {userdata.ALIVE}"
        run_program(made.command("sh", "-c", words), deadline_s=20)
        one.nics[0].private_ip_address = made.address
        self.up[one.id] = made


def cloud_config(user_data: Any) -> dict[str, Any]:
    text = b64decode(str(user_data)).decode()
    first = email.message_from_string(text).get_payload()[0]
    return json.loads(first.get_payload().partition("\n")[2])
