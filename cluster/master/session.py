"""What one invocation works with, and the three things it can do: plan, build, verify."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from cluster import paths, target, userconfig
from cluster.config import Config
from cluster.errors import ClusterError, InputError, MachineError
from cluster.master import binhost as binhosts
from cluster.master import (
    bootstrap,
    dispatch,
    distcc,
    distfiles,
    engines,
    fingerprint,
    hostcompiler,
    judge,
    resolver,
    runs,
    trees,
    variants,
)
from cluster.master.journal import Journal
from cluster.model import Action, Cpv, Outcome, Package, Plan, Repository, Verdict
from cluster.node import emulator, job, kernel, kvm, pilot, qemu, stage, verify, warm
from cluster.node.build import Limits
from cluster.node.installed import write_installed
from cluster.node.node import Hardware

_BUILD_MIB = 1500


class Reporter(dispatch.Progress, Protocol):
    """Tells a person what goes on."""

    def step(self, text: str) -> None:
        """Something else begins, which may take a while."""
        ...

    def warn(self, text: str) -> None:
        """Something a person should know, which stops nothing."""
        ...

    def tell(self, text: str) -> None:
        """Something came out that is worth seeing before the end."""
        ...

    def start(self, plan: Plan) -> None:
        """The jobs of `plan` begin."""
        ...


@dataclass(frozen=True, slots=True)
class Session:
    """An invocation's configuration, resolved: nothing is looked up twice."""

    config: Config
    directories: paths.Directories
    binhost: Path
    """The directory of the target's binhost."""
    target: target.Target
    repositories: tuple[Repository, ...]
    profile: Path
    installed: Path | None
    emptytree: bool
    name: str = ""
    """What its plans are called where there are several."""
    user: Path | None = None
    """The user's own directory like /etc/portage."""
    siblings: tuple[Path, ...] = ()
    """Other binhosts, to take from what they have just as a build would make it."""
    order: resolver.Order = resolver.Order.NEWEST
    break_cycles: bool = False
    """Whether packages may be built twice, to break circles of dependencies."""
    stages: int = 1
    """2 to build everything once more in a stage of what came out."""

    @property
    def make_conf(self) -> str:
        """The user's own lines for make.conf."""
        return userconfig.make_conf(self.user, self.config.build.make_conf)

    @property
    def earlier(self) -> Session:
        """The same for the first round of a plan, which has a binhost of its own beside."""
        named = f"{self.name or self.target.name}-first"
        return replace(self, name=named, binhost=self.binhost.with_name(f"{self.binhost.name}-first"))

    @property
    def logs(self) -> Path:
        """The directory of its build logs."""
        return self.directories.logs / (self.name or self.target.name)

    @property
    def journal(self) -> Path:
        """The journal's file."""
        return self.directories.state / "journal.sqlite"


@dataclass(frozen=True, slots=True)
class Result:
    """How a build ended."""

    plan: Plan
    outcomes: tuple[Outcome, ...]
    seconds: float
    binhost: Path
    """Its directory."""
    first: Result | None = None
    """How the plan's first round ended."""

    def of(self, *verdicts: Verdict) -> tuple[Outcome, ...]:
        """The outcomes with one of `verdicts`."""
        return tuple(outcome for outcome in self.outcomes if outcome.verdict in verdicts)

    @property
    def exit_code(self) -> int:
        """2 if a package failed, was lost for good or was blocked, or the plan left something out, else 0."""
        mine = 2 if self.of(Verdict.FAILED, Verdict.LOST, Verdict.BLOCKED) or self.plan.left_out else 0
        return max(mine, self.first.exit_code if self.first else 0)


def make_plan(
    session: Session,
    atoms: tuple[str, ...],
    *,
    sources: bool = True,
    defaults: bool = False,
    keep_going: bool = False,
) -> Plan:
    """Portage's plan for `atoms`; what the binhost has is marked as skipped. Raises InputError.

    With `sources`, a source archive that no Manifest describes is an error: it could not be checked.
    With `defaults`, no atoms mean every set of the repositories, or @system where they have none.
    With `keep_going`, what cannot be planned is left out; `over` is then the session to go on with.
    """
    with tempfile.TemporaryDirectory(prefix="portage-cluster-") as scratch:
        work = Path(scratch)
        installed = session.installed
        if installed is None:
            provides = target.load_recipe().provides
            installed = write_installed(provides, work / "installed", session.target.name)
        metadata = trees.places(session.directories).cache
        request = resolver.Request(
            target=session.target,
            atoms=atoms,
            repositories=session.repositories,
            metadata=metadata if metadata.is_dir() else None,
            profile=session.profile,
            installed=installed,
            emptytree=session.emptytree,
            test=session.config.build.test,
            make_conf=session.make_conf,
            user=session.user,
            order=session.order,
            built_with=_built_with(session),
            manifests=sources,
            defaults=defaults,
            keep_going=keep_going,
        )
        (work / "resolve").mkdir()
        with trees.revising(session.repositories) as revised:
            plan = _solved(request, work / "resolve", break_cycles=session.break_cycles)
        plan = replace(plan, repositories=tuple(one for one in revised() if one in plan.repositories))
    return _judged(session, bootstrap.twice(plan) if session.stages == 2 else plan)


