"""Instances with a real sshd, in namespaces: started when moto says running, killed when it says terminated."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cluster import paths
from cluster.cli import run
from cluster.errors import MachineError
from cluster.master.ec2 import notices, userdata
from cluster.master.ec2.notices import Draining, News, Notices, Went
from cluster.master.hosts import link, setup
from cluster.master.hosts.registry import Machine, Registry, State
from cluster.process import run as run_program
from tests import amazon as amazons
from tests import instances
from tests.amazon import Amazon
from tests.land import Land

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(instances.missing), reason=instances.missing)]


@pytest.fixture(scope="module")
def server() -> Iterator[Amazon]:
    with amazons.serving() as amazon:
        yield amazon


@pytest.fixture
def land(server: Amazon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Land]:
    amazons.configure(monkeypatch, server.url)
    server.clear()
    monkeypatch.setattr(userdata, "USER", instances.USER)

    def prepare(machine: Machine, *_: object, **__: object) -> Machine:
        return replace(machine, state=State.READY, reason="")

    monkeypatch.setattr(setup, "prepare", prepare)
    with instances.network(tmp_path / "machines") as network:
        yield Land(server, network)


def up(land: Land, count: int) -> int:
    place = f"{land.network.master}/24"
    limits = ["--max-price", "5", "--budget", "20", "--from", place]
    return run(["ec2", "up", "--instances", f"c7g.large={count}", *limits])


def registry() -> Registry:
    return Registry(paths.directories().hosts)


def test_instances_join_are_heard_and_are_gone_at_the_end(
    land: Land, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert up(land, 2) == 0
    first, second = registry().all()
    identity = link.identity(paths.directories().hosts)
    assert {first.rented, second.rented} == set(land.up)
    assert first.tunnel
    assert first.state is State.READY
    monkeypatch.setattr(notices, "_MISSED", 1)
    monkeypatch.setattr(notices, "_ANSWER_S", 3.0)
    asked = Notices(lambda: (first, second), identity)
    assert list(asked.poll()) == []
    alive = run_program(land.up[first.rented].command("cat", str(userdata.ALIVE)), deadline_s=20)
    assert float(alive.split()[0]) > 0
    said = '{"action": "terminate", "time": "2026-01-01T00:02:00Z"}'
    run_program(land.up[first.rented].command("sh", "-c", f"echo '{said}' >{userdata.NOTICE}"), deadline_s=20)
    assert list(asked.poll()) == [Draining(first.name, "2026-01-01T00:02:00Z")]
    land.kill(second.rented)
    assert list(asked.poll()) == [Went(second.name)]
    asked.close()
    land.amazon.ec2.terminate_instances([second.rented])
    assert run(["ec2", "status"]) == 0
    assert registry().all() == (first,)
    assert run(["ec2", "down"]) == 0
    assert land.amazon.running() == []
    assert registry().all() == ()


def test_an_instance_with_another_host_key_is_ended_and_said(land: Land, capsys: pytest.CaptureFixture[str]) -> None:
    land.strangers = 1
    assert up(land, 2) == 0
    assert "answers with another key" in capsys.readouterr().out
    [machine] = registry().all()
    assert [one.id for one in land.amazon.running()] == [machine.rented]
    assert run(["ec2", "down"]) == 0


def test_a_watch_tells_until_it_is_over(land: Land, monkeypatch: pytest.MonkeyPatch) -> None:
    assert up(land, 1) == 0
    [machine] = registry().all()
    run_program(land.up[machine.rented].command("sh", "-c", f"echo soon >{userdata.NOTICE}"), deadline_s=20)
    heard: list[News] = []
    with notices.watching(lambda: (machine,), link.identity(paths.directories().hosts), heard.append, every_s=0.05):
        end = time.monotonic() + 30
        while not heard and time.monotonic() < end:
            time.sleep(0.02)
    assert heard == [Draining(machine.name, "")]
    assert run(["ec2", "down"]) == 0


def test_what_a_host_says_of_an_interruption_is_read() -> None:
    assert notices.notice("a", "") is None
    assert notices.notice("a", '{"action": "stop", "time": "T"}') == Draining("a", "T")
    assert notices.notice("a", "[]") == Draining("a", "")


def test_a_host_that_is_not_there_went_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: object, **__: object) -> None:
        raise MachineError("nobody")

    monkeypatch.setattr(link, "connect", nobody)
    asked = Notices(lambda: [Machine("a", "u", "192.0.2.1", 22, "key", rented="i-1")], tmp_path)
    told = [list(asked.poll()) for _ in range(8)]
    assert told == [[], [], [], [], [], [Went("a")], [], []]
    asked.close()
