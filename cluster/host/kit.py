"""What the nodes of a host are made of: an emulator, a stage, a snapshot, and compilers beside them."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from cluster import config, target
from cluster.errors import ClusterError, MachineError
from cluster.host import distcc, hostcompiler, runs
from cluster.host.builder import Builder
from cluster.host.pool import Member, Offer, Pool
from cluster.host.relay import Relay
from cluster.node import drivers, emulator, kernel, kvm, pilot, qemu, stage, sysroot, warm
from cluster.node.drivers import Driver, Kind, QemuDriver
from cluster.node.node import Hardware
from cluster.target import Target

log = logging.getLogger(__name__)

_SPARE = 4
"""Compiles more than its slots that the distccd of a pool takes: with them others look whether it works."""


class Teller(Protocol):
    """Tells whoever waits for a host what it is at."""

    def step(self, text: str) -> None:
        """Something else begins, which may take a while."""
        ...

    def warn(self, text: str) -> None:
        """Something a person should know, which stops nothing."""
        ...


class Logged:
    """Tells the log of this process."""

    def step(self, text: str) -> None:
        """As `Teller.step`."""
        log.info("%s", text)

    def warn(self, text: str) -> None:
        """As `Teller.warn`."""
        log.warning("%s", text)


@dataclass(frozen=True, slots=True)
class Kit:
    """What is wanted of a host's nodes, and the cache of what they are made of."""

    target: Target
    kind: Kind
    node: config.Node
    compile: config.Compile
    distcc: config.Distcc
    cache: Path


@dataclass(frozen=True, slots=True)
class Membership:
    """A host's part in a pool of distccds."""

    host: str
    """Its name."""
    interface: distcc.Interface = distcc.LOOPBACK
    """Where its distccd listens."""


def hardware_of(kit: Kit, nodes: int, reporter: Teller) -> Hardware:
    """An emulator and a stage, made if they are not there yet, for so many nodes."""
    if kit.kind == "qemu":
        qemu.require_memory(kit.node.memory_mib, nodes)
    cache = kit.cache
    recipe = target.load_recipe()
    reporter.step(f"looking for QEMU {emulator.NEWEST_MAJOR} or newer for {kit.target.name}")
    found = emulator.ensure(kit.target, recipe, cache)
    reporter.step(f"QEMU {found.version}; looking for the {kit.target.name} stage")
    built = stage.ensure(kit.target, recipe, cache, reporter.step)
    node = kit.node
    hardware = Hardware(kit.target, found, built, node.memory_mib, node.cpus, node.boot_s)
    if kit.kind != "qemu":
        return hardware
    hardware, why_not = kvm.accelerated(hardware)
    hardware = _with_own_kernel(kit, hardware)
    how = f"are emulated ({why_not})" if why_not else "run on KVM"
    reporter.step(f"{kit.target.name} nodes {how} and boot Linux {hardware.stage.facts['kernel']}")
    return hardware


def _with_own_kernel(kit: Kit, hardware: Hardware) -> Hardware:
    """The hardware with the kernel of `cluster stage kernel`, where that is wanted and built.

    A node on KVM keeps the distribution's: its processor is a real one, with real defects to work around.
    """
    if not kit.node.own_kernel or hardware.accelerator != "tcg":
        return hardware
    own = kernel.find(kit.target, kit.cache)
    if own is None:
        return hardware
    return replace(hardware, stage=stage.with_image(hardware.stage, own.directory.name, own.image, own.release))


def warmed(kit: Kit, hardware: Hardware, reporter: Teller) -> Hardware:
    """The same with a snapshot, unless that is not wanted or cannot be had."""
    if not kit.node.warm:
        return hardware
    try:
        return replace(hardware, snapshot=warm.ensure(hardware, reporter.step).directory)
    except ClusterError as error:
        reporter.warn(f"nodes are booted one by one, there is no warm one to start from: {error}")
        return hardware


def builder_of(
    kit: Kit,
    hardware: Hardware,
    live: runs.Run,
    stack: ExitStack,
    reporter: Teller,
    *,
    nodes: int,
    compiles: Path | None = None,
    membership: Membership | None = None,
) -> Builder:
    """What builds on up to `nodes` nodes of `hardware` with the help that the config gives them; ended with `stack`.

    Finished compiles are kept in `compiles`, by default in the user's cache. With a `membership` its distccd is there
    for other hosts as well. Raises MachineError.
    """
    driver = _driver(kit, hardware, live, reporter)
    cross = _cross(kit, hardware.stage, reporter)
    emulated = kit.kind == "qemu"
    offload = _offload(kit, live, cross, stack, reporter, membership) if emulated or membership else None
    compiler = _compiler(kit, cross, stack, compiles, nodes if emulated else None, reporter)
    builder = Builder(
        driver=driver,
        live=live,
        provides=target.load_recipe().provides,
        composed=kit.node.composed,
        distcc_hosts=offload.hosts if offload and emulated else "",
        compiler=compiler,
    )
    if membership is None or offload is None or cross is None:
        return builder
    offer = _offer(membership.interface.address, offload.port, cross, compiler)
    relay = stack.enter_context(_relay(f"{kit.target.chost}-gcc", membership.host, offer))
    return replace(builder, relay=relay, offer=offer)


