"""`cluster bench emulation`: one package, built natively and under emulators with more and more of our levers.

Every variant builds the same ebuild with the same Portage, and writes the same marks of where the time goes.
Variants take turns, so that a change in the machine's mood meets all of them.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from cluster import config, paths, target
from cluster.bench import machine
from cluster.bench.samples import Sample, Summary, ratios, sample, summarize
from cluster.errors import BuildFailed, InputError, MachineError, NodeLost
from cluster.master import binhost as binhosts
from cluster.master import building, distfiles, equipment, planning, runs
from cluster.master.progress import Reporter
from cluster.master.session import Session
from cluster.model import Cpv, Job, Outcome, Package, Plan, Verdict
from cluster.node import container, emulator, stage
from cluster.node.build import Built, Limits
from cluster.node.job import Materials, Settings
from cluster.node.node import Hardware

_NEED_MIB = 4000


@dataclass(frozen=True, slots=True)
class Bench:
    """What the variants of one benchmark share."""

    session: Session
    plan: Plan
    package: Package
    live: runs.Run
    hardware: Hardware
    """Of a tuned node."""
    binhost: binhosts.Binhost
    """A scratch one with the package's prerequisites."""
    limits: Limits
    logs: Path
    reporter: Reporter


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to build the package."""

    made_of: str
    """What it runs on, for a person."""
    build: Callable[[Callable[[], None]], Sample]
    """Tells its argument when all is ready and the build begins. Raises BuildFailed, NodeLost."""


@dataclass(frozen=True, slots=True)
class Report:
    """What came out."""

    package: Cpv
    repeat: int
    made_of: dict[str, str]
    summaries: dict[str, Summary]
    left_out: dict[str, str]
    """Variants that this machine cannot run, and why."""
    machine: dict[str, str | int]

    def json(self) -> dict[str, Any]:
        """The contract of `cluster bench emulation --json`."""
        return {
            "package": self.package,
            "repeat": self.repeat,
            "variants": {name: self._variant(name) for name in self.summaries},
            "ratio_to_native": ratios(self.summaries),
            "left_out": self.left_out,
            "machine": self.machine,
        }

    def _variant(self, name: str) -> dict[str, Any]:
        summary = self.summaries[name]
        fields = {part: getattr(summary.median, part) for part in summary.spread}
        return {**fields, "spread": summary.spread, "made_of": self.made_of[name]}


def measure(session: Session, atom: str, names: Sequence[str], repeat: int, reporter: Reporter) -> Report:
    """Build `atom` `repeat` times in each variant of `names`.

    Prerequisites that the binhost lacks are built first. Raises InputError for what cannot be meant,
    MachineError if the machine can do none of it, BuildFailed as soon as one build fails.
    """
    check_names(names)
    session = untested(session)
    plan, package = planned(session, atom)
    build_prerequisites(session, plan, package, reporter)
    for distfile in package.distfiles:
        distfiles.fetch(distfile, session.directories.distfiles, equipment.providers(session))
    with building.only_one(session), ExitStack() as stack:
        runs.sweep(session.directories.state)
        paths.require_space(session.directories.state, _NEED_MIB, "the benchmark")
        hardware = equipment.hardware_for(session, 1, reporter)
        live = stack.enter_context(runs.Run(session.directories.state))
        stack.callback(live.stop)
        bench = Bench(
            session=session,
            plan=plan,
            package=package,
            live=live,
            hardware=hardware,
            binhost=scratch_binhost(session, plan, package, live.directory / "binhost"),
            limits=Limits(session.config.limits.total_s, session.config.limits.silence_s),
            logs=session.directories.logs / "bench",
            reporter=reporter,
        )
        variants, left_out = _ready(bench, names)
        samples = _take_turns(variants, repeat, reporter)
    return Report(
        package=package.cpv,
        repeat=repeat,
        made_of={name: variant.made_of for name, variant in variants.items()},
        summaries={name: summarize(taken) for name, taken in samples.items()},
        left_out=left_out,
        machine=machine.facts(hardware.emulator.version),
    )


def check_names(names: Sequence[str]) -> None:
    """Raise InputError for a variant that there is not, for one named twice, and for none."""
    unknown = [name for name in names if name not in VARIANTS]
    if unknown or not names or len(set(names)) < len(names):
        what = (
            f"there is no variant {unknown[0]!r}"
            if unknown
            else f"--variants {','.join(names)!r} names none or one twice"
        )
        raise InputError(what, f"variants: {', '.join(VARIANTS)}")


def untested(session: Session) -> Session:
    """The session without packages' tests, which are not measured."""
    build = session.config.build.model_copy(update={"test": False})
    return replace(session, config=session.config.model_copy(update={"build": build}))


