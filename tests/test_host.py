"""`cluster host` with machines of namespaces: the whole of it, and what is said when something is not as it should be.

What takes long to put there - portage-cluster itself, stages - is there already in the fast tests.
"""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from instances import USER, Instance, Network

from cluster import cli, paths
from cluster.host.facts import Facts, Rates
from cluster.host.fitness import Fitness
from cluster.master.hosts import parts, setup, wheels
from cluster.master.hosts.parts import Part
from cluster.master.hosts.registry import Machine, Registry, State
from cluster.node import ssh

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).parents[1]
FACTS = Facts("x86_64", 8, 16000, 90000, "3.11.2", "0.1.0", "Debian 12", False, 0.0, Rates(700.0, 900.0))
FITNESS = Fitness(sandbox=True, emulators={"arm64": "11.0"}, problems={})
# What runs as a host's Python: measuring takes seconds, and a stage to try is not there.
PYTHON = f"""
case $2 in
cluster.host.facts) echo '{json.dumps(asdict(FACTS))}' | sed "s/\\"clock_s\\": 0.0/\\"clock_s\\": $(date +%s)/" ;;
cluster.host.fitness) echo '{json.dumps(asdict(FITNESS))}' ;;
*) PYTHONPATH={CHECKOUT} exec {sys.executable} "$@" ;;
esac
"""


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hosts run this checkout, need one small directory beside, and say what they are."""
    (tmp_path / "cache/stages/arm64").mkdir(parents=True)
    (tmp_path / "cache/stages/arm64/disk").write_bytes(b"disk" * 1000)
    part = Part("stages/arm64", tmp_path / "cache/stages/arm64")
    house = wheels.Wheelhouse(tmp_path / "abc.tar", "x86_64", "3.11")
    monkeypatch.setattr(wheels, "ensure", lambda cache, say: house)
    monkeypatch.setattr(parts, "of", lambda name, arch, cache, say: (part,))
    monkeypatch.setattr(setup, "_install_software", lambda guest, house, arch, reporter: None)
    monkeypatch.setattr(setup, "python", lambda software: f"sh -c {shlex.quote(PYTHON)} sh")
    monkeypatch.setattr(setup, "here", lambda: replace(FACTS, rates=Rates(700.0, 600.0)))


def add(instance: Instance, *words: str, user: str = "root") -> int:
    place = f"{user}@{instance.address}"
    return cli.run(["host", "add", place, "--name", instance.name, "--host-key", instance.host_key, *words])


def forget(instance: Instance, package: str) -> None:
    """Let the instance's dpkg not know `package`: it takes seconds to remove one."""
    edit = f"/^Package: {package}$/,/^$/ s/^Status: .*/Status: deinstall ok config-files/"
    subprocess.run(instance.command("sed", "-i", edit, "/var/lib/dpkg/status"), check=True)


def hosts() -> Registry:
    return Registry(paths.directories().hosts)


