"""How long a build takes: natively, in a qemu-user chroot, and in nodes with and without each help."""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from cluster import config, paths, target
from cluster.errors import InputError, MachineError
from cluster.master import session as sessions
from cluster.master.session import Session
from cluster.model import Action, Job, Package, Plan, Verdict
from cluster.node import build as builds
from cluster.node import disk, stage
from cluster.node import job as jobs
from cluster.node.node import Hardware
from cluster.process import find_program, run, tail

PHASES: Final = {"extract": "unpack", "configure": "configure", "compile": "compile", "install": "install"}
"""Ours, by Portage's names; their sum is the total."""
VARIANTS: Final = ("native", "qemu-user", "plain", "tuned", "distcc", "full", "cached")
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_DEADLINE_S = 6 * 3600.0
_NATIVE_PROFILE = "amd64"
_SCRIPT = """\
set -eu
. /job/job.env
PORTAGE_CONFIGROOT=/job/root ROOT=/ EPREFIX= ebuild "$EBUILD" clean install
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """One build: seconds by our names of phases, and of the clock on the wall."""

    phases: Mapping[str, float]
    wall_s: float

    @property
    def total_s(self) -> float:
        """Of all phases."""
        return sum(self.phases.values())


@dataclass(frozen=True, slots=True)
class Results:
    """All builds of one package."""

    package: str
    repeat: int
    samples: Mapping[str, Sequence[Sample]]
    """By variant, in the order of VARIANTS."""
    left_out: Mapping[str, str]
    """Variants that this machine cannot do, with the reason."""

    def median(self, variant: str, value: Callable[[Sample], float]) -> float:
        """The median of a value over a variant's builds."""
        return statistics.median(map(value, self.samples[variant]))

    def ratio(self, variant: str) -> float | None:
        """Total to native total; None without a native build."""
        if "native" not in self.samples:
            return None
        return self.median(variant, lambda one: one.total_s) / self.median("native", lambda one: one.total_s)


