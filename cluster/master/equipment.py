"""What a session's nodes are given: an emulator, a stage, a snapshot, and compilers on the host."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from cluster import paths, target
from cluster.errors import ClusterError, MachineError
from cluster.host import distcc, hostcompiler, runs
from cluster.host.builder import Builder
from cluster.master import binhost as binhosts
from cluster.master import dispatch, distfiles
from cluster.master.engines.delivery import Delivery, FirstRound
from cluster.master.progress import Reporter
from cluster.master.schedule.hosts import Host
from cluster.master.session import Session
from cluster.node import drivers, emulator, job, kernel, kvm, pilot, qemu, stage, warm
from cluster.node.build import Limits
from cluster.node.drivers import Driver, Kind, QemuDriver
from cluster.node.node import Hardware


def hardware_for(session: Session, nodes: int, reporter: Reporter, kind: Kind = "qemu") -> Hardware:
    """An emulator and a stage, made if they are not there yet, for so many nodes of this `kind`."""
    if kind == "qemu":
        qemu.require_memory(session.config.node.memory_mib, nodes)
    cache = session.directories.cache
    recipe = target.load_recipe()
    reporter.step(f"looking for QEMU {emulator.NEWEST_MAJOR} or newer for {session.target.name}")
    found = emulator.ensure(session.target, recipe, cache)
    reporter.step(f"QEMU {found.version}; looking for the {session.target.name} stage")
    built = stage.ensure(session.target, recipe, cache, reporter.step)
    node = session.config.node
    hardware = Hardware(session.target, found, built, node.memory_mib, node.cpus, node.boot_s)
    if kind != "qemu":
        return hardware
    hardware, why_not = kvm.accelerated(hardware)
    hardware = _with_own_kernel(session, hardware)
    how = f"are emulated ({why_not})" if why_not else "run on KVM"
    reporter.step(f"{session.target.name} nodes {how} and boot Linux {hardware.stage.facts['kernel']}")
    return hardware


def _with_own_kernel(session: Session, hardware: Hardware) -> Hardware:
    """The hardware with the kernel of `cluster stage kernel`, where that is wanted and built.

    A node on KVM keeps the distribution's: its processor is a real one, with real defects to work around.
    """
    if not session.config.node.own_kernel or hardware.accelerator != "tcg":
        return hardware
    own = kernel.find(session.target, session.directories.cache)
    if own is None:
        return hardware
    return replace(hardware, stage=stage.with_image(hardware.stage, own.directory.name, own.image, own.release))


def warmed(session: Session, hardware: Hardware, reporter: Reporter) -> Hardware:
    """The same with a snapshot, unless that is not wanted or cannot be had."""
    if not session.config.node.warm:
        return hardware
    try:
        return replace(hardware, snapshot=warm.ensure(hardware, reporter.step).directory)
    except ClusterError as error:
        reporter.warn(f"nodes are booted one by one, there is no warm one to start from: {error}")
        return hardware


def this_machine(session: Session, nodes: int) -> Host:
    """This machine as a host of `nodes` nodes, with the memory and disk that it has left now."""
    names = tuple(f"node-{number}" for number in range(1, nodes + 1))
    disk_mib = paths.free_mib(session.directories.state)
    return Host("this machine", names, memory_mib=qemu.available_mib(), disk_mib=disk_mib, trusted=True)


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
    """What builds on up to `nodes` nodes of `hardware` with the help that the config gives them; ended with `stack`.

    Finished compiles are kept in `compiles`, by default in the user's cache. Raises MachineError.
    """
    driver = _driver(session, hardware, kind, live, reporter)
    cross = _cross(session, hardware, reporter)
    emulated = kind == "qemu"
    return Builder(
        driver=driver,
        live=live,
        provides=target.load_recipe().provides,
        composed=session.config.node.composed,
        distcc_hosts=_offload(session, live, cross, stack, reporter) if emulated else "",
        compiler=_compiler(session, cross, stack, compiles, nodes if emulated else None, reporter),
    )


def _driver(session: Session, hardware: Hardware, kind: Kind, live: runs.Run, reporter: Reporter) -> Driver:
    """What builds in nodes of `kind` on this machine. Raises MachineError where it cannot."""
    provides, cache = target.load_recipe().provides, session.directories.cache
    if kind == "qemu":
        return QemuDriver(warmed(session, hardware, reporter), provides, cache)
    reporter.step("looking for the stage as a directory, and trying a chroot in it")
    scratch = Path(tempfile.mkdtemp(prefix="chroot-", dir=live.directory))
    driver = drivers.chroot(hardware, provides, cache, scratch=scratch)
    how = "are emulated by qemu-user" if driver.root.registration else "need no emulation"
    reporter.step(f"{session.target.name} packages are built in chroots, which {how}")
    return driver


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


def _cross(session: Session, hardware: Hardware, reporter: Reporter) -> hostcompiler.CrossCompiler | None:
    """The cross compiler that may stand in for the nodes' own; without it every compile stays in its node."""
    if not (session.config.compile.enabled or session.config.distcc.enabled):
        return None
    reporter.step("comparing the cross compiler with the nodes' own")
    try:
        return hostcompiler.find(session.target, hardware.stage, session.directories.cache)
    except MachineError as error:
        reporter.warn(f"{error}: every compile stays in its node")
        return None


def _offload(
    session: Session, live: runs.Run, cross: hostcompiler.CrossCompiler | None, stack: ExitStack, reporter: Reporter
) -> str:
    """Start distccd if it is wanted; returns DISTCC_HOSTS or ""."""
    wanted = session.config.distcc
    if not wanted.enabled or cross is None:
        return ""
    reporter.step("starting distccd and compiling one file through it")
    place = Path(tempfile.mkdtemp(prefix="distcc-", dir=live.directory))
    chost, slots = session.target.chost, wanted.slots
    offload = distcc.offloading(cross.bare.sandbox, chost, place, port=wanted.port, slots=slots, own=live.own)
    return stack.enter_context(offload).hosts


def _pilot(
    session: Session, cross: hostcompiler.CrossCompiler, nodes: int | None, reporter: Reporter
) -> pilot.Kit | None:
    """What pilots are made of, unless they are not wanted, would be in the way of the nodes, or cannot be had.

    None for `nodes` stands for those that are no emulated computers: they run on the host themselves.
    """
    room = nodes is not None and pilot.is_room(nodes, session.config.node.cpus, len(os.sched_getaffinity(0)))
    if not session.config.compile.pilot or not room:
        return None
    try:
        return pilot.ensure(session.target, cross.bare, cross.toolchain.drivers(), session.directories.cache)
    except MachineError as error:
        reporter.warn(f"no pilots fly ahead of the nodes: {error}")
        return None


def _compiler(
    session: Session,
    cross: hostcompiler.CrossCompiler | None,
    stack: ExitStack,
    compiles: Path | None,
    nodes: int | None,
    reporter: Reporter,
) -> hostcompiler.HostCompiler | None:
    """Start the compile server if it is wanted."""
    wanted = session.config.compile
    if not wanted.enabled or cross is None:
        return None
    place = compiles or session.directories.cache / "compiles" / session.target.name
    kit = _pilot(session, cross, nodes, reporter)
    settings = hostcompiler.Wanted(wanted.slots, place, wanted.cache_mib, wanted.audit_percent, kit)
    return stack.enter_context(hostcompiler.serving(cross, settings))
