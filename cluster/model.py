"""The values that the parts hand to each other: plan, job, outcome. All frozen."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import NewType

Cpv = NewType("Cpv", str)
"""CATEGORY/NAME-VERSION, for example `sys-libs/zlib-1.3.1`."""


def full_slot(slot: str) -> str:
    """`slot` with its subslot, which is the slot itself where none is given (PMS 7.2)."""
    return slot if "/" in slot else f"{slot}/{slot}"


def main_slot(slot: str) -> str:
    """`slot` without its subslot."""
    return slot.partition("/")[0]


class Action(enum.StrEnum):
    """What a plan does with a package."""

    BUILD = "build"
    CHECK = "check"
    """Built if a library that it links to turns out to be another one, else kept."""
    SKIP = "skip"
    TAKE = "take"
    """Copied from another binhost, which has the same."""

    @property
    def builds(self) -> bool:
        """Whether a node may be needed."""
        return self in (Action.BUILD, Action.CHECK)


@dataclass(frozen=True, slots=True)
class Distfile:
    """A source archive as the Manifest describes it."""

    name: str
    size: int
    """Bytes."""
    digests: tuple[tuple[str, str], ...]
    """Hash name (`BLAKE2B`, `SHA512`) and hexadecimal digest."""
    uris: tuple[str, ...]
    """Where upstream has it, mirrors expanded, in the ebuild's order."""


@dataclass(frozen=True, slots=True)
class Repository:
    """An ebuild repository: its name and directory."""

    name: str
    location: Path
    revision: str = field(default="", compare=False)
    """Which one was read, in a plan (`master.trees.revision`); "" where nobody asked."""


class Kind(enum.StrEnum):
    """When a dependency has to be there."""

    BUILD = "build"
    """For the build: DEPEND, BDEPEND."""
    RUN = "run"
    """To run: RDEPEND, IDEPEND."""
    POST = "post"
    """Some time after: PDEPEND."""


@dataclass(frozen=True, slots=True)
class Dependency:
    """That a package needs another, which the plan builds or the stage has."""

    cpv: Cpv
    kinds: tuple[Kind, ...]
    atoms: tuple[str, ...]
    """The dependency strings that `cpv` satisfies, sorted."""


@dataclass(frozen=True, slots=True)
class Package:
    """One package of a plan."""

    cpv: Cpv
    slot: str
    """With its subslot, as `0/1.3`."""
    use: tuple[str, ...]
    """The enabled flags of its IUSE, sorted."""
    iuse: tuple[str, ...]
    """All flags of its IUSE, without defaults' signs, sorted."""
    repository: str
    ebuild: Path
    requires: Sequence[Cpv]
    """Every package that must be in the node before the build, in the order of installation."""
    distfiles: tuple[Distfile, ...]
    action: Action = Action.BUILD
    reason: str = ""
    origin: Path | None = None
    """The directory of the binhost to TAKE it from."""
    requested: bool = False
    """Whether the user asked for it, rather than another package."""
    arguments: tuple[str, ...] = ()
    """The atoms and sets of the request that name it, sorted."""
    dependencies: tuple[Dependency, ...] = ()
    """What it needs itself, in the order of its ebuild."""
    fingerprint: tuple[tuple[str, str], ...] = ()
    """What it is made from, part by part (cluster.master.fingerprint)."""
    metadata: str = ""
    """The ebuild's entry for its repository's metadata/md5-cache; "" where there is none."""

    @property
    def category(self) -> str:
        """The part before the slash."""
        return self.cpv.partition("/")[0]

    @property
    def name(self) -> str:
        """CATEGORY/NAME, the directory of its ebuild."""
        return f"{self.category}/{self.ebuild.parent.name}"

    @property
    def place(self) -> tuple[str, str]:
        """Its name, and its slot without the subslot: of one place one package is installed at a time."""
        return self.name, main_slot(self.slot)

    @property
    def source_bytes(self) -> int:
        """The size of its source archives together."""
        return sum(distfile.size for distfile in self.distfiles)

    @property
    def pf(self) -> str:
        """Name and version, Portage's PF."""
        return self.cpv.partition("/")[2]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A part of a request that a plan does without."""

    what: str
    """An atom, a set, or `repository NAME`."""
    reason: str
    mend: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.what, self.reason, self.mend) if part)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to build, in an order in which every package comes after what it requires."""

    target: str
    chost: str
    packages: tuple[Package, ...]
    repositories: tuple[Repository, ...]
    """Those that it was made over."""
    profile: Path
    first: Plan | None = None
    """What is built before, into a binhost of its own, and is then in the stage of this plan's nodes."""
    left_out: tuple[LeftOut, ...] = ()
    """What was asked for and cannot be planned, where the rest was to be planned all the same."""
    warnings: tuple[str, ...] = ()
    """What is wrong in the repositories and stopped nothing, a line each."""
    _by_cpv: dict[Cpv, Package] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_cpv", {package.cpv: package for package in self.packages})

    def package(self, cpv: Cpv) -> Package:
        """The package called `cpv`; KeyError if the plan has none."""
        return self._by_cpv[cpv]

    @property
    def to_build(self) -> tuple[Package, ...]:
        """The packages that are built, or may turn out to be."""
        return tuple(package for package in self.packages if package.action.builds)


