"""Hosts that a user has added, as files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import InputError
from cluster.host.facts import Facts, Rates
from cluster.master.hosts.registry import Machine, Registry, State

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJCxYIzLF3uaADXPDNO/z3bJ2aqt2pZbaLvZ1iJcW+F3"
FACTS = Facts("x86_64", 8, 16000, 90000, "3.11.2", "0.1.0", "Debian 12", True, 1.5, Rates(700.0, 600.0), 1.25)
MACHINE = Machine("farm", "me", "farm.example", 22, KEY, {"arm64": 4}, {"arm64": "qemu"}, FACTS, State.READY, "")


@pytest.mark.parametrize(
    ("before", "meanwhile", "after", "kept"),
    [
        (State.READY, State.READY, State.READY, State.READY),
        (State.READY, State.QUARANTINED, State.READY, State.QUARANTINED),
        (State.QUARANTINED, State.READY, State.QUARANTINED, State.READY),
        (State.UNFIT, State.UNFIT, State.READY, State.READY),
        (State.READY, State.DRAINED, State.UNFIT, State.UNFIT),
    ],
)
def test_a_check_does_not_undo_what_was_said_of_a_host_meanwhile(
    tmp_path: Path, before: State, meanwhile: State, after: State, kept: State
) -> None:
    registry = Registry(tmp_path)
    registry.save(replace(MACHINE, state=meanwhile, reason=meanwhile))
    found = replace(MACHINE, state=after, reason=after, nodes={"arm64": 9})
    registry.renew(replace(MACHINE, state=before, reason=before), found)
    assert registry.get("farm") == replace(found, state=kept, reason=kept)


@given(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True),
    st.dictionaries(st.sampled_from(["arm64", "arm", "riscv"]), st.integers(1, 99)),
    st.sampled_from(State),
    st.text(),
    st.booleans(),
)
def test_what_is_saved_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    nodes: dict[str, int],
    state: State,
    reason: str,
    tunnel: bool,
) -> None:
    registry = Registry(tmp_path_factory.mktemp("hosts"))
    machine = replace(MACHINE, name=name, nodes=nodes, state=state, reason=reason, tunnel=tunnel)
    registry.save(machine)
    assert registry.get(name) == machine
    assert registry.all() == (machine,)


def test_a_removed_machine_is_unknown_and_the_others_are_named(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "hosts")
    for name in ("a", "b"):
        registry.save(replace(MACHINE, name=name))
    registry.remove("a")
    registry.remove("a")
    with pytest.raises(InputError, match=r"there is no host 'a': hosts: b"):
        registry.get("a")


def test_where_there_is_none_the_verb_is_named(tmp_path: Path) -> None:
    assert Registry(tmp_path / "hosts").all() == ()
    with pytest.raises(InputError, match="cluster host add"):
        Registry(tmp_path / "hosts").get("a")


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".a", "-a", "a:1", "a b"])
def test_a_name_that_is_no_files_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be a host's name"):
        Registry(tmp_path).save(replace(MACHINE, name=name))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "named"), [("", "EOF"), ("{}", "name"), ('{"name": "a", "user": 2}', "user"), ("[]", "object")]
)
def test_a_file_that_is_no_machine_is_named(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=rf"a\.json: .*{named}.*add the host again"):
        Registry(tmp_path).all()
