"""How long a package takes to build, from what builds took before."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from types import MappingProxyType

from cluster.master.gpkg import package_name
from cluster.model import Cpv

UNKNOWN_S = 60.0
"""Seconds assumed where nothing was ever built; two thirds of real packages take less."""


class Basis(enum.StrEnum):
    """What an estimate rests on."""

    BUILT = "built"
    """A build of this very version."""
    VERSION = "version"
    """A build of another version of the package."""
    ASSUMED = "assumed"
    """Nothing: it is the median of the packages that are known."""


SIGNS = MappingProxyType({Basis.BUILT: "", Basis.VERSION: "~", Basis.ASSUMED: "?"})
"""What is put before an estimate's time."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The seconds a build will take, and what says so."""

    seconds: float
    basis: Basis

    def __str__(self) -> str:
        return f"{SIGNS[self.basis]}{duration(self.seconds)}"


def estimates(cpvs: Iterable[Cpv], past: Mapping[Cpv, float]) -> dict[Cpv, Estimate]:
    """An estimate for each of `cpvs`, in their order.

    `past` has the seconds of past builds, the latest build last, as `Journal.seconds` gives them.
    A version that was never built takes what the last build of another version took; a package that
    was never built takes the median of the known ones among `cpvs`, or UNKNOWN_S where none is.
    """
    by_name = {package_name(cpv): seconds for cpv, seconds in past.items()}
    known: dict[Cpv, Estimate | None] = {cpv: _known(cpv, past, by_name) for cpv in cpvs}
    seconds = [estimate.seconds for estimate in known.values() if estimate]
    assumed = Estimate(median(seconds) if seconds else UNKNOWN_S, Basis.ASSUMED)
    return {cpv: estimate or assumed for cpv, estimate in known.items()}


def _known(cpv: Cpv, past: Mapping[Cpv, float], by_name: Mapping[str, float]) -> Estimate | None:
    if cpv in past:
        return Estimate(past[cpv], Basis.BUILT)
    seconds = by_name.get(package_name(cpv))
    return None if seconds is None else Estimate(seconds, Basis.VERSION)


def duration(seconds: float) -> str:
    """`seconds` as a person says it: `48 s`, `3.2 min`, `1.5 h`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5970 else f"{seconds / 3600:.1f} h"
