"""Past builds, and what those of one version of a package come to: pure functions over frozen values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cluster.master.gpkg import package_name
from cluster.model import Cpv, Verdict

CHANGED = 2.0
"""A build that takes more than this many times what is expected, or less than that part of it, is of something else."""
RAN = (Verdict.BUILT, Verdict.FAILED, Verdict.LOST)
"""How a build can end that ran on a node."""
_WEIGHT = 0.5  # of the latest build


@dataclass(frozen=True, slots=True)
class Build:
    """One past build. What is not known of it is None."""

    target: str
    cpv: Cpv
    ended: float
    """Seconds since the epoch."""
    verdict: Verdict
    """One of RAN."""
    seconds: float
    """From the fetching of its sources to the admission of its binpkg."""
    cpu_s: float | None = None
    memory_mib: float | None = None
    disk_mib: float | None = None
    phases: tuple[tuple[str, float], ...] = ()
    """Phase and its seconds."""
    jobs: int | None = None
    """Make's -j."""
    speed: float = 1.0
    """Of its node, relative to the reference."""
    source_bytes: int | None = None
    """Of its source archives together."""
    remote: int = 0
    """Compiles that went to the host."""
    local: int = 0
    """Compiles that distcc kept in the node."""

    @property
    def name(self) -> str:
        """CATEGORY/NAME. A version that is not Gentoo's, as pkgsrc's `1.3nb2`, begins after the last hyphen."""
        return package_name(self.cpv) or self.cpv.rpartition("-")[0]

    @property
    def version(self) -> str:
        """Its version, with the revision."""
        return self.cpv.removeprefix(f"{self.name}-")

    @property
    def reference_s(self) -> float:
        """The seconds that a node of speed 1 would have taken."""
        return self.seconds * self.speed

    @property
    def parallelism(self) -> float | None:
        """CPU time over wall time: how many processors it kept busy on average."""
        return self.cpu_s / self.seconds if self.cpu_s is not None and self.seconds else None

    @property
    def remote_share(self) -> float | None:
        """The share of its compiles that went to the host; None if it compiled nothing."""
        return self.remote / (self.remote + self.local) if self.remote + self.local else None


@dataclass(frozen=True, slots=True)
class Surprise:
    """A build that took so much more or less than expected that the package must have changed."""

    build: Build
    expected_s: float
    """Seconds on a node of speed 1, as those of `build.reference_s`."""


@dataclass(frozen=True, slots=True)
class Course:
    """What the builds of one version come to; seconds are those of a node of speed 1."""

    builds: tuple[Build, ...]
    """Those that succeeded, the latest last; at least one."""
    seconds: float
    memory_mib: float | None
    disk_mib: float | None
    parallelism: float | None
    surprises: tuple[Surprise, ...]

    @property
    def last(self) -> Build:
        """The latest build."""
        return self.builds[-1]

    @property
    def spread(self) -> float | None:
        """How many times the shortest build the longest took, of those since the last surprise; None of one alone."""
        since = self.surprises[-1].build.ended if self.surprises else 0.0
        seconds = [build.reference_s for build in self.builds if build.ended >= since]
        return max(seconds) / min(seconds) if len(seconds) > 1 and min(seconds) else None


def course(builds: Sequence[Build]) -> Course:
    """The course of `builds` of one version that succeeded, the latest last.

    Everything is smoothed exponentially, the latest build weighing half, so that it converges. After a
    surprise it starts anew from the build that surprised.
    """
    expected = builds[0].reference_s
    start = 0
    surprises = []
    for number, build in enumerate(builds[1:], 1):
        if not expected / CHANGED <= build.reference_s <= expected * CHANGED:
            surprises.append(Surprise(build, expected))
            expected, start = build.reference_s, number
        else:
            expected = _blended(expected, build.reference_s)
    now = builds[start:]
    return Course(
        tuple(builds),
        expected,
        _smoothed(build.memory_mib for build in now),
        _smoothed(build.disk_mib for build in now),
        _smoothed(build.parallelism for build in now),
        tuple(surprises),
    )


def _blended(before: float, latest: float) -> float:
    return before + _WEIGHT * (latest - before)


def _smoothed(values: Iterable[float | None]) -> float | None:
    """What the known ones of `values` come to."""
    found: float | None = None
    for value in values:
        if value is not None:
            found = value if found is None else _blended(found, value)
    return found


def by_target(builds: Iterable[Build]) -> dict[str, list[Build]]:
    """`builds` in their order, those of each target apart."""
    found: dict[str, list[Build]] = {}
    for build in builds:
        found.setdefault(build.target, []).append(build)
    return found


def courses(builds: Iterable[Build]) -> dict[Cpv, Course]:
    """The course of each version that was ever built, the one that was built last comes last.

    `builds` are of one target, in any order.
    """
    by_version: dict[Cpv, list[Build]] = {}
    for build in sorted(builds, key=lambda build: build.ended):
        if build.verdict is Verdict.BUILT:
            earlier = by_version.pop(build.cpv, [])
            by_version[build.cpv] = [*earlier, build]
    return {cpv: course(found) for cpv, found in by_version.items()}


def surprises(found: Iterable[Course]) -> list[Surprise]:
    """Every surprise of these courses, the latest last."""
    return sorted((one for each in found for one in each.surprises), key=lambda surprise: surprise.build.ended)
