"""Which hosts a run begins with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster import config, paths
from cluster.errors import InputError
from cluster.master.engines import remote
from cluster.master.hosts.registry import Machine, Registry, State

FARM = Machine("farm", "me", "farm.example", 22, "key", {"arm64": 4}, state=State.READY, reason="")
SMITHY = replace(FARM, name="smithy", nodes={"arm64": 0}, compiles_only=True)


@pytest.fixture
def session(tmp_path: Path) -> Any:
    directories = paths.Directories(tmp_path / "state", tmp_path / "cache", tmp_path / "binhosts")
    return SimpleNamespace(config=config.load(), directories=directories, target=SimpleNamespace(name="arm64"))


def names(session: Any, *machines: Machine) -> list[str]:
    registry = Registry(session.directories.hosts)
    for machine in machines:
        registry.save(machine)
    return [machine.name for machine in remote.machines(session)]


def test_a_run_begins_with_the_hosts_that_are_ready_to_build_or_to_compile_for_its_target(session: Any) -> None:
    drained = replace(FARM, name="drained", state=State.DRAINED)
    others = (replace(SMITHY, name="other", nodes={"riscv": 0}), replace(FARM, name="barn", nodes={"riscv": 1}))
    assert names(session, FARM, SMITHY, drained, *others) == ["farm", "smithy"]


def test_hosts_that_only_compile_are_of_no_use_alone(session: Any) -> None:
    with pytest.raises(InputError, match="no host that is ready has nodes for arm64: smithy only") as error:
        names(session, SMITHY, replace(FARM, state=State.DRAINED))
    assert "--local" in str(error.value)


def test_without_hosts_a_run_is_this_machines(session: Any) -> None:
    assert names(session, replace(FARM, state=State.UNFIT)) == []
