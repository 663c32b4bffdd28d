"""Doing what a plan says, and proving what came of it."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from cluster import paths, target
from cluster.errors import InputError, MachineError
from cluster.host import runs
from cluster.master import binhost as binhosts
from cluster.master import boards, bootstrap, claims, dispatch, equipment, expected, judge, mirror, rented
from cluster.master.bulletin import Publisher
from cluster.master.engines import remote
from cluster.master.engines.delivery import Delivery, FirstRound
from cluster.master.engines.engine import Engine
from cluster.master.engines.local import LocalEngine
from cluster.master.hosts.registry import Machine
from cluster.master.journal import Journal
from cluster.master.planning import with_toolchain
from cluster.master.progress import Reporter, Watcher
from cluster.master.schedule.tasks import Tasks
from cluster.master.session import Session
from cluster.model import Action, Cpv, Outcome, Package, Plan, Result, Verdict
from cluster.node import stage, verify
from cluster.node.stage import Stage

_BUILD_MIB = 1500


def build(
    session: Session, plan: Plan, nodes: int, reporter: Reporter, urgent: Collection[Cpv] = (), *, more: bool = False
) -> Result:
    """Do what `plan` says, what is `urgent` first, on as many of `nodes` nodes as other builds leave.

    With `more` another build follows, for which rented hosts are kept.
    Raises InputError and MachineError before the first package is built.
    """
    if plan.first is None or not plan.to_build:
        return _build(session, plan, nodes, reporter, urgent, more=more)
    earlier = session.earlier
    reporter.step(f"the first round, into {earlier.binhost}")
    first = build(earlier, plan.first, nodes, reporter, urgent, more=True)
    if first.exit_code:
        return Result(plan, tuple(map(_without_first, plan.packages)), first.seconds, session.binhost, first)
    reporter.step(f"the second round, into {session.binhost}")
    round_one = FirstRound(binhosts.Binhost(earlier.binhost, session.target.chost), bootstrap.base(plan))
    second = _build(session, plan, nodes, reporter, urgent, round_one, more=more)
    return replace(second, first=first, seconds=round(first.seconds + second.seconds, 2))


def _without_first(package: Package) -> Outcome:
    """How `package` ends when the first round failed."""
    if package.action.builds:
        return Outcome(package.cpv, Verdict.BLOCKED, reason="needs the first round, which failed")
    return Outcome(package.cpv, Verdict.SKIPPED, reason=package.reason)


def _build(
    session: Session,
    plan: Plan,
    nodes: int,
    reporter: Reporter,
    urgent: Collection[Cpv],
    first: FirstRound | None = None,
    *,
    more: bool,
) -> Result:
    start = time.monotonic()
    binhost = binhosts.Binhost(session.binhost, session.target.chost)
    journal = Journal(session.journal)
    plan = _taken(binhost, plan)
    if not plan.to_build:
        skipped = tuple(Outcome(package.cpv, Verdict.SKIPPED, reason=package.reason) for package in plan.packages)
        return Result(plan, skipped, round(time.monotonic() - start, 2), session.binhost)
    with only_one(session), ExitStack() as stack:
        stack.enter_context(mirror.kept(session, binhost, reporter))
        left = runs.sweep(session.directories.state)
        if left:
            reporter.warn(f"cleaned up after {left} run{'s' if left > 1 else ''} that had been killed")
        for directory, purpose in ((session.directories.state, "the nodes' disks"), (session.binhost, "the binhost")):
            paths.require_space(directory, _BUILD_MIB, purpose)
        live = stack.enter_context(runs.Run(session.directories.state))
        delivery = equipment.delivery_for(session, binhost, first=first)
        machines = remote.machines(session)
        if machines:
            site = _elsewhere(session, machines, delivery, live, stack, reporter, more=more)
        else:
            site = _here(session, min(nodes, len(plan.to_build)), nodes, delivery, live, stack, reporter)
        plan = with_toolchain(plan, site.stage)
        before = binhost.records()
        reporter.start(plan)
        name = session.name or session.target.name
        publisher = stack.enter_context(
            Publisher(session.directories.status, name, live.directory.name, reporter.expect)
        )
        outcomes = dispatch.run(
            plan,
            site.engine,
            attempts=session.config.build.attempts,
            todo=_tasks(session, plan, journal, urgent),
            compiles=site.compiles,
            progress=reporter,
            record=lambda outcome: journal.record(session.target.name, outcome),
            settle=lambda package: judge.settled(plan, package, binhost.records()),
            part=site.sharing,
            watchers=(publisher, *site.watchers),
            quarantine_after=session.config.hosts.quarantine_after,
            losses=session.config.hosts.losses,
        )
        for line in judge.missing_bumps(plan, before, binhost.records()):
            reporter.warn(line)
    return Result(plan, outcomes, round(time.monotonic() - start, 2), session.binhost)


@dataclass(frozen=True, slots=True)
class _Site:
    """Where a run builds."""

    engine: Engine
    stage: Stage
    sharing: claims.Sharing | None
    """Its part in the nodes; None where it has them for itself alone."""
    compiles: dispatch.Compiles
    watchers: tuple[Watcher, ...] = ()
    """What there is besides that goes by the run's steps."""