@dataclass(frozen=True, slots=True)
class Compiles:
    """How many compiler runs went where. What the compile server refused is distcc's, or the node's own."""

    remote: int = 0
    """Sent to the host by distcc."""
    local: int = 0
    """Kept in the node by distcc."""
    failed: int = 0
    """Rejected by the compiler behind distcc."""
    host: int = 0
    """Done by the compile server, the cached ones included."""
    cached: int = 0
    away: int = 0
    """Given by the compile server to other hosts, because it had no processor left."""
    wire_bytes: int = 0
    """Between the node and the compile server."""

    def __str__(self) -> str:
        away = f"{self.away} on others, " if self.away else ""
        return f"{self.host} on the host ({self.cached} cached), {away}{self.remote} by distcc, {self.local} local"

    def __add__(self, other: Compiles) -> Compiles:
        return Compiles(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, slots=True)
class Served:
    """What the distccd of one host of a pool did."""

    host: str
    compiled: int = 0
    """Those included whose source the compiler rejected."""
    failed: int = 0
    """Given to it and not done: it refused, broke off or did not answer, and others were asked."""
    seconds: float = 0.0
    """Of its compiles, added up."""
    wire_bytes: int = 0

    def __add__(self, other: Served) -> Served:
        """Both together, of the same host."""
        return Served(
            self.host,
            self.compiled + other.compiled,
            self.failed + other.failed,
            self.seconds + other.seconds,
            self.wire_bytes + other.wire_bytes,
        )


@dataclass(frozen=True, slots=True)
class Usage:
    """What a job took of its host; what was not measured is None."""

    cpu_s: float | None = None
    """CPU seconds of the node's emulator, and the seconds of its compiles on the host and on those of a pool."""
    memory_mib: float | None = None
    """The most of the host's memory that the node's emulator had at once."""
    disk_mib: float | None = None
    """What the node's files took at the end."""


@dataclass(frozen=True, slots=True)
class Job:
    """Build this package, from exactly these prerequisites."""

    package: Package
    attempt: int
    """Counts from 1; more than 1 after a lost node."""
    jobs: int | None = None
    """make's -j; None for that of the configuration."""


class Verdict(enum.StrEnum):
    """How a package ended."""

    BUILT = "built"
    FAILED = "failed"
    """The package's fault."""
    LOST = "lost"
    """The host's or node's fault; tried again elsewhere."""
    BLOCKED = "blocked"
    """A prerequisite failed."""
    SKIPPED = "skipped"
    """Already in the binhost."""

    @property
    def is_there(self) -> bool:
        """Whether what needs the package has it."""
        return self in (Verdict.BUILT, Verdict.SKIPPED)

    @property
    def in_passing(self) -> str:
        """How one that is not there ended, after `which`."""
        return "was lost" if self is Verdict.LOST else "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one job, or one package that never became a job, ended."""

    cpv: Cpv
    verdict: Verdict
    node: str = ""
    attempt: int = 0
    phases: tuple[tuple[str, float], ...] = ()
    """Phase (`boot`, `prerequisites`, `configure`, `compile`, `install`…) and its seconds."""
    seconds: float = 0.0
    usage: Usage = field(default_factory=Usage)
    jobs: int | None = None
    """Make's -j; None where nothing ran."""
    speed: float = 1.0
    """Of the node: a build that takes a node of speed 1 a minute takes one of speed 2 half a minute."""
    source_bytes: int | None = None
    """Of the package's source archives together."""
    compiles: Compiles = field(default_factory=Compiles)
    served: tuple[Served, ...] = ()
    """Of the compiles by distcc and on others, which host of a pool did them; empty where there is no pool."""
    log: Path | None = None
    binpkg: Path | None = None
    reason: str = ""


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
