"""What hosts of the registry come to in a run: served, left alone, served again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from processes import eventually

from cluster.errors import MachineError
from cluster.master.engines.engine import Change, Draining, Resumed
from cluster.master.hosts import link, outposts
from cluster.master.hosts.outposts import Outposts
from cluster.master.hosts.registry import Machine, Registry, State

FARM = Machine("farm", "me", "farm.example", 22, "key", {"arm64": 4}, state=State.READY, reason="")
WHY = "what failed or was lost there was built elsewhere: cat/a-1"


class World:
    """Hosts that are reached when `reach` says so, and whose connection then stands until `cut`."""

    def __init__(self, place: Path) -> None:
        self.registry = Registry(place / "hosts")
        self.registry.save(FARM)
        self.heard: list[Change] = []
        self.warnings: list[str] = []
        self.tries: list[str] = []
        self.cut = threading.Event()
        self.posts = Outposts(self.base, self.registry, self.warnings.append)

    base: Any = SimpleNamespace(target="arm64", identity=Path("identity"))

    @contextmanager
    def connect(self, machine: Machine, *rest: object, **options: object) -> Iterator[None]:
        self.tries.append(machine.name)
        self.cut.wait()
        raise MachineError("the line is dead", "mend it")
        yield

    def look(self) -> list[Change]:
        """What is told when the registry is looked at."""
        heard: list[Change] = []
        self.posts.look(heard.append)
        return heard

    def put(self, **changes: Any) -> None:
        self.registry.save(replace(FARM, **changes))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(tmp_path)
    monkeypatch.setattr(link, "connect", world.connect)
    monkeypatch.setattr(outposts, "_PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(outposts, "_LOOK_S", 0.01)
    world.posts.start()
    yield world
    world.cut.set()
    world.posts.stop()


def test_a_quarantine_is_written_down_with_its_reason_and_told_to_nobody_as_resumed(world: World) -> None:
    world.posts.quarantine("farm", WHY)
    assert world.registry.get("farm") == replace(FARM, state=State.QUARANTINED, reason=WHY)
    assert world.look() == world.look() == [Draining("farm", WHY)]
    world.put()  # as `cluster host resume` does
    assert world.look() == [Resumed("farm")]
    assert world.look() == []


def test_a_host_that_is_resumed_before_anyone_looked_is_resumed_in_the_run(world: World) -> None:
    world.posts.quarantine("farm", WHY)
    world.put()
    assert world.look() == [Resumed("farm")]


def test_what_its_user_wants_of_a_host_is_not_overwritten_by_a_quarantine(world: World) -> None:
    world.put(state=State.DRAINED, reason="drained by `cluster host drain`")
    world.posts.quarantine("farm", WHY)
    assert world.registry.get("farm").state is State.DRAINED
    assert world.warnings == []


def test_a_quarantine_that_cannot_be_written_down_ends_nothing(world: World) -> None:
    world.registry.remove("farm")
    world.posts.quarantine("farm", WHY)
    (warning,) = world.warnings
    assert warning.startswith("host farm is given no more packages, and will be by the next build: there is no host")


def test_a_drained_host_that_goes_is_not_had_back_until_it_is_resumed(world: World) -> None:
    assert eventually(lambda: world.tries == ["farm"])
    world.put(state=State.DRAINED, reason="asked")
    world.look()
    world.cut.set()
    assert not eventually(lambda: len(world.tries) > 1, deadline_s=0.2)
    assert world.posts.expects()  # it may be resumed
    world.put()
    world.look()
    assert eventually(lambda: len(world.tries) > 1)


def test_a_host_that_was_removed_is_not_had_back(world: World) -> None:
    assert eventually(lambda: world.tries == ["farm"])
    world.registry.remove("farm")
    assert world.look() == [Draining("farm", "it was removed")]
    assert not world.posts.expects()
    world.cut.set()
    assert eventually(lambda: not world.posts._is_kept("farm"))
    assert world.tries == ["farm"]


def test_a_host_that_was_given_up_is_tried_again_when_it_is_resumed(world: World) -> None:
    world.cut.set()
    assert eventually(lambda: not world.posts.expects())
    assert world.warnings == ["host farm is given up: the line is dead: mend it"]
    assert (world.look(), len(world.tries)) == ([], 3)
    world.put(state=State.DRAINED, reason="asked")
    world.look()
    world.put()
    assert world.look() == [Resumed("farm")]
    assert eventually(lambda: len(world.tries) == 6)


def test_a_host_without_nodes_is_served_and_nothing_to_wait_for(world: World) -> None:
    world.registry.remove("farm")
    world.look()
    smithy = replace(FARM, name="smithy", nodes={"arm64": 0}, compiles_only=True)
    world.registry.save(smithy)
    world.registry.save(replace(smithy, name="other", nodes={"riscv": 0}))
    assert world.look() == [Draining("farm", "it was removed"), Resumed("smithy")]
    assert eventually(lambda: "smithy" in world.tries)
    assert not world.posts.expects()
    world.registry.save(replace(smithy, state=State.DRAINED, reason="asked"))
    assert Draining("smithy", "asked") in world.look()