def machine() -> dict[str, str]:
    """What the numbers were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    cores = sum(line.startswith("processor") for line in lines)
    return {"cpu": model, "cores": str(cores), "kernel": platform.release()}


@dataclass(frozen=True, slots=True)
class Bench:
    """A package and a scratch directory to build it in."""

    session: Session
    plan: Plan
    package: Package
    scratch: Path
    reporter: sessions.Reporter

    def measure(self, variants: Sequence[str], repeat: int) -> Results:
        """Build `repeat` times in every variant, one after the other and then again. Raises ClusterError."""
        samples: dict[str, list[Sample]] = {}
        left_out: dict[str, str] = {}
        for round_ in range(1, repeat + 1):
            for variant in variants:
                if variant in left_out:
                    continue
                self.reporter.step(f"{variant}: {self.package.cpv}, {round_} of {repeat}")
                try:
                    samples.setdefault(variant, []).append(self._sample(variant))
                except _CannotHere as error:
                    left_out[variant] = str(error)
                    self.reporter.warn(f"{variant} is left out: {error}")
                    del samples[variant]
        return Results(self.package.cpv, repeat, samples, left_out)

    def _sample(self, variant: str) -> Sample:
        with tempfile.TemporaryDirectory(prefix=f"{variant}-", dir=self.scratch) as directory:
            place = Path(directory)
            start = time.monotonic()
            match variant:
                case "native":
                    spent = self._native(place)
                case "qemu-user":
                    spent = self._user(place)
                case _:
                    spent = self._node(variant, place)
            phases = {ours: dict(spent).get(theirs, 0.0) for ours, theirs in PHASES.items()}
            return Sample(phases, time.monotonic() - start)

    # -- in a node

    def _node(self, variant: str, place: Path) -> tuple[tuple[str, float], ...]:
        chosen = replace(self.session, config=_config(variant, self.session.config))
        cache = None if variant == "cached" else place / "compiles"
        with sessions.open_engine(chosen, 1, self.reporter, compiles=cache) as engine:
            if variant == "plain":
                engine = replace(engine, hardware=self._plain(engine.hardware))
            outcome = engine.run(Job(self.package, 1), f"bench-{variant}", lambda phase: None)
        if outcome.verdict is not Verdict.BUILT:
            raise MachineError(f"{variant}: {self.package.cpv} {outcome.verdict.value}", f"see {outcome.log}")
        return outcome.phases

    def _plain(self, hardware: Hardware) -> Hardware:
        """What somebody has who boots the distribution's own kernel on QEMU's most capable processor."""
        chosen = hardware.target.model_copy(
            update={
                "qemu": hardware.target.qemu.model_copy(update={"cpu": "max"}),
                "kernel": hardware.target.kernel.model_copy(
                    update={"package": "linux-image-" + hardware.target.debian_arch, "arguments": "panic=1 quiet"}
                ),
            }
        )
        place = self.scratch / "plain-stage"
        if not place.exists():
            self.reporter.step("fetching the distribution's default kernel")
            stage.rekernel(hardware.stage, chosen, target.load_recipe(), self.session.directories.cache, place)
        return replace(hardware, target=chosen, stage=stage.Stage(place))

    # -- on the host

    def _job(self, place: Path, profile: Path, chost: str) -> Path:
        """A job's content as a directory; the compiler behind it is whatever PATH has."""
        content = place / "job"
        content.mkdir()
        settings = replace(sessions.settings_of(self.session), profile=profile, chost=chost)
        materials = jobs.Materials(distfiles=self.session.directories.distfiles, binpkgs={}, index="")
        jobs.fill(content, replace(self.package, requires=()), settings, materials)
        (content / "root/etc").mkdir(parents=True)
        (content / "root/etc/portage").symlink_to("/job/portage")
        (content / "script").write_text(_SCRIPT)
        return content

    def _native(self, place: Path) -> tuple[tuple[str, float], ...]:
        chost = run(["gcc", "-dumpmachine"], deadline_s=60).strip()
        content = self._job(place, paths.data("profiles", _NATIVE_PROFILE), chost)
        words = ["--ro-bind", "/usr", "/usr", "--ro-bind", "/etc", "/etc", "--tmpfs", "/tmp"]
        for name in ("bin", "sbin", "lib", "lib64"):
            words += ["--symlink", f"usr/{name}", f"/{name}"]
        for prefix in {sys.prefix, sys.base_prefix} - {"/usr"}:
            words += ["--ro-bind", prefix, prefix]
        (content / "bin").mkdir()
        (content / "bin/gtar").symlink_to("/usr/bin/tar")  # as Portage calls it
        path = f"/job/bin:{sys.prefix}/bin:/usr/sbin:/usr/bin"
        return _in_sandbox([*words, "--setenv", "PATH", path], content, place / "log")

    def _user(self, place: Path) -> tuple[tuple[str, float], ...]:
        emulator = self.session.target.qemu.binary.removeprefix("qemu-system-")
        if not (_BINFMT / f"qemu-{emulator}").exists():
            raise _CannotHere(
                f"the kernel runs no {emulator} programs: apt-get install qemu-user-static, and register it (as root)"
            )
        content = self._job(place, self.session.profile, self.session.target.chost)
        root = self.scratch / "root"
        if not root.exists():
            self.reporter.step("unpacking the stage for the qemu-user chroot")
            self._unpack_stage(root)
        words = ["--bind", str(root), "/", "--tmpfs", "/tmp"]
        path = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return _in_sandbox([*words, "--setenv", "PATH", path], content, place / "log")

    def _unpack_stage(self, root: Path) -> None:
        hardware = sessions.hardware_of(self.session, 1, self.reporter)
        fresh = root.with_name("root.new")
        fresh.mkdir()
        disk.unpack(hardware.emulator, hardware.stage.disk, fresh)
        (fresh / "job").mkdir(exist_ok=True)
        fresh.rename(root)


class _CannotHere(Exception):
    """This machine cannot do a variant."""


