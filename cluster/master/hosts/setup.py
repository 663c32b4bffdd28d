"""Putting on a host what nodes need there: Debian packages, portage-cluster, stages; then measuring and checking it.

On the host, in its user's home, .local/share/portage-cluster/host/
    KEY/venv/    a virtual environment with the portage-cluster of that KEY (see `wheels`), KEY/ready when it is whole
    cache/       XDG_CACHE_HOME of what runs there: portage-cluster/ is laid out as the master's cache
    state/       XDG_STATE_HOME
What is there already is left as it is: setting up an unchanged host again sends nothing.
"""

from __future__ import annotations

import hashlib
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from cluster import paths
from cluster.errors import ClusterError, MachineError
from cluster.host import receive
from cluster.host.facts import Facts
from cluster.host.fitness import COMPILES, Fitness
from cluster.master.hosts import check, link, parts, wheels
from cluster.master.hosts.registry import Machine, State
from cluster.master.progress import Teller
from cluster.node import drivers
from cluster.node.ssh import Connection
from cluster.process import run

HOME: Final = ".local/share/portage-cluster/host"
"""Below the home of the host's user, where commands start."""
_ASK_S = 60.0
_MEASURE_S = 180.0
_EXAMINE_S = 1800.0  # a host of another architecture fetches QEMU and a compiler first
_INSTALL_S = 1800.0
_SEND_S = 7200.0
_ENVIRONMENT_MIB = 700
_KEPT_ENVIRONMENTS = 3

_LOOK = """
echo "arch=$(uname -m)"
echo "clock=$(date +%s)"
echo "free=$(df -Pm "$HOME" | tail -n 1 | tr -s ' ' | cut -d ' ' -f 4)"
if [ "$(id -u)" -eq 0 ]; then echo may=yes; else
	echo 'root=sudo -n'
	sudo -n true 2> /dev/null && echo may=yes
fi
if command -v dpkg-query > /dev/null; then
	echo debian=yes
	for package in PACKAGES; do
		dpkg-query -W -f '${Status}' $package 2> /dev/null | grep -q '^install ok installed$' || echo "missing=$package"
	done
fi
"""
_PYTHON = "python3 -c 'import sys; print(\"%d.%d\" % sys.version_info[:2])'"


class HostUnfit(MachineError):
    """A host cannot be given packages; `what` is why, in a line."""

    def __init__(self, name: str, problems: tuple[check.Problem, ...]) -> None:
        super().__init__(f"host {name} cannot be used: {check.reason(problems)}")
        self.reason = check.reason(problems)


def python(software: str) -> str:
    """The shell's words that run the Python of the `software` installed on a host, with the host's directories."""
    home = f'"$HOME/{HOME}'
    return f'env XDG_CACHE_HOME={home}/cache" XDG_STATE_HOME={home}/state" {home}/{software}/venv/bin/python"'


@dataclass(frozen=True, slots=True)
class Guest:
    """A host that is being set up, as a shell of its user."""

    machine: Machine
    connection: Connection

    def run(self, command: str, *, deadline_s: float = _ASK_S) -> str:
        """What `command` prints; as `link.command`."""
        return link.command(self.machine, self.connection, command, deadline_s=deadline_s)


def prepare(machine: Machine, directories: paths.Directories, teller: Teller, *, memory_mib: int) -> Machine:
    """Set `machine` up for nodes of `memory_mib` MiB for each target that `machine.nodes` names.

    Returns it with what it is, ready unless its user drained it, with as many nodes as it bears where
    `machine.nodes` says 0, unless it only compiles, and with the drivers that suit it where `machine.drivers` names
    none. Raises HostUnfit if it fails a check, and other MachineErrors if something breaks.
    """
    with link.connect(machine, link.identity(directories.hosts)) as connection:
        guest = Guest(machine, connection)
        teller.step(f"looking at {machine}")
        bare = look(guest)
        machine = replace(machine, drivers=drivers.suited(machine.nodes, bare.arch) | dict(machine.drivers))
        _insist(machine, check.before(machine, bare))
        house = wheels.ensure(directories.cache, teller.step)
        wanted = _parts(machine, bare.arch, directories.cache, teller)
        missing = _missing(guest, wanted)
        need_mib = _ENVIRONMENT_MIB + sum(sealed.size_mib for sealed in missing)
        _insist(machine, check.room(machine, bare, need_mib))
        _install_packages(guest, bare, teller)
        _install_software(guest, house, bare.arch, teller)
        _copy(guest, house.key, missing, teller)
        machine = replace(machine, software=house.key)
        teller.step(f"measuring {machine.name} and this machine, and checking it")
        return examine(machine, connection, memory_mib=memory_mib)


