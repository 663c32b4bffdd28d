"""`cluster host` with nothing left out: the real environment, stage, QEMU and compiler, on machines of namespaces."""

from __future__ import annotations

import json

import pytest
from instances import USER, Network

from cluster import cli, paths
from cluster.master.hosts import link, setup
from cluster.master.hosts.registry import Registry, State

pytestmark = pytest.mark.vm


def test_two_hosts_are_set_up_and_nothing_is_sent_twice(instances: Network, capsys: pytest.CaptureFixture[str]) -> None:
    identity = link.identity(paths.directories().hosts)
    for name, user in (("one", "root"), ("other", USER)):
        instance = instances.start(name)
        instance.admit(identity.with_suffix(".pub").read_text(), user)
        place = ["host", "add", f"{user}@{instance.address}", "--name", name, "--host-key", instance.host_key]
        assert cli.run([*place, "--target", "arm64"]) == 0
        assert "sending stages/arm64-" in capsys.readouterr().out
        assert cli.run([*place, "--target", "arm64", "--json"]) == 0
        said = capsys.readouterr()
        assert "sending" not in said.err
        assert "the stages and programs are there, the same as here" in said.err
        assert json.loads(said.out)[0]["state"] == "ready"
    hosts = Registry(paths.directories().hosts)
    for machine in hosts.all():
        with link.connect(machine, identity) as connection:
            command = f"{setup.python(machine.software)} -c 'import distributed; print(distributed.__version__)'"
            assert link.command(machine, connection, command, deadline_s=60)
    assert [machine.state for machine in hosts.all()] == [State.READY] * 2