def _solved(request: resolver.Request, work: Path, *, break_cycles: bool) -> Plan:
    """With `keep_going` a circle that cannot be broken is left out with all others, so that there is a plan."""
    if not break_cycles:
        return resolver.resolve(request, work)
    try:
        return bootstrap.unbroken(replace(request, raise_circles=True), work)
    except resolver.CircularError:
        if not request.keep_going:
            raise
        return resolver.resolve(request, work)


def _judged(session: Session, plan: Plan) -> Plan:
    siblings = {path: _records(path, plan.chost) for path in session.siblings}
    found = judge.judged(plan, _records(session.binhost, plan.chost), siblings)
    return replace(found, first=_judged(session.earlier, plan.first)) if plan.first else found


def make_plans(
    chosen: Sequence[Session], atoms: tuple[str, ...], *, sources: bool = True, keep_going: bool = False
) -> tuple[Plan, ...]:
    """A plan for each of `chosen`, as `make_plan`; of two that would build the same the later takes it."""
    made = [make_plan(session, atoms, sources=sources, keep_going=keep_going) for session in chosen]
    return variants.shared([(one.name, one.binhost, plan) for one, plan in zip(chosen, made, strict=True)])


def over(session: Session, plan: Plan) -> Session:
    """`session` without the repositories that `plan` had to do without."""
    return replace(session, repositories=plan.repositories)


def _built_with(session: Session) -> fingerprint.Parts:
    """The stage's part of a fingerprint; without its toolchain's while there is no stage."""
    recipe = target.load_recipe()
    chosen = session.target
    parts = [("stage", fingerprint.digest(recipe.model_dump_json(), chosen.chost, chosen.debian_arch))]
    if found := stage.find(chosen, recipe, session.directories.cache):
        parts.append(("toolchain", _toolchain(found)))
    return tuple(parts)


def _toolchain(found: stage.Stage) -> str:
    """A hash of what its own compilers say of themselves."""
    files = sorted(path for path in found.signature.rglob("*") if path.is_file())
    return fingerprint.digest(*(part for path in files for part in (path.name, path.read_bytes())))


def _with_toolchain(plan: Plan, found: stage.Stage) -> Plan:
    """`plan`, made when there was no stage, with the toolchain of the one that has been built since."""
    part = ("toolchain", _toolchain(found))
    packages = (
        replace(package, fingerprint=(*(had for had in package.fingerprint if had[0] != part[0]), part))
        for package in plan.packages
    )
    return replace(plan, packages=tuple(packages))


def past_seconds(session: Session) -> dict[Cpv, float]:
    """The build times on record for the target, the latest build last: to ask makes no journal."""
    return Journal(session.journal).seconds(session.target.name) if session.journal.exists() else {}


def _records(directory: Path, chost: str) -> judge.Records:
    """What the binhost in `directory` has, if there is one: a plan alone makes no directories."""
    return binhosts.Binhost(directory, chost).records() if directory.exists() else {}


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


def hardware_for(session: Session, nodes: int, reporter: Reporter) -> Hardware:
    """An emulator and a stage, made if they are not there yet."""
    qemu.require_memory(session.config.node.memory_mib, nodes)
    cache = session.directories.cache
    recipe = target.load_recipe()
    reporter.step(f"looking for QEMU {emulator.NEWEST_MAJOR} or newer for {session.target.name}")
    found = emulator.ensure(session.target, recipe, cache)
    reporter.step(f"QEMU {found.version}; looking for the {session.target.name} stage")
    built = stage.ensure(session.target, recipe, cache, reporter.step)
    node = session.config.node
    hardware, why_not = kvm.accelerated(Hardware(session.target, found, built, node.memory_mib, node.cpus, node.boot_s))
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


def settings_of(session: Session, distcc_hosts: str = "") -> job.Settings:
    return job.Settings(
        chost=session.target.chost,
        profile=session.profile,
        repositories=session.repositories,
        jobs=session.config.build.jobs,
        distcc_hosts=distcc_hosts,
        fast_shell=session.config.node.fast_shell,
        skip_idle_phases=session.config.node.skip_idle_phases,
        test=session.config.build.test,
        make_conf=session.make_conf,
        user=session.user,
    )


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


