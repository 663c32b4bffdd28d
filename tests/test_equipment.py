"""What hosts are given to build with."""

from __future__ import annotations

from pathlib import Path

import pytest
from sessions import session_in

from cluster.host.forge import Smithing
from cluster.host.workshop import Trade
from cluster.master import equipment
from cluster.master.hosts.registry import Machine
from cluster.master.session import Session


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return session_in(tmp_path)


def test_each_host_builds_with_nodes_of_its_own_kind_and_number(session: Session) -> None:
    emulated = Machine("a", "me", "a.example", 22, "key", {"arm64": 4, "riscv": 1}, {"arm64": "qemu"})
    native = Machine("b", "me", "b.example", 22, "key", {"arm64": 16}, {"arm64": "chroot", "riscv": "qemu"})
    trades = [equipment.trade_for(session, machine) for machine in (emulated, native)]
    assert [(trade.kit.kind, trade.nodes) for trade in trades if isinstance(trade, Trade)] == [
        ("qemu", 4),
        ("chroot", 16),
    ]
    assert {trade.kit.target.name for trade in trades} == {"arm64"}


def test_a_host_without_nodes_is_equipped_to_compile(session: Session) -> None:
    smithy = Machine("c", "me", "c.example", 22, "key", {"arm64": 0}, {"arm64": "qemu"}, compiles_only=True)
    made = equipment.trade_for(session, smithy)
    assert isinstance(made, Smithing)
    assert (made.kit.target.name, made.membership.host) == ("arm64", "c")
