"""What the build of a package will take, from what builds took before."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cmp_to_key
from itertools import takewhile
from statistics import linear_regression, median, quantiles
from types import MappingProxyType

from cluster.master.gpkg import compare_versions, package_name
from cluster.master.history import Build, Course, by_target, course, courses
from cluster.model import Cpv

UNKNOWN_S = 60.0
"""Seconds assumed where nothing was ever built; two thirds of real packages take less."""
_LINE = 20  # packages of known size that a line is laid through, at least
_CATEGORY = 3  # packages of which a median is taken, at least
_RATIO = (0.5, 2.0)  # in which the sizes of two versions' sources may change an estimate


class Basis(enum.StrEnum):
    """What an estimate rests on, the best first."""

    BUILT = "built"
    """Builds of this very version."""
    VERSION = "version"
    """Builds of another version of the package."""
    SIZE = "size"
    """The size of its sources, and what other packages took for theirs."""
    CATEGORY = "category"
    """The median of the packages of its category."""
    ASSUMED = "assumed"
    """Nothing: it is the median of the packages that are known."""


SIGNS = MappingProxyType(
    {Basis.BUILT: "", Basis.VERSION: "~", Basis.SIZE: "≈", Basis.CATEGORY: "*", Basis.ASSUMED: "?"}
)
"""What is put before an estimate's time."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a build will take, and what says so. What is not known is None."""

    seconds: float
    """On a node of speed 1; on another they are divided by its speed."""
    basis: Basis
    memory_mib: float | None = None
    disk_mib: float | None = None
    parallelism: float | None = None
    """How many processors it keeps busy on average."""

    def __str__(self) -> str:
        return f"{SIGNS[self.basis]}{duration(self.seconds)}"


@dataclass(frozen=True, slots=True)
class Like:
    """What packages take that a package may be like."""

    line: tuple[float, float] | None
    """Slope and intercept of the logarithm of seconds over that of bytes of sources."""
    categories: Mapping[str, Estimate]
    overall: Estimate | None


@dataclass(frozen=True, slots=True)
class Past:
    """What there is to estimate from."""

    courses: Mapping[Cpv, Course]
    versions: Mapping[str, Sequence[Course]]
    """By CATEGORY/NAME, the version that was built last comes last."""
    like: Like


def past(builds: Iterable[Build]) -> Past:
    """What `builds` of one target teach."""
    found = courses(builds)
    versions = _versions(found.values())
    return Past(found, versions, _like(each[-1] for each in versions.values()))


def forecast(wanted: Mapping[Cpv, int | None], builds: Iterable[Build]) -> dict[Cpv, Estimate]:
    """An estimate for each of `wanted`, in their order. Linear in both, but for sorting.

    `wanted` has the bytes of each package's sources, None where they are not known; `builds` are those
    of the target. Each estimate has the best basis that there is for it.
    """
    learnt = past(builds)
    return {cpv: _best(cpv, size, learnt) for cpv, size in wanted.items()}


def _best(cpv: Cpv, size: int | None, learnt: Past) -> Estimate:
    found = (rule(cpv, size, learnt) for rule in _RULES.values())
    return next((estimate for estimate in found if estimate), Estimate(UNKNOWN_S, Basis.ASSUMED))


# One rule for each basis.


def _built(cpv: Cpv, size: int | None, learnt: Past) -> Estimate | None:
    """What the builds of this version come to (`history.course`)."""
    found = learnt.courses.get(cpv)
    return _of_course(found, Basis.BUILT) if found else None


def _version(cpv: Cpv, size: int | None, learnt: Past) -> Estimate | None:
    """What the nearest version took, times the ratio of the sizes of the sources as far as that is believed."""
    name = package_name(cpv) or cpv.rpartition("-")[0]
    others = learnt.versions.get(name)
    if not others:
        return None
    nearest = _nearest(cpv.removeprefix(f"{name}-"), others)
    estimate = _of_course(nearest, Basis.VERSION)
    if not (size and nearest.last.source_bytes):
        return estimate
    low, high = _RATIO
    ratio = min(max(size / nearest.last.source_bytes, low), high)
    disk_mib = None if estimate.disk_mib is None else estimate.disk_mib * ratio
    return replace(estimate, seconds=estimate.seconds * ratio, disk_mib=disk_mib)


def _size(cpv: Cpv, size: int | None, learnt: Past) -> Estimate | None:
    """What the line through all packages says for a package with sources of `size` bytes."""
    like = _category(cpv, size, learnt) or _assumed(cpv, size, learnt)
    if not (size and learnt.like.line and like):
        return None
    slope, intercept = learnt.like.line
    return replace(like, seconds=math.exp(intercept + slope * math.log(size)), basis=Basis.SIZE)


def _category(cpv: Cpv, size: int | None, learnt: Past) -> Estimate | None:
    return learnt.like.categories.get(_category_of(cpv))


def _assumed(cpv: Cpv, size: int | None, learnt: Past) -> Estimate | None:
    return learnt.like.overall


_RULES: Mapping[Basis, Callable[[Cpv, int | None, Past], Estimate | None]] = MappingProxyType(
    {
        Basis.BUILT: _built,
        Basis.VERSION: _version,
        Basis.SIZE: _size,
        Basis.CATEGORY: _category,
        Basis.ASSUMED: _assumed,
    }
)


