"""Which hosts are at fault: those whose packages are built elsewhere, again and again. Decides, and does nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from cluster.model import Cpv, Verdict


@dataclass(frozen=True, slots=True)
class Conduct:
    """What is held against hosts."""

    suspected: Mapping[Cpv, frozenset[str]] = field(default_factory=dict)
    """Where a package failed or was lost that has been built nowhere since."""
    proven: Mapping[str, tuple[Cpv, ...]] = field(default_factory=dict)
    """By host, the packages that failed or were lost there and were then built elsewhere."""


def noted(conduct: Conduct, cpv: Cpv, host: str, verdict: Verdict) -> Conduct:
    """`conduct` after `cpv` ended so on `host`. A package that is built nowhere is held against nobody."""
    before = conduct.suspected.get(cpv, frozenset())
    if verdict in (Verdict.FAILED, Verdict.LOST):
        return replace(conduct, suspected={**conduct.suspected, cpv: before | {host}})
    if verdict is not Verdict.BUILT or not before:
        return conduct
    suspected = {other: hosts for other, hosts in conduct.suspected.items() if other != cpv}
    proven = {name: (*conduct.proven.get(name, ()), cpv) for name in sorted(before - {host})}
    return Conduct(suspected, {**conduct.proven, **proven})


def forgiven(conduct: Conduct, host: str) -> Conduct:
    """`conduct` with nothing against `host`, which was mended or is another one."""
    suspected = {cpv: hosts - {host} for cpv, hosts in conduct.suspected.items()}
    return Conduct(suspected, {name: cpvs for name, cpvs in conduct.proven.items() if name != host})


def due(conduct: Conduct, after: int) -> Iterator[tuple[str, tuple[Cpv, ...]]]:
    """The hosts that so many packages are held against, and these."""
    return ((name, cpvs) for name, cpvs in conduct.proven.items() if len(cpvs) >= after)