@pytest.mark.usefixtures("prepared")
def test_a_host_is_added_listed_drained_resumed_and_removed(
    instances: Network, own_key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    instance = instances.start("one")
    instance.admit(own_key)
    assert add(instance, "--nodes", "3", "--json") == 0
    (added,) = json.loads(capsys.readouterr().out)
    assert added["state"] == "ready"
    assert added["nodes"] == {"arm64": 3}
    assert added["facts"]["speed"] == 1.5
    assert abs(added["facts"]["clock_offset_s"]) < 10
    content = instance.directory / f"root/{setup.HOME}/cache/portage-cluster/stages/arm64/disk"
    assert content.read_bytes() == b"disk" * 1000
    for verb, state in (("drain", State.DRAINED), ("resume", State.READY), ("drain", State.DRAINED)):
        assert cli.run(["host", verb, "one"]) == 0
        assert hosts().get("one").state is state
    capsys.readouterr()
    assert add(instance) == 0
    said = capsys.readouterr().out
    assert "stages and programs are there, the same as here" in said
    assert "one: drained by" in said
    assert hosts().get("one").state is State.DRAINED
    assert cli.run(["host", "remove", "one"]) == 0
    assert not content.exists()
    assert (instance.directory / "root/.ssh/authorized_keys").read_text() == f"{own_key.strip()}\n"
    capsys.readouterr()
    assert cli.run(["host", "list"]) == 0
    assert "There is no host but this machine" in capsys.readouterr().out


@pytest.mark.usefixtures("prepared")
def test_a_host_that_compiles_only_gets_what_compilers_need_and_the_rest_when_it_is_to_have_nodes(
    instances: Network, own_key: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (part,) = parts.of("arm64", "x86_64", paths.directories().cache, print)
    monkeypatch.setattr(parts, "of_compiles", lambda *words: (replace(part, without=("./disk",)),))
    (part.directory / "sysroot").mkdir()
    instance = instances.start("one")
    instance.admit(own_key)
    assert add(instance, "--compiles-only") == 0
    assert "arm64 compiles" in capsys.readouterr().out
    machine = hosts().get("one")
    assert (machine.nodes, machine.compiles_only, machine.state) == ({"arm64": 0}, True, State.READY)
    assert machine.serves("arm64")
    assert not machine.serves("riscv")
    there = instance.directory / f"root/{setup.HOME}/cache/portage-cluster/stages/arm64"
    assert (there / "sysroot").is_dir()
    assert not (there / "disk").exists()
    assert cli.run(["host", "check", "one"]) == 0
    assert hosts().get("one").nodes == {"arm64": 0}
    assert add(instance, "--nodes", "2") == 0
    assert (there / "disk").exists()
    assert hosts().get("one").nodes == {"arm64": 2}


@pytest.mark.usefixtures("prepared")
def test_a_check_finds_what_went_wrong_since_and_what_was_mended(
    instances: Network, own_key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    instance = instances.start("one")
    instance.admit(own_key)
    assert add(instance) == 0
    instances.kill("one")
    instances.start("one", clock_s=90)
    assert cli.run(["host", "check"]) == 2
    assert hosts().get("one").state is State.UNFIT
    assert "s ahead of this machine's: set one of them" in hosts().get("one").reason
    capsys.readouterr()
    assert cli.run(["host", "resume", "one"]) == 1
    assert "host one is unfit: its clock" in capsys.readouterr().err
    instances.kill("one")
    forget(instances.start("one"), "bzip2")
    assert cli.run(["host", "check", "one"]) == 2
    assert hosts().get("one").reason.startswith("it lacks Debian packages: bzip2: run `cluster host add root@")
    instances.kill("one")
    instances.start("one")
    assert cli.run(["host", "check", "one"]) == 0
    assert hosts().get("one").state is State.READY


@pytest.mark.usefixtures("prepared")
def test_an_ordinary_user_who_may_not_install_packages_is_told_which(
    instances: Network, own_key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    instance = instances.start("one")
    instance.admit(own_key, USER)
    forget(instance, "bzip2")
    assert add(instance, user=USER) == 1
    error = capsys.readouterr().err
    assert f"cluster: host one cannot be used: it lacks Debian packages and {USER} may not use sudo" in error
    assert error.endswith("as root, run: apt-get install --no-install-recommends bzip2\n")
    assert hosts().get("one").state is State.UNFIT


@pytest.mark.usefixtures("prepared")
def test_a_disk_that_is_too_small_gets_nothing(
    instances: Network, own_key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    instance = instances.start("one")
    instance.admit(own_key)
    small = "cp -r /root/.ssh /run; mount -t tmpfs -o size=20m,mode=700 small /root; cp -r /run/.ssh /root"
    subprocess.run(instance.command("sh", "-c", small), check=True)
    assert add(instance) == 1
    assert "its disk has 20 MiB free and 700 MiB are needed" in capsys.readouterr().err


def test_a_key_that_nobody_vouched_for_is_shown_and_refused(
    instances: Network, own_key: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = instances.start("one")
    monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n"))  # which is no terminal
    assert cli.run(["host", "add", f"root@{instance.address}"]) == 1
    error = capsys.readouterr().err
    assert f"it shows the key {ssh.fingerprint(instance.host_key)}: if that is its own" in error
    assert f"--host-key '{instance.host_key}'" in error
    assert not hosts().all()


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize("answer", ["yes", "no", ""])
def test_on_a_terminal_the_user_is_asked(
    instances: Network, own_key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str
) -> None:
    instance = instances.start("one")
    instance.admit(own_key)
    typed = io.StringIO(f"{answer}\n")
    typed.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdin", typed)
    assert cli.run(["host", "add", f"root@{instance.address}", "--name", "one"]) == (0 if answer == "yes" else 1)
    assert ssh.fingerprint(instance.host_key) in capsys.readouterr().err
    assert [machine.host_key for machine in hosts().all()] == ([instance.host_key] if answer == "yes" else [])


def test_one_that_shows_another_key_is_not_added(
    instances: Network, own_key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = instances.start("one"), instances.start("other")
    one.admit(own_key)
    assert add(replace(one, host_key=other.host_key)) == 1
    error = capsys.readouterr().err
    assert "host one (root@" in error
    assert ssh.fingerprint(one.host_key) in error
    assert ssh.fingerprint(other.host_key) in error
    assert not hosts().all()


def test_a_host_that_lets_nobody_in_can_be_removed_and_what_stays_there_is_said(
    instances: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    instance = instances.start("one")
    hosts().save(Machine("one", "root", instance.address, 22, instance.host_key))
    assert cli.run(["host", "remove", "one"]) == 0
    assert f"{setup.HOME} and this master's key in authorized_keys stay there" in capsys.readouterr().out
    assert not hosts().all()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["add", "me@"], "'me@' is no machine: write USER@ADDRESS"),
        (["add", "me@a b"], "'me@a b' is no machine"),
        (["add", "me@a", "--nodes", "0"], "--nodes 0 is too few"),
        (["add", "me@a", "--compiles-only", "--nodes", "2"], "--compiles-only is for a host without nodes"),
        (["add", "me@a", "--target", "vax"], "unknown target 'vax'"),
        (
            ["add", "me@a", "--host-key", "ssh-ed25519 nonsense"],
            "--host-key: 'ssh-ed25519 nonsense' is not a public key",
        ),
        (["add", "me@elsewhere", "--name", "farm"], "there is a host farm already, at me@farm.example"),
        (["add", "me@farm.example", "--name", "barn"], "farm.example is host farm already"),
        (["drain", "barn"], "there is no host 'barn': hosts: farm"),
        (["check", "barn"], "there is no host 'barn': hosts: farm"),
    ],
)
def test_input_that_cannot_be_used_is_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    hosts().save(Machine("farm", "me", "farm.example", 22, "ssh-ed25519 AAAA"))
    assert cli.run(["host", *words]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"cluster: {said}")
    assert error.count("\n") == 1