def _pilot(session: Session, cross: hostcompiler.CrossCompiler, nodes: int, reporter: Reporter) -> pilot.Kit | None:
    """What pilots are made of, unless they are not wanted, would be in the way of the nodes, or cannot be had."""
    room = pilot.is_room(nodes, session.config.node.cpus, len(os.sched_getaffinity(0)))
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
    nodes: int,
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


def engine_for(
    session: Session,
    hardware: Hardware,
    live: runs.Run,
    binhost: binhosts.Binhost,
    stack: ExitStack,
    reporter: Reporter,
    *,
    nodes: int,
    compiles: Path | None = None,
    first: engines.FirstRound | None = None,
) -> engines.LocalEngine:
    """What runs jobs on up to `nodes` nodes of `hardware` with the help that the config gives them; ended with `stack`.

    Finished compiles are kept in `compiles`, by default in the user's cache. Raises MachineError.
    """
    hardware = warmed(session, hardware, reporter)
    cross = _cross(session, hardware, reporter)
    hosts = _offload(session, live, cross, stack, reporter)
    return engines.LocalEngine(
        hardware=hardware,
        settings=settings_of(session, hosts),
        limits=Limits(session.config.limits.total_s, session.config.limits.silence_s),
        live=live,
        binhost=binhost,
        distdir=session.directories.distfiles,
        providers=providers(session),
        logs=session.logs,
        cache=session.directories.cache,
        provides=target.load_recipe().provides,
        composed=session.config.node.composed,
        compiler=_compiler(session, cross, stack, compiles, nodes, reporter),
        first=first,
    )


def build(session: Session, plan: Plan, nodes: int, reporter: Reporter) -> Result:
    """Do what `plan` says. Raises InputError and MachineError before the first package is built."""
    if plan.first is None or not plan.to_build:
        return _build(session, plan, nodes, reporter)
    earlier = session.earlier
    reporter.step(f"the first round, into {earlier.binhost}")
    first = build(earlier, plan.first, nodes, reporter)
    if first.exit_code:
        return Result(plan, tuple(map(_without_first, plan.packages)), first.seconds, session.binhost, first)
    reporter.step(f"the second round, into {session.binhost}")
    round_one = engines.FirstRound(binhosts.Binhost(earlier.binhost, session.target.chost), bootstrap.base(plan))
    second = _build(session, plan, nodes, reporter, round_one)
    return replace(second, first=first, seconds=round(first.seconds + second.seconds, 2))


def _without_first(package: Package) -> Outcome:
    """How `package` ends when the first round failed."""
    if package.action.builds:
        return Outcome(package.cpv, Verdict.BLOCKED, reason="needs the first round, which failed")
    return Outcome(package.cpv, Verdict.SKIPPED, reason=package.reason)


def _build(
    session: Session, plan: Plan, nodes: int, reporter: Reporter, first: engines.FirstRound | None = None
) -> Result:
    start = time.monotonic()
    binhost = binhosts.Binhost(session.binhost, session.target.chost)
    journal = Journal(session.journal)
    plan = _taken(binhost, plan)
    if not plan.to_build:
        skipped = tuple(Outcome(package.cpv, Verdict.SKIPPED, reason=package.reason) for package in plan.packages)
        return Result(plan, skipped, round(time.monotonic() - start, 2), session.binhost)
    with only_one(session), ExitStack() as stack:
        left = runs.sweep(session.directories.state)
        if left:
            reporter.warn(f"cleaned up after {left} run{'s' if left > 1 else ''} that had been killed")
        for directory, purpose in ((session.directories.state, "the nodes' disks"), (session.binhost, "the binhost")):
            paths.require_space(directory, _BUILD_MIB, purpose)
        hardware = hardware_for(session, nodes, reporter)
        live = stack.enter_context(runs.Run(session.directories.state))
        count = min(nodes, len(plan.to_build))
        engine = engine_for(session, hardware, live, binhost, stack, reporter, nodes=count, first=first)
        plan = _with_toolchain(plan, hardware.stage)
        before = binhost.records()
        reporter.start(plan)
        outcomes = dispatch.run(
            plan,
            engine,
            tuple(f"node-{number}" for number in range(1, count + 1)),
            attempts=session.config.build.attempts,
            past_seconds=journal.seconds(session.target.name),
            progress=reporter,
            record=lambda outcome: journal.record(session.target.name, outcome),
            settle=lambda package: judge.settled(plan, package, binhost.records()),
        )
        for line in judge.missing_bumps(plan, before, binhost.records()):
            reporter.warn(line)
    return Result(plan, outcomes, round(time.monotonic() - start, 2), session.binhost)


def providers(session: Session) -> tuple[distfiles.Provider, ...]:
    wanted = session.config.distfiles
    locations = [repository.location for repository in session.repositories] if wanted.distribution else []
    return distfiles.providers(locations, session.directories.cache / "apt" / "sources", wanted.mirrors)


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
    hardware = hardware_for(session, 1, reporter)
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
            settings_of(session),
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