def _config(variant: str, chosen: config.Config) -> config.Config:
    """What `variant` of a node has: nothing, nothing but distcc, or what the user has."""
    if variant in ("full", "cached"):
        return chosen
    bare = config.plain(chosen)
    if variant == "distcc":
        return bare.model_copy(update={"distcc": bare.distcc.model_copy(update={"enabled": True})})
    return bare


def _in_sandbox(words: Sequence[str], content: Path, log: Path) -> tuple[tuple[str, float], ...]:
    """Run a job's script in a root made by bwrap; returns the seconds of its phases."""
    temporary = content.parent / "tmp"
    temporary.mkdir()
    argv = [
        *[find_program("bwrap", "bubblewrap"), "--die-with-parent", "--unshare-all", "--uid", "0", "--gid", "0"],
        *["--clearenv", *words, "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/run"],
        *["--bind", str(temporary), "/var/tmp", "--bind", str(content), "/job"],
        *["--setenv", "HOME", "/tmp", "--setenv", "LC_ALL", "C.UTF-8", "--setenv", "NOCOLOR", "true"],
        *["--setenv", "PORTAGE_USERNAME", "root", "--setenv", "PORTAGE_GRPNAME", "root"],
        *["sh", "/job/script"],
    ]
    with log.open("wb") as stream:
        ended = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, timeout=_DEADLINE_S, check=False
        )
    if ended.returncode:
        raise MachineError(
            f"the build failed with exit status {ended.returncode}", tail(log.read_text(errors="replace"))
        )
    return builds.phases((content / "out/marks").read_text())


def emulation(
    session: Session, atom: str, variants: Sequence[str], repeat: int, reporter: sessions.Reporter
) -> Results:
    """Build the package of `atom` `repeat` times in every variant. Raises ClusterError.

    Its prerequisites are built first, with all help. Nothing comes into the user's binhost.
    """
    unknown = [variant for variant in variants if variant not in VARIANTS]
    if unknown:
        raise InputError(f"unknown variant {unknown[0]}", f"known: {', '.join(VARIANTS)}")
    session.directories.state.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=session.directories.state) as directory:
        scratch = Path(directory)
        own = replace(session, binhost=scratch / "binhost")
        plan = sessions.make_plan(own, (atom,))
        wanted = [package for package in plan.packages if package.requested]
        if len(wanted) != 1:
            raise InputError(f"{atom} is not one package", "name one, as dev-build/make")
        (package,) = wanted
        before = tuple(one for one in plan.to_build if one.cpv in package.requires)
        if before:
            prerequisites = replace(plan, packages=tuple(replace(one, action=Action.BUILD) for one in before))
            built = sessions.build(own, prerequisites, session.config.build.nodes, reporter)
            if built.exit_code:
                raise MachineError("a prerequisite was not built", "see its log")
        sessions.fetch(own, package)
        return Bench(own, plan, package, scratch, reporter).measure(variants, repeat)


def as_json(results: Results) -> dict[str, object]:
    """The contract of `cluster bench emulation --json`."""
    variants = {}
    for name in results.samples:
        values: dict[str, object] = {}
        for phase in (*PHASES, "total", "wall"):
            spread = sorted(round(value_of(phase)(sample), 2) for sample in results.samples[name])
            values[f"{phase}_s"] = round(statistics.median(spread), 2)
            values.setdefault("spread", {})[f"{phase}_s"] = [spread[0], spread[-1]]  # type: ignore[index]
        variants[name] = values
    ratios = {name: results.ratio(name) for name in results.samples}
    return {
        "package": results.package,
        "repeat": results.repeat,
        "variants": variants,
        "ratio_to_native": {name: round(ratio, 2) for name, ratio in ratios.items() if ratio is not None},
        "left_out": dict(results.left_out),
        "machine": machine(),
    }


def value_of(phase: str) -> Callable[[Sample], float]:
    """A sample's seconds of a phase, or of `total` or `wall`."""
    if phase == "total":
        return lambda sample: sample.total_s
    if phase == "wall":
        return lambda sample: sample.wall_s
    return lambda sample: sample.phases[phase]