def _here(
    session: Session,
    count: int,
    nodes: int,
    delivery: Delivery,
    live: runs.Run,
    stack: ExitStack,
    reporter: Reporter,
) -> _Site:
    """`count` of the `nodes` nodes of this machine, and those of `[nodes.NAME]`."""
    kind = session.config.node.driver
    hardware = equipment.hardware_for(session, nodes, reporter, kind)
    builder = equipment.builder_for(session, hardware, live, stack, reporter, nodes=count, kind=kind)
    others = boards.find(session, hardware, live, reporter)
    here = equipment.this_machine(session, count), builder
    engine = stack.enter_context(LocalEngine(delivery, here, *others))
    sharing = stack.enter_context(_sharing(session, nodes + len(others), reporter))
    return _Site(engine, hardware.stage, sharing, equipment.compiles_of(session))


def _elsewhere(
    session: Session,
    machines: tuple[Machine, ...],
    delivery: Delivery,
    live: runs.Run,
    stack: ExitStack,
    reporter: Reporter,
    *,
    more: bool,
) -> _Site:
    """The hosts that have been added; this machine only says who builds what."""
    found = stage.ensure(session.target, target.load_recipe(), session.directories.cache, reporter.step)
    steward = stack.enter_context(rented.steward(session, reporter, more=more))
    there = stack.enter_context(remote.engine(session, machines, delivery, live.directory, reporter, steward))
    return _Site(there.engine, found, None, there.compiles, there.watchers)


def _sharing(session: Session, nodes: int, reporter: Reporter) -> claims.Sharing:
    """The part of a run on `nodes` nodes in those of this machine."""
    weight = session.config.build.weight
    return claims.Sharing(claims.directory(), weight=weight, nodes=nodes, tell=reporter.tell)


def _tasks(session: Session, plan: Plan, journal: Journal, urgent: Collection[Cpv]) -> Tasks:
    """What `plan` builds, with what that took before."""
    node = expected.Node(
        memory_mib=session.config.node.memory_mib,
        disk_mib=_BUILD_MIB,
        disk_is_memory=paths.is_memory(session.directories.state),
    )
    estimates = expected.estimates(plan, journal.builds(session.target.name))
    return expected.tasks_of(plan, estimates, node, apart=session.config.build.apart, urgent=urgent)


def _taken(binhost: binhosts.Binhost, plan: Plan) -> Plan:
    """`plan` after copying what other binhosts have; what they lack after all is built."""
    packages = tuple(package if package.origin is None else _take(binhost, package) for package in plan.packages)
    return replace(plan, packages=packages)


def _take(binhost: binhosts.Binhost, package: Package) -> Package:
    assert package.origin is not None
    try:
        binhost.take(package.origin, package)
    except binhosts.AdmitError as error:
        return replace(package, action=Action.BUILD, reason=str(error), origin=None)
    return package


@contextmanager
def only_one(session: Session) -> Iterator[None]:
    """Hold the lock of this state directory for this target."""
    session.directories.state.mkdir(parents=True, exist_ok=True)
    path = session.directories.state / f"build-{session.target.name}.lock"
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another build for {session.target.name} is running in {session.directories.state}",
                "wait for it, or use another --state",
            ) from error
        yield


def prove(session: Session, plan: Plan, reporter: Reporter) -> verify.Proof:
    """Install what `plan` asked for from the binhost in a fresh node and run its programs.

    Raises InputError when the binhost lacks some of it, NodeLost when the node is at fault.
    """
    missing = [package.cpv for package in plan.to_build]
    if missing:
        raise InputError(f"the binhost lacks {', '.join(missing)}", "build it first: cluster build")
    requested = [f"={package.cpv}" for package in plan.packages if package.requested]
    commands = verify.programs(session.repositories, (package.cpv for package in plan.packages))
    runs.sweep(session.directories.state)
    hardware = equipment.hardware_for(session, 1, reporter)
    log = session.logs / "verify.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        live = stack.enter_context(runs.Run(session.directories.state))
        stack.callback(live.stop)
        server = stack.enter_context(binhosts.serving(session.binhost))
        directory = stack.enter_context(live.node_directory("verify"))
        stream = stack.enter_context(log.open("wb", buffering=0))
        reporter.step(
            f"a fresh node installs {len(plan.packages)} packages over HTTP and runs {len(commands)} programs"
        )
        proof = verify.verify(
            requested,
            commands,
            equipment.settings_of(session),
            hardware,
            directory=directory,
            binhost_port=server.port,
            deadline_s=session.config.limits.silence_s,
            output=stream.write,
            own=live.own,
        )
    if proof.status:
        raise MachineError("emerge --getbinpkgonly failed in the fresh node", f"see {log}")
    return proof
