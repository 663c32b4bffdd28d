"""A host that compiles for others: the real distccd, with this machine's compiler for the cross compiler."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from factories import host_sandbox

from cluster import config, target
from cluster.errors import MachineError
from cluster.host import distcc, forge, hostcompiler, kit, relay
from cluster.host.forge import Smithing
from cluster.host.pool import Member
from cluster.node import sandbox, stage, sysroot

CHOST = subprocess.run(["gcc", "-dumpmachine"], capture_output=True, text=True, check=True).stdout.strip()

needs_distcc = pytest.mark.skipif(
    not (shutil.which("distcc") and shutil.which("distccd") and sandbox.works()), reason="needs distcc and bwrap"
)


def smithing(**distcc: Any) -> Smithing:
    wanted = config.load()
    here = target.load("arm64").model_copy(update={"chost": CHOST})
    some = kit.Kit(here, "qemu", wanted.node, wanted.compile, wanted.distcc.model_copy(update=distcc), Path("/away"))
    return Smithing(some, kit.Membership("farm"))


@pytest.fixture
def equipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine has a stage, whose compiler is its own."""
    compiler: Any = SimpleNamespace(bare=SimpleNamespace(sandbox=host_sandbox()))
    monkeypatch.setattr(stage, "find", lambda *words: stage.Stage(Path("/stage")))
    monkeypatch.setattr(hostcompiler, "find", lambda *words: compiler)
    monkeypatch.setattr(sysroot, "signature", lambda root: "same")


@needs_distcc
@pytest.mark.usefixtures("equipped")
def test_a_forge_compiles_on_all_its_processors_until_it_is_stopped(
    public_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots: list[int] = []
    offloading = distcc.offloading

    def counted(*words: Any, **named: Any) -> Any:
        slots.append(named["slots"])
        return offloading(*words, **named)

    monkeypatch.setattr(distcc, "offloading", counted)
    with tempfile.TemporaryDirectory(dir=public_path) as place:
        made = smithing(slots=1).bench(Path(place))
        member = Member("farm", made.offer.address, made.offer.port, made.offer.cores)
        assert slots == [made.offer.cores]
        assert (made.offer.signature, made.offer.pilots) == ("same", False)
        assert relay.measure(member, f"{CHOST}-gcc").round_trip_s > 0
        made.stop()
        with pytest.raises(relay.Unserved):
            relay.measure(member, f"{CHOST}-gcc")


@pytest.mark.usefixtures("equipped")
def test_without_distcc_there_is_nothing_to_offer(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="enabled is false"):
        smithing(enabled=False).bench(tmp_path)


def test_without_a_stage_there_is_nothing_to_compile_with(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="the arm64 stage is not there"):
        smithing().bench(tmp_path)


def test_it_builds_no_package() -> None:
    made = forge.Forge(SimpleNamespace(), SimpleNamespace())  # type: ignore[arg-type]
    with pytest.raises(MachineError, match="this host compiles only"):
        made.build(None, "node-1", print)
