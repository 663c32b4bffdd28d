"""What a session gives its hosts: what nodes are to be made of, and what every job shares."""

from __future__ import annotations

import ipaddress
from contextlib import ExitStack
from pathlib import Path

from cluster import paths
from cluster.host import distcc, runs
from cluster.host import kit as kits
from cluster.host.builder import Builder
from cluster.host.forge import Smithing
from cluster.host.kit import Kit
from cluster.host.workshop import Trade
from cluster.master import binhost as binhosts
from cluster.master import dispatch, distfiles
from cluster.master.engines.delivery import Delivery, FirstRound
from cluster.master.hosts.registry import Machine
from cluster.master.progress import Reporter
from cluster.master.schedule.hosts import THIS_MACHINE, Host
from cluster.master.session import Session
from cluster.node import job, qemu
from cluster.node.build import Limits
from cluster.node.drivers import Kind
from cluster.node.node import Hardware


def kit_of(session: Session, kind: Kind = "qemu") -> Kit:
    """What the nodes of this `kind` are to be made of on this machine."""
    wanted = session.config
    return Kit(session.target, kind, wanted.node, wanted.compile, wanted.distcc, session.directories.cache)


def trade_for(session: Session, machine: Machine) -> Trade | Smithing:
    """What the host `machine` is to build, and how; or to compile, if it has no nodes."""
    name = session.target.name
    membership = kits.Membership(machine.name, interface_of(session, machine))
    kit = kit_of(session, machine.kind(name))
    return Smithing(kit, membership) if machine.compiles_only else Trade(kit, machine.nodes[name], membership)


def interface_of(session: Session, machine: Machine) -> distcc.Interface:
    """Where the distccd of a host listens: on loopback, unless it is in a network that is said to be trusted."""
    network = None if machine.tunnel else trusted_network(session, machine.address)
    return distcc.LOOPBACK if network is None else distcc.Interface(machine.address, (network,))


def trusted_network(session: Session, address: str) -> str | None:
    """The one of `distcc.trusted` that `address` is in; None for a name, as distccd takes addresses."""
    try:
        place = ipaddress.ip_address(address)
    except ValueError:
        return None
    return next((one for one in session.config.distcc.trusted if place in ipaddress.ip_network(one)), None)


def hardware_for(session: Session, nodes: int, reporter: Reporter, kind: Kind = "qemu") -> Hardware:
    """An emulator and a stage, made if they are not there yet, for so many nodes of this `kind`."""
    return kits.hardware_of(kit_of(session, kind), nodes, reporter)


def builder_for(
    session: Session,
    hardware: Hardware,
    live: runs.Run,
    stack: ExitStack,
    reporter: Reporter,
    *,
    nodes: int,
    kind: Kind = "qemu",
    compiles: Path | None = None,
) -> Builder:
    """What builds on up to `nodes` nodes of `hardware`; as `cluster.host.kit.builder_of`."""
    return kits.builder_of(kit_of(session, kind), hardware, live, stack, reporter, nodes=nodes, compiles=compiles)


def this_machine(session: Session, nodes: int) -> Host:
    """This machine as a host of `nodes` nodes, with the memory and disk that it has left now."""
    names = tuple(f"node-{number}" for number in range(1, nodes + 1))
    disk_mib = paths.free_mib(session.directories.state)
    return Host(THIS_MACHINE, names, memory_mib=qemu.available_mib(), disk_mib=disk_mib, trusted=True)


def compiles_of(session: Session) -> dispatch.Compiles:
    """How many compiles there may be at once: what a node's compilers could use, and what the host has for all."""
    build, compile = session.config.build, session.config.compile
    most = max(build.jobs, compile.slots if compile.enabled else session.config.node.cpus)
    return dispatch.Compiles(build.jobs, most, compile.slots)


def settings_of(session: Session) -> job.Settings:
    """What the jobs of a run share."""
    return job.Settings(
        chost=session.target.chost,
        profile=session.profile,
        repositories=session.repositories,
        jobs=session.config.build.jobs,
        fast_shell=session.config.node.fast_shell,
        skip_idle_phases=session.config.node.skip_idle_phases,
        test=session.config.build.test,
        make_conf=session.make_conf,
        user=session.user,
    )


def delivery_for(
    session: Session, binhost: binhosts.Binhost, logs: Path | None = None, first: FirstRound | None = None
) -> Delivery:
    """The master's part in jobs: binary packages go to `binhost`, logs to `logs`, by default the session's."""
    return Delivery(
        settings=settings_of(session),
        limits=Limits(session.config.limits.total_s, session.config.limits.silence_s),
        binhost=binhost,
        distdir=session.directories.distfiles,
        providers=providers(session),
        logs=logs or session.logs,
        first=first,
    )


def providers(session: Session) -> tuple[distfiles.Provider, ...]:
    """Where sources come from, in the order in which they are asked."""
    wanted = session.config.distfiles
    locations = [repository.location for repository in session.repositories] if wanted.distribution else []
    return distfiles.providers(locations, session.directories.cache / "apt" / "sources", wanted.mirrors)
