"""What nodes are given: whether a cross compiler may serve them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from cluster import config, target
from cluster.errors import MachineError
from cluster.host import hostcompiler
from cluster.host import kit as kits


class Heard:
    """A reporter that keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def step(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def found(monkeypatch: pytest.MonkeyPatch, **sections: Any) -> tuple[Any, list[str]]:
    """The cross compiler of a session whose config differs in `sections`, and the warnings."""
    heard = Heard()
    wanted = config.load().model_copy(update=sections)
    some: Any = SimpleNamespace(compile=wanted.compile, distcc=wanted.distcc, target=None, cache=None)
    cross = kits._cross(some, cast(Any, None), cast(Any, heard))
    return cross, heard.warnings


def test_a_cross_compiler_that_agrees_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostcompiler, "find", lambda *words: "it")
    assert found(monkeypatch) == ("it", [])


def test_another_compiler_is_not_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(*words: object) -> None:
        raise MachineError("the host's cross compiler is not the nodes' own", "it is 12, theirs is 14")

    monkeypatch.setattr(hostcompiler, "find", find)
    cross, warnings = found(monkeypatch)
    assert cross is None
    (warning,) = warnings
    assert "it is 12, theirs is 14" in warning
    assert "every compile stays in its node" in warning


def test_who_wants_no_offload_needs_no_cross_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostcompiler, "find", lambda *words: pytest.fail("nobody asked"))
    defaults = config.load()
    off = {
        "compile": defaults.compile.model_copy(update={"enabled": False}),
        "distcc": defaults.distcc.model_copy(update={"enabled": False}),
    }
    assert found(monkeypatch, **off) == (None, [])


@pytest.mark.parametrize(("machine", "flies"), [("x86_64", False), ("aarch64", True)])
def test_no_pilot_flies_where_the_host_runs_the_targets_programs(
    monkeypatch: pytest.MonkeyPatch, machine: str, flies: bool
) -> None:
    monkeypatch.setattr("os.uname", lambda: SimpleNamespace(machine=machine))
    monkeypatch.setattr(kits.pilot, "is_room", lambda *words: True)
    monkeypatch.setattr(kits.pilot, "ensure", lambda *words: "a kit")
    wanted = config.load()
    kit: Any = SimpleNamespace(target=target.load("amd64"), node=wanted.node, compile=wanted.compile, cache=None)
    cross: Any = SimpleNamespace(bare=None, toolchain=SimpleNamespace(drivers=dict))
    assert (kits._pilot(kit, cross, 1, cast(Any, Heard())) is not None) is flies