def offer_of(kit: Kit, live: runs.Run, stack: ExitStack, reporter: Teller, membership: Membership) -> Offer:
    """What a host has for a pool that has no nodes: its distccd alone, ended with `stack`. Raises MachineError."""
    found = stage.find(kit.target, target.load_recipe(), kit.cache)
    if found is None:
        raise MachineError(f"the {kit.target.name} stage is not there", "set the host up again: cluster host add")
    cross = hostcompiler.find(kit.target, found, kit.cache)
    offload = _offload(kit, live, cross, stack, reporter, membership)
    if offload is None:
        raise MachineError("distcc.enabled is false in the config")
    return _offer(membership.interface.address, offload.port, cross, None)


def _offer(address: str, port: int, cross: hostcompiler.CrossCompiler, own: hostcompiler.HostCompiler | None) -> Offer:
    pilots = own is not None and own.pilot is not None
    return Offer(address, port, len(os.sched_getaffinity(0)), sysroot.signature(cross.bare), pilots)


@contextmanager
def _relay(compiler: str, host: str, offer: Offer) -> Iterator[Relay]:
    """The relay of `host`, which has its own distccd alone until it is told of others."""
    with Relay(compiler, host) as relay:
        relay.use(Pool((Member(host, offer.address, offer.port, offer.cores),)))
        yield relay


def _driver(kit: Kit, hardware: Hardware, live: runs.Run, reporter: Teller) -> Driver:
    """What builds in nodes of `kind` on this machine. Raises MachineError where it cannot."""
    provides, cache = target.load_recipe().provides, kit.cache
    if kit.kind == "qemu":
        return QemuDriver(warmed(kit, hardware, reporter), provides, cache)
    reporter.step("looking for the stage as a directory, and trying a chroot in it")
    scratch = Path(tempfile.mkdtemp(prefix="chroot-", dir=live.directory))
    driver = drivers.chroot(hardware, provides, cache, scratch=scratch)
    how = "are emulated by qemu-user" if driver.root.registration else "need no emulation"
    reporter.step(f"{kit.target.name} packages are built in chroots, which {how}")
    return driver


def _cross(kit: Kit, found: stage.Stage, reporter: Teller) -> hostcompiler.CrossCompiler | None:
    """The cross compiler that may stand in for the nodes' own; without it every compile stays in its node."""
    if not (kit.compile.enabled or kit.distcc.enabled):
        return None
    reporter.step("comparing the cross compiler with the nodes' own")
    try:
        return hostcompiler.find(kit.target, found, kit.cache)
    except MachineError as error:
        reporter.warn(f"{error}: every compile stays in its node")
        return None


def _offload(
    kit: Kit,
    live: runs.Run,
    cross: hostcompiler.CrossCompiler | None,
    stack: ExitStack,
    reporter: Teller,
    membership: Membership | None,
) -> distcc.Offload | None:
    """Start distccd if it is wanted; a member of a pool has as many compiles at once as it has processors."""
    wanted = kit.distcc
    if not wanted.enabled or cross is None:
        return None
    reporter.step("starting distccd and compiling one file through it")
    place = Path(tempfile.mkdtemp(prefix="distcc-", dir=live.directory))
    offload = distcc.offloading(
        cross.bare.sandbox,
        kit.target.chost,
        place,
        port=wanted.port,
        slots=max(wanted.slots, len(os.sched_getaffinity(0))) if membership else wanted.slots,
        interface=membership.interface if membership else distcc.LOOPBACK,
        spare=_SPARE if membership else 0,
        own=live.own,
    )
    return stack.enter_context(offload)


def _pilot(kit: Kit, cross: hostcompiler.CrossCompiler, nodes: int | None, reporter: Teller) -> pilot.Kit | None:
    """What pilots are made of, unless they are not wanted, would be in the way of the nodes, or cannot be had.

    None for `nodes` stands for those that are no emulated computers: they run on the host themselves. Where the host
    runs the target's programs no pilot flies: a chroot there is as fast, and builds the package.
    """
    room = nodes is not None and pilot.is_room(nodes, kit.node.cpus, len(os.sched_getaffinity(0)))
    if not kit.compile.pilot or not room or kit.target.runs_on():
        return None
    try:
        return pilot.ensure(kit.target, cross.bare, cross.toolchain.drivers(), kit.cache)
    except MachineError as error:
        reporter.warn(f"no pilots fly ahead of the nodes: {error}")
        return None


def _compiler(
    kit: Kit,
    cross: hostcompiler.CrossCompiler | None,
    stack: ExitStack,
    compiles: Path | None,
    nodes: int | None,
    reporter: Teller,
) -> hostcompiler.HostCompiler | None:
    """Start the compile server if it is wanted."""
    wanted = kit.compile
    if not wanted.enabled or cross is None:
        return None
    place = compiles or kit.cache / "compiles" / kit.target.name
    pilots = _pilot(kit, cross, nodes, reporter)
    settings = hostcompiler.Wanted(wanted.slots, place, wanted.cache_mib, wanted.audit_percent, pilots)
    return stack.enter_context(hostcompiler.serving(cross, settings))