def checked(
    machine: Machine, connection: Connection, cache: Path, say: Callable[[str], object], *, memory_mib: int
) -> Machine:
    """The `machine` measured and checked anew, without changing anything there. Raises HostUnfit."""
    software = wheels.ensure(cache, say).key
    _insist(machine, check.current(machine, look(Guest(machine, connection)), software))
    return examine(machine, connection, memory_mib=memory_mib)


def examine(machine: Machine, connection: Connection, *, memory_mib: int) -> Machine:
    """The `machine`, which has been set up, measured and checked anew. Raises HostUnfit."""
    guest = Guest(machine, connection)
    interpreter = python(machine.software)
    theirs = Facts.parse(guest.run(f"{interpreter} -m cluster.host.facts", deadline_s=_MEASURE_S))
    offset_s = theirs.clock_s - time.time()
    ours = here()
    theirs = theirs.beside(ours, offset_s)
    bears = 0 if machine.compiles_only else check.nodes_for(theirs, memory_mib)
    machine = replace(machine, facts=theirs, nodes={name: count or bears for name, count in machine.nodes.items()})
    words = shlex.join(f"{name}={COMPILES if machine.compiles_only else machine.kind(name)}" for name in machine.nodes)
    fitness = Fitness.parse(guest.run(f"{interpreter} -m cluster.host.fitness {words}", deadline_s=_EXAMINE_S))
    _insist(machine, check.after(machine, ours, theirs, fitness, memory_mib))
    if machine.state in (State.DRAINED, State.QUARANTINED):
        return machine
    return replace(machine, state=State.READY, reason="")


def here() -> Facts:
    """What this machine is, measured as hosts are."""
    return Facts.parse(run([sys.executable, "-m", "cluster.host.facts"], deadline_s=_MEASURE_S))


def look(guest: Guest) -> check.Bare:
    """What the host has, asked of its shell alone."""
    script = _LOOK.replace("PACKAGES", " ".join(host_packages()))
    said = [line.partition("=") for line in guest.run(script).splitlines() if "=" in line]
    answers = {key: value for key, _, value in said}
    try:
        free_mib, clock = int(answers["free"]), int(answers["clock"])
    except (KeyError, ValueError) as error:
        raise MachineError(
            f"the shell of host {guest.machine} does not answer", "give its user a POSIX shell"
        ) from error
    return check.Bare(
        arch=answers.get("arch", ""),
        free_mib=free_mib,
        clock_offset_s=clock - time.time(),
        missing=tuple(value for key, _, value in said if key == "missing"),
        debian="debian" in answers,
        root=answers.get("root", ""),
        may="may" in answers,
    )


def host_packages() -> tuple[str, ...]:
    """The Debian packages that a host needs."""
    lines = paths.data("stage-images", "host-packages.txt").read_text().splitlines()
    return tuple(sorted({line for line in lines if line and not line.startswith("#")}))


def _insist(machine: Machine, problems: tuple[check.Problem, ...]) -> None:
    if problems:
        raise HostUnfit(machine.name, problems)


def _install_packages(guest: Guest, bare: check.Bare, teller: Teller) -> None:
    if not bare.missing:
        teller.tell(f"the {len(host_packages())} Debian packages are there")
        return
    packages = " ".join(bare.missing)
    teller.step(f"installing Debian packages: {packages}")
    install = f"DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends {packages}"
    guest.run(f"{bare.root} apt-get update && {bare.root} env {install}", deadline_s=_INSTALL_S)