def planned(session: Session, atom: str) -> tuple[Plan, Package]:
    """The plan for `atom` and the one package that it means. Raises InputError if it means several or none."""
    plan = planning.make_plan(session, (atom,))
    requested = [package for package in plan.packages if package.requested]
    if len(requested) != 1:
        raise InputError(f"{atom} is {len(requested)} packages", "name one package with --package")
    return plan, requested[0]


def needed(plan: Plan, package: Package) -> tuple[Package, ...]:
    """The packages that building `package` from nothing takes, itself left out, in the plan's order."""
    closure: set[Cpv] = set()
    wanted = list(package.requires)
    while wanted:
        cpv = wanted.pop()
        if cpv not in closure:
            closure.add(cpv)
            wanted += plan.package(cpv).requires
    return tuple(other for other in plan.packages if other.cpv in closure)


def build_prerequisites(session: Session, plan: Plan, package: Package, reporter: Reporter) -> None:
    """Build what `package` requires and the binhost lacks into it. Raises BuildFailed if some of it fails."""
    packages = needed(plan, package)
    missing = [other.cpv for other in packages if other.action.builds]
    if not missing:
        return
    reporter.warn(f"built first, because the binhost lacks them: {', '.join(missing)}")
    result = building.build(session, replace(plan, packages=packages), session.config.build.nodes, reporter)
    if result.exit_code:
        raise BuildFailed(f"the prerequisites of {package.cpv} do not build", "see `cluster build`")


def scratch_binhost(session: Session, plan: Plan, package: Package, directory: Path) -> binhosts.Binhost:
    """A binhost with what `package` requires: benchmarks publish nothing."""
    real = binhosts.Binhost(session.binhost, session.target.chost)
    scratch = binhosts.Binhost(directory, session.target.chost)
    for cpv in package.requires:
        scratch.admit(real.path(cpv), plan.package(cpv))
    return scratch


def _ready(bench: Bench, names: Sequence[str]) -> tuple[dict[str, Variant], dict[str, str]]:
    """The variants that this machine can run, and why it cannot run the others."""
    variants: dict[str, Variant] = {}
    left_out: dict[str, str] = {}
    for name in names:
        try:
            variants[name] = VARIANTS[name](bench, name)
        except MachineError as error:
            left_out[name] = str(error)
            bench.reporter.warn(f"{name} is left out: {error}")
    if not variants:
        raise MachineError("this machine can run none of the variants", "; ".join(left_out.values()))
    return variants, left_out


def _take_turns(variants: Mapping[str, Variant], repeat: int, reporter: Reporter) -> dict[str, list[Sample]]:
    samples: dict[str, list[Sample]] = {name: [] for name in variants}
    for turn in range(1, repeat + 1):
        for name, variant in variants.items():
            text = f"{turn} of {repeat}: {name} ({variant.made_of})"
            taken = variant.build(partial(reporter.step, text))
            reporter.tell(taken.in_words)
            samples[name].append(taken)
    return samples


def _host_settings(bench: Bench) -> Settings:
    profile = paths.data("profiles", container.host_arch())
    if not profile.is_dir():
        raise MachineError(f"there is no profile for this machine's {container.host_arch()}", f"write {profile}")
    return replace(_unhelped(bench), chost=container.host_chost(), profile=profile)


def _unhelped(bench: Bench) -> Settings:
    """What jobs share outside nodes, where there is no help for them."""
    return equipment.settings_of(replace(bench.session, config=config.plain(bench.session.config)))


def _native(bench: Bench, name: str) -> Variant:
    """The host's own compiler, kernel and files, with the master's Portage."""
    settings = _host_settings(bench)
    bench.reporter.step("preparing the native root")
    place = bench.live.directory / name
    root = container.host_root(place, target.load_recipe().provides, container.host_arch())
    container.check(root, bench.live.directory / f"{name}-check")
    binhost = binhosts.Binhost(bench.live.directory / f"{name}-binhost", settings.chost)
    for package in needed(bench.plan, bench.package):
        for distfile in package.distfiles:
            distfiles.fetch(distfile, bench.session.directories.distfiles, equipment.providers(bench.session))
        begin = partial(bench.reporter.step, f"building {package.cpv} natively")
        _contain(bench, name, root, settings, binhost, package, begin)
    return Variant(
        f"gcc of {settings.chost}", lambda begin: _contain(bench, name, root, settings, binhost, bench.package, begin)
    )


def _qemu_user(bench: Bench, name: str) -> Variant:
    """The stage's own files on this kernel, each program run by qemu-user."""
    bench.reporter.step("unpacking the stage for qemu-user")
    hardware = bench.hardware
    root = container.stage_root(bench.live.directory / name, hardware.stage, hardware.emulator, hardware.target)
    container.check(root, bench.live.directory / f"{name}-check")
    settings = _unhelped(bench)
    return Variant(
        emulator.user_version(bench.session.target),
        lambda begin: _contain(bench, name, root, settings, bench.binhost, bench.package, begin),
    )


