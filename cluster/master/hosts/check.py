"""Whether a host may be given packages: what is compared, and how to mend what is not as it is to be. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cluster.host.facts import Facts
from cluster.host.fitness import Fitness
from cluster.master.hosts.registry import Machine

CLOCK_S: Final = 30.0
"""A clock may be off by so much: certificates of a new master are not yet valid to one that is behind."""
OLDEST_PYTHON: Final = (3, 11)
_NODE_DISK_MIB = 2048
"""Of each node: its disks, and what its package's sources and prerequisites take, for most packages."""
_SPARE_MIB = 1024
"""Of memory, for what runs beside the nodes."""
_COMPILE_MIB = 512
"""Of each compile at once where nodes are others': what all but the largest C++ sources take."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that keeps a host from work."""

    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.what}: {self.mend}"


@dataclass(frozen=True, slots=True)
class Bare:
    """What a host has before anything is put there."""

    arch: str
    """As uname has it."""
    free_mib: int
    """Of disk, where its user's home is."""
    clock_offset_s: float
    """How far it is ahead of the master."""
    missing: tuple[str, ...]
    """Debian packages that it lacks."""
    debian: bool
    root: str
    """The words that make a command root's: none for root itself."""
    may: bool
    """Whether its user may become root, without a password."""


def before(machine: Machine, bare: Bare) -> tuple[Problem, ...]:
    """What forbids to set the host up."""
    return tuple(_before(machine, bare))


def _before(machine: Machine, bare: Bare) -> Iterator[Problem]:
    yield from _clock(bare.clock_offset_s)
    if not bare.debian:
        yield Problem("it is no Debian machine", "only Debian hosts are set up")
    elif bare.missing and not bare.may:
        yield Problem(
            f"it lacks Debian packages and {machine.user} may not use sudo there without a password",
            f"there, as root, run: apt-get install --no-install-recommends {' '.join(bare.missing)}",
        )


def room(machine: Machine, bare: Bare, need_mib: int) -> tuple[Problem, ...]:
    """What forbids to put `need_mib` MiB of files there."""
    if bare.free_mib >= need_mib:
        return ()
    what = f"its disk has {bare.free_mib} MiB free and {need_mib} MiB are needed to set it up"
    return (Problem(what, f"free some on the file system of {machine.user}'s home"),)


def current(machine: Machine, bare: Bare, software: str) -> tuple[Problem, ...]:
    """What has changed there, or here, since the host was set up; `software` identifies this master's."""
    return tuple(_current(machine, bare, software))


def _current(machine: Machine, bare: Bare, software: str) -> Iterator[Problem]:
    if not machine.software:
        yield Problem("it has not been set up", again(machine))
    elif machine.software != software:
        yield Problem(f"its portage-cluster is {machine.software} and this master's {software}", again(machine))
    if bare.missing:
        yield Problem(f"it lacks Debian packages: {' '.join(bare.missing)}", again(machine))


def after(machine: Machine, ours: Facts, theirs: Facts, fitness: Fitness, memory_mib: int) -> tuple[Problem, ...]:
    """What keeps the host from building, with nodes of `memory_mib` MiB each."""
    return tuple(_after(machine, ours, theirs, fitness, memory_mib))


def _after(machine: Machine, ours: Facts, theirs: Facts, fitness: Fitness, memory_mib: int) -> Iterator[Problem]:
    if theirs.version != ours.version:
        yield Problem(f"it has portage-cluster {theirs.version}, this master {ours.version}", again(machine))
    yield from _clock(theirs.clock_offset_s)
    yield from _compiling(theirs) if machine.compiles_only else _nodes(machine, theirs, memory_mib)
    if not fitness.sandbox:
        yield Problem(
            f"bubblewrap cannot make namespaces for {machine.user}",
            "there, as root, allow them: sysctl kernel.unprivileged_userns_clone=1 "
            "kernel.apparmor_restrict_unprivileged_userns=0, those of the two that it knows",
        )
        return  # and so compilers, which run in them, are not worth a word
    lacks = "compiles" if machine.compiles_only else "nodes"
    for target, why in fitness.problems.items():
        yield Problem(f"no {target} {lacks}: {why}", again(machine))


def _compiling(theirs: Facts) -> Iterator[Problem]:
    need = theirs.cpus * _COMPILE_MIB + _SPARE_MIB
    if theirs.memory_mib < need:
        what = f"its memory is {theirs.memory_mib} MiB and {theirs.cpus} compiles at once need {need} MiB"
        yield Problem(what, "give it more, or fewer processors")


def _nodes(machine: Machine, theirs: Facts, memory_mib: int) -> Iterator[Problem]:
    nodes = max(machine.nodes.values(), default=0)
    need = nodes * memory_mib + _SPARE_MIB
    if theirs.memory_mib < need:
        what = f"its memory is {theirs.memory_mib} MiB and {nodes} nodes need {need} MiB"
        yield Problem(what, "add it again with fewer --nodes, or lower node.memory_mib in the config")
    if theirs.disk_mib < nodes * _NODE_DISK_MIB:
        what = f"its disk has {theirs.disk_mib} MiB free and {nodes} nodes need {nodes * _NODE_DISK_MIB} MiB"
        yield Problem(what, f"free some on the file system of {machine.user}'s home, or use fewer --nodes")


def _clock(offset_s: float) -> Iterator[Problem]:
    if abs(offset_s) > CLOCK_S:
        which = "ahead of" if offset_s > 0 else "behind"
        yield Problem(
            f"its clock is {abs(offset_s):.0f} s {which} this machine's",
            "set one of them: on Debian, systemd-timesyncd or chrony keeps it right",
        )


def again(machine: Machine) -> str:
    """The mend of what setting a host up anew mends."""
    return f"run `cluster host add {machine.user}@{machine.address}` again"


def reason(problems: tuple[Problem, ...]) -> str:
    """All of them in a line; "" if there are none."""
    return "; ".join(map(str, problems))


def nodes_for(facts: Facts, memory_mib: int) -> int:
    """How many nodes of `memory_mib` MiB a host bears: one on each processor, as far as there is memory; at least 1."""
    return max(1, min(facts.cpus, (facts.memory_mib - _SPARE_MIB) // memory_mib))
