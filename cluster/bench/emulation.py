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
from typing import Any

from cluster import config, paths, target
from cluster.bench import machine
from cluster.bench.prepared import Bench, needed, prepared, require_built
from cluster.bench.samples import Sample, Summary, ratios, sample, summarize
from cluster.errors import BuildFailed, InputError, MachineError
from cluster.master import binhost as binhosts
from cluster.master import distfiles, equipment
from cluster.master.engines import local
from cluster.master.progress import Reporter
from cluster.master.session import Session
from cluster.model import Cpv, Job, Outcome, Package
from cluster.node import container, emulator, roots, stage, unpacked
from cluster.node.build import Built
from cluster.node.job import Materials, Settings
from cluster.node.node import Hardware


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

    Raises as `prepared` does, and BuildFailed or NodeLost as soon as one build ends otherwise than well.
    """
    check_names(names)
    with prepared(session, atom, 1, reporter) as bench:
        variants, left_out = _ready(bench, names)
        samples = _take_turns(variants, repeat, reporter)
    return Report(
        package=bench.package.cpv,
        repeat=repeat,
        made_of={name: variant.made_of for name, variant in variants.items()},
        summaries={name: summarize(taken) for name, taken in samples.items()},
        left_out=left_out,
        machine=machine.facts(bench.hardware.emulator.version),
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
    roots.check(root, bench.live.directory / f"{name}-check")
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
    registration = container.registration_of(hardware.target)
    tree = unpacked.ensure(hardware.stage, hardware.emulator, bench.session.directories.cache)
    root = container.tree_root(tree, registration)
    roots.check(root, bench.live.directory / f"{name}-check")
    settings = _unhelped(bench)
    return Variant(
        emulator.user_version(bench.session.target),
        lambda begin: _contain(bench, name, root, settings, bench.binhost, bench.package, begin),
    )


def _contain(
    bench: Bench,
    name: str,
    root: roots.Root,
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
    with bench.live.node_directory(name) as directory, log.open("wb", buffering=0) as stream:
        built: Built = container.build(
            package,
            settings,
            root,
            bench.limits,
            directory=directory.resolve(),
            materials=materials,
            output=stream.write,
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
        builder = equipment.builder_for(
            session, hardware, bench.live, stack, bench.reporter, nodes=1, compiles=compiles
        )
        delivery = equipment.delivery_for(session, bench.binhost, bench.logs / name)
        begin()
        outcome = local.run(delivery, builder, Job(bench.package, attempt=1), name, lambda phase: None)
    return _sample_of(name, outcome)


def _sample_of(name: str, outcome: Outcome) -> Sample:
    """The sample of a build in a node; raises as `require_built`."""
    require_built(name, outcome)
    return sample(outcome.phases, outcome.seconds)


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