def _contain(
    bench: Bench,
    name: str,
    root: container.Root,
    settings: Settings,
    binhost: binhosts.Binhost,
    package: Package,
    begin: Callable[[], None],
) -> Sample:
    """Build `package` in a container and admit it to `binhost`."""
    begin()
    start = time.monotonic()
    log = bench.logs / name / package.category / f"{package.pf}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    materials = Materials(
        distfiles=bench.session.directories.distfiles,
        binpkgs={cpv: binhost.path(cpv) for cpv in package.requires},
        index=binhost.index_of(package.requires),
    )
    with bench.live.node_directory(name) as directory:
        built: Built = container.build(
            package,
            settings,
            root,
            bench.limits,
            directory=directory.resolve(),
            materials=materials,
            log=log,
            own=bench.live.own,
        )
        if built.binpkg is None:
            raise BuildFailed(f"{name}: {package.cpv} failed in {built.failure}", f"see {log}")
        binhost.admit(built.binpkg, package)
    return sample(built.phases, time.monotonic() - start)


def _plain(bench: Bench, name: str) -> Variant:
    """A node as QEMU and the distribution give it."""
    session, reporter, cache = bench.session, bench.reporter, bench.session.directories.cache
    plain = target.plain(session.target)
    reporter.step("looking for the release's own QEMU and kernel")
    hardware = replace(
        bench.hardware,
        target=plain,
        emulator=emulator.of_release(plain, cache),
        stage=stage.with_kernel(bench.hardware.stage, plain, target.load_recipe(), cache, reporter.step),
        disk_cache="writeback",  # QEMU's default
    )
    return _in_node(bench, name, hardware, config.plain(bench.session.config))


def _tuned(bench: Bench, name: str) -> Variant:
    """Our node, and nothing beside it."""
    return _in_node(bench, name, bench.hardware, config.plain(bench.session.config))


def _distcc(bench: Bench, name: str) -> Variant:
    """Our node and distcc."""
    bare = config.plain(bench.session.config)
    with_distcc = bare.model_copy(update={"distcc": bare.distcc.model_copy(update={"enabled": True})})
    return _in_node(bench, name, bench.hardware, with_distcc)


def _full(bench: Bench, name: str) -> Variant:
    """What `cluster build` does with a package that it has never seen."""
    return _in_node(bench, name, bench.hardware, bench.session.config)


def _cached(bench: Bench, name: str) -> Variant:
    """What it does with one whose compiles are in the cache, as after `full` in the same turn."""
    return _in_node(bench, name, bench.hardware, bench.session.config)


def _in_node(bench: Bench, name: str, hardware: Hardware, chosen: config.Config) -> Variant:
    kernel = hardware.stage.facts["kernel"]
    made_of = f"QEMU {hardware.emulator.version}, {hardware.target.qemu.cpu}, Linux {kernel}"
    return Variant(made_of, lambda begin: _node_build(bench, name, hardware, chosen, begin))


def _node_build(
    bench: Bench, name: str, hardware: Hardware, chosen: config.Config, begin: Callable[[], None]
) -> Sample:
    with ExitStack() as stack:
        session = replace(bench.session, config=chosen)
        compiles = bench.live.directory / "compiles"
        if name != "cached":
            shutil.rmtree(compiles, ignore_errors=True)
        engine = equipment.engine_for(
            session, hardware, bench.live, bench.binhost, stack, bench.reporter, nodes=1, compiles=compiles
        )
        engine = replace(engine, logs=bench.logs / name)
        begin()
        outcome = engine.run(Job(bench.package, attempt=1), name, lambda phase: None)
    return _sample_of(name, outcome)


def _sample_of(name: str, outcome: Outcome) -> Sample:
    """The sample of a build in a node; raises as `require_built`."""
    require_built(name, outcome)
    return sample(outcome.phases, outcome.seconds)


def require_built(name: str, outcome: Outcome) -> None:
    """Raise BuildFailed or NodeLost if the build of `name` did not end well."""
    if outcome.verdict is Verdict.BUILT:
        return
    kind = NodeLost if outcome.verdict is Verdict.LOST else BuildFailed
    raise kind(f"{name}: {outcome.cpv} {outcome.verdict}: {outcome.reason}", f"see {outcome.log}")


VARIANTS: Mapping[str, Callable[[Bench, str], Variant]] = {
    "native": _native,
    "qemu-user": _qemu_user,
    "plain": _plain,
    "tuned": _tuned,
    "distcc": _distcc,
    "full": _full,
    "cached": _cached,
}
"""How each variant gets ready, in the order of a report. Raises MachineError where the machine cannot."""
