"""What a session decides by itself: whether the host's compiler may serve the nodes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cluster import config, target
from cluster.master import distcc, session


class Heard:
    """A reporter that keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def step(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def offload(monkeypatch: pytest.MonkeyPatch, host: str, node: str) -> tuple[str, list[str]]:
    """DISTCC_HOSTS and the warnings for the compiler versions of host and node."""

    @contextmanager
    def offloading(*words: object, **named: object) -> Iterator[distcc.Offload]:
        yield distcc.Offload(port=4000, slots=3, compiler=host)

    monkeypatch.setattr(distcc, "offloading", offloading)
    heard = Heard()
    some: Any = SimpleNamespace(config=config.load(), target=target.load("arm64"))
    hardware: Any = SimpleNamespace(stage=SimpleNamespace(facts={"compiler": node}))
    live: Any = SimpleNamespace(public=None, own=None)
    with ExitStack() as stack:
        hosts = session._offload(some, live, hardware, stack, cast(Any, heard))
    return hosts, heard.warnings


def test_the_same_compiler_is_used_through_distcc(monkeypatch: pytest.MonkeyPatch) -> None:
    assert offload(monkeypatch, "12.2.0", "12.2.0") == ("10.0.2.2:4000/3", [])


def test_another_compiler_is_not_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts, warnings = offload(monkeypatch, "14.2.0", "12.2.0")
    assert hosts == ""
    (warning,) = warnings
    assert "14.2.0" in warning
    assert "12.2.0" in warning
    assert "without distcc" in warning