def _of_course(found: Course, basis: Basis) -> Estimate:
    return Estimate(found.seconds, basis, found.memory_mib, found.disk_mib, found.parallelism)


def _category_of(cpv: Cpv) -> str:
    return cpv.partition("/")[0]


def _versions(found: Iterable[Course]) -> dict[str, list[Course]]:
    versions: dict[str, list[Course]] = {}
    for each in found:
        versions.setdefault(each.last.name, []).append(each)
    return versions


def _nearest(version: str, others: Sequence[Course]) -> Course:
    """Of the next lower and the next higher one that with more of its first numbers in common, the lower if in doubt.

    Where Portage cannot order the versions, the one that was built last.
    """
    ordered = sorted(others, key=cmp_to_key(_compared))
    lower = [other for other in ordered if (compare_versions(other.last.version, version) or 0) < 0]
    higher = [other for other in ordered if (compare_versions(other.last.version, version) or 0) > 0]
    near = [*lower[-1:], *higher[:1]]
    return max(near, key=lambda other: _in_common(version, other.last.version)) if near else others[-1]


def _compared(one: Course, other: Course) -> int:
    return compare_versions(one.last.version, other.last.version) or 0


def _in_common(version: str, other: str) -> int:
    """How many of the parts between dots are the same before the first that is not."""
    pairs = zip(version.split("."), other.split("."), strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))


def _like(packages: Iterable[Course]) -> Like:
    """What `packages` take, each once."""
    known = list(packages)
    by_category: dict[str, list[Course]] = {}
    for each in known:
        by_category.setdefault(_category_of(each.last.cpv), []).append(each)
    enough = {category: found for category, found in by_category.items() if len(found) >= _CATEGORY}
    return Like(
        _line(known),
        {category: _median(found, Basis.CATEGORY) for category, found in enough.items()},
        _median(known, Basis.ASSUMED) if known else None,
    )


def _line(packages: Iterable[Course]) -> tuple[float, float] | None:
    """Least squares of the logarithm of seconds over that of bytes of sources; None of too few, or of one size."""
    points = [
        (math.log(each.last.source_bytes), math.log(each.seconds))
        for each in packages
        if each.last.source_bytes and each.seconds > 0
    ]
    sizes, seconds = [x for x, _ in points], [y for _, y in points]
    if len(points) < _LINE or min(sizes) == max(sizes):
        return None
    slope, intercept = linear_regression(sizes, seconds)
    return slope, intercept


def _median(found: Sequence[Course], basis: Basis) -> Estimate:
    return Estimate(
        median(each.seconds for each in found),
        basis,
        _known_median(each.memory_mib for each in found),
        _known_median(each.disk_mib for each in found),
        _known_median(each.parallelism for each in found),
    )


def _known_median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


# How good they are.


@dataclass(frozen=True, slots=True)
class Quality:
    """By what factor the estimates of one basis are off, too high or too low."""

    basis: Basis
    versions: int
    """How many were estimated."""
    median: float
    ninth: float
    """The factor that nine of ten stay below."""


def qualities(builds: Iterable[Build]) -> list[Quality]:
    """How good each basis is over `builds` of any targets, each target by itself; without those that estimate none."""
    found: dict[Basis, list[float]] = {basis: [] for basis in Basis}
    for own in by_target(builds).values():
        for basis, factors in errors(own).items():
            found[basis] += factors
    return [
        Quality(basis, len(factors), median(factors), _ninth(factors)) for basis, factors in found.items() if factors
    ]


def _ninth(values: Sequence[float]) -> float:
    return quantiles(values, n=10, method="inclusive")[-1] if len(values) > 1 else values[0]


def errors(builds: Iterable[Build]) -> dict[Basis, list[float]]:
    """By what factor each basis is off, too high or too low, for each version in turn that it has something to say of.

    What is to be found is the last build of a version. A basis is asked about it in a past that holds only what it
    may rest on: for BUILT the builds of the version before, for VERSION other versions, for the rest other packages.
    """
    learnt = past(builds)
    found: dict[Basis, list[float]] = {basis: [] for basis in Basis}
    for cpv, own in learnt.courses.items():
        took = own.last.reference_s
        asked = _without(own, learnt)
        for basis, rule in _RULES.items():
            estimate = rule(cpv, own.last.source_bytes, asked)
            if estimate and estimate.seconds > 0 and took > 0:
                found[basis].append(max(estimate.seconds / took, took / estimate.seconds))
    return found


def _without(own: Course, learnt: Past) -> Past:
    """The past in which the last build of `own` is still to come, and no other package helps to tell of its version."""
    cpv, name = own.last.cpv, own.last.name
    earlier = own.builds[:-1]
    return Past(
        {cpv: course(earlier)} if earlier else {},
        {name: [other for other in learnt.versions[name] if other is not own]},
        _like(each[-1] for other, each in learnt.versions.items() if other != name),
    )


def duration(seconds: float) -> str:
    """`seconds` as a person says it: `48 s`, `3.2 min`, `1.5 h`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5970 else f"{seconds / 3600:.1f} h"