def _install_software(guest: Guest, house: wheels.Wheelhouse, arch: str, teller: Teller) -> None:
    place = f"{HOME}/{house.key}"
    if guest.run(f"if [ -e {place}/ready ]; then echo ready; fi").strip():
        teller.tell("portage-cluster is there, the same as here")
        return
    python_version = guest.run(_PYTHON).strip()
    if tuple(map(int, python_version.split("."))) < check.OLDEST_PYTHON:
        problem = check.Problem(f"its Python is {python_version}", "use a host with Debian 12 or newer")
        raise HostUnfit(guest.machine.name, (problem,))
    teller.step("sending portage-cluster and what it needs")
    _send_wheels(guest, house, place)
    teller.step("installing it there")
    if house.suits(arch, python_version):
        source = "--no-index --find-links wheels"
    else:
        source = f"--find-links wheels --constraint wheels/{wheels.CONSTRAINTS} --only-binary portage-cluster"
        guest.run(f"cd {place}/wheels && find . -name '*.whl' ! -name 'portage_cluster-*' -delete")
    pip = f"venv/bin/pip install --disable-pip-version-check --quiet {source} '{wheels.REQUIREMENT}'"
    install = f"python3 -m venv --clear venv && {pip} && rm -r wheels && touch ready"
    guest.run(f"cd {place} && {install}", deadline_s=_INSTALL_S)
    guest.run(f"cd {HOME} && ls -dt */venv | tail -n +{_KEPT_ENVIRONMENTS + 1} | xargs -r dirname | xargs -r rm -r")


def _send_wheels(guest: Guest, house: wheels.Wheelhouse, place: str) -> None:
    with house.archive.open("rb") as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()
        source.seek(0)
        check_sum = f"echo '{digest}  wheels.tar' | sha256sum --check --quiet -"
        script = (
            f"mkdir -p {place} && cd {place} && rm -rf wheels && mkdir wheels && cat > wheels.tar && "
            f"{check_sum} && tar -xf wheels.tar -C wheels && rm wheels.tar"
        )
        link.feed(guest.machine, guest.connection, script, source, deadline_s=_SEND_S)


def _parts(machine: Machine, arch: str, cache: Path, teller: Teller) -> tuple[parts.Sealed, ...]:
    """All that the targets of `machine` need, each once."""
    of = parts.of_compiles if machine.compiles_only else parts.of
    found = dict.fromkeys(part for name in machine.nodes for part in of(name, arch, cache, teller.step))
    teller.step("comparing stages and programs with what is there")
    return tuple(part.sealed() for part in found)


def _missing(guest: Guest, wanted: tuple[parts.Sealed, ...]) -> tuple[parts.Sealed, ...]:
    """Those that the host has not, or not in the same bytes."""
    places = " ".join(shlex.quote(sealed.part.place) for sealed in wanted)
    content = f"{HOME}/cache/portage-cluster/$place/{receive.CONTENT}"
    there = guest.run(f"for place in {places}; do cat {content} 2> /dev/null; echo; done").splitlines()
    return tuple(sealed for sealed, has in zip(wanted, there, strict=True) if has.strip() != sealed.sha256)


def _copy(guest: Guest, software: str, missing: tuple[parts.Sealed, ...], teller: Teller) -> None:
    if not missing:
        teller.tell("the stages and programs are there, the same as here")
    for sealed in missing:
        part = sealed.part
        teller.step(f"sending {part.place} ({sealed.size_mib} MiB)")
        place = f'"$HOME/{HOME}/cache/portage-cluster/{part.place}"'
        command = f"{python(software)} -m cluster.host.receive {place} {sealed.sha256}"
        with part.compressed() as source:
            link.feed(guest.machine, guest.connection, command, source, deadline_s=_SEND_S)


def clear(machine: Machine, connection: Connection, identity: Path) -> None:
    """Take away what is on the host: what was put there, and the admission of this master. Raises MachineError."""
    Guest(machine, connection).run(f"chmod -R u+w {HOME} 2> /dev/null; rm -rf {HOME}", deadline_s=_INSTALL_S)
    link.dismiss(machine, connection, identity)


def unfit(machine: Machine, error: ClusterError) -> Machine:
    """The machine as it is after `error`: without work until it is mended."""
    reason = error.reason if isinstance(error, HostUnfit) else str(error).removeprefix(f"host {machine} ")
    return replace(machine, state=State.UNFIT, reason=reason)
