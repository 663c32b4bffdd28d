"""Which packages of a plan are built anew, and why: pure decisions over what the binhost has.

A package is built when it is not there, or when something that it is made from changed. What
links to a library that is itself built anew in the plan can be judged only when that library
is there: until then its action is CHECK. What another binhost has just as a build would make it
is taken from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cluster.master import abi, fingerprint
from cluster.model import Action, Cpv, Package, Plan, full_slot, main_slot

KEPT = "in the binhost"


@dataclass(frozen=True, slots=True)
class Record:
    """What the binhost has of a package, by its own account."""

    cpv: Cpv
    name: str
    """CATEGORY/NAME."""
    slot: str
    """With its subslot, as `0/1.3`."""
    use: tuple[str, ...]
    chost: str
    fingerprint: fingerprint.Parts = ()
    provides: tuple[tuple[str, str], ...] = ()
    links: tuple[abi.Link, ...] = ()


Records = Mapping[Cpv, Record]


@dataclass(frozen=True, slots=True)
class _World:
    """What is known of a plan's packages."""

    known: Mapping[Cpv, Record]
    """The binary packages whose fate is certain."""
    by_slot: Mapping[tuple[str, str], Package]

    def provider(self, link: abi.Link) -> Package | None:
        """The package of the plan that takes the place of the one linked to."""
        return self.by_slot.get((link.package, main_slot(link.slot)))

    def moved(self, record: Record) -> tuple[str, ...]:
        """The libraries that it links to and that are other ones now."""
        return tuple(
            reason
            for link in record.links
            if (provider := self.provider(link)) is not None
            for reason in _broken(link, self.known.get(provider.cpv))
        )

    def pending(self, record: Record) -> tuple[str, ...]:
        """The packages that may come to have other libraries than those it links to."""
        providers = ((link.package, self.provider(link)) for link in record.links)
        return tuple(sorted({name for name, provider in providers if provider and provider.action.builds}))


def _world(plan: Plan, records: Records) -> _World:
    return _World(records, {package.place: package for package in plan.packages})


def judged(plan: Plan, records: Records, others: Mapping[Path, Records] | None = None) -> Plan:
    """`plan` with the action and reason of each package. Linear in packages and links.

    `records` are those of the plan's own binhost, `others` of binhosts that it may take from.
    """
    older = {(record.name, main_slot(record.slot)): record for record in records.values()}
    known: dict[Cpv, Record] = {}
    by_slot: dict[tuple[str, str], Package] = {}
    world = _World(known, by_slot)
    packages = []
    for package in plan.packages:
        by_slot[package.place] = package
        decided = _decide(plan.chost, world, package, records.get(package.cpv), older.get(package.place))
        if decided.action.builds and others:
            decided = _taken(plan.chost, world, decided, others)
        home = others[decided.origin] if others and decided.origin else records
        if not decided.action.builds:
            known[package.cpv] = home[package.cpv]
        by_slot[package.place] = decided
        packages.append(decided)
    return replace(plan, packages=tuple(packages))


def _decide(chost: str, world: _World, package: Package, record: Record | None, older: Record | None) -> Package:
    if record is None:
        return replace(package, action=Action.BUILD, reason=_newcomer(package, older))
    if changed := (*differences(record, package, chost), *world.moved(record)):
        return replace(package, action=Action.BUILD, reason="; ".join(changed))
    if pending := world.pending(record):
        return replace(package, action=Action.CHECK, reason=f"if the libraries of {', '.join(pending)} change")
    return replace(package, action=Action.SKIP, reason=KEPT)


def _taken(chost: str, world: _World, package: Package, others: Mapping[Path, Records]) -> Package:
    """`package`, to be taken from the first binhost that has what a build would give."""
    for directory, records in others.items():
        record = records.get(package.cpv)
        if record and not (differences(record, package, chost) or world.moved(record) or world.pending(record)):
            return replace(package, action=Action.TAKE, reason=f"{directory} has the same", origin=directory)
    return package


def _newcomer(package: Package, older: Record | None) -> str:
    if older is None or older.cpv == package.cpv:
        return package.reason
    return f"version {_version(older.name, older.cpv)} -> {_version(package.name, package.cpv)}"


def _version(name: str, cpv: Cpv) -> str:
    return cpv.removeprefix(f"{name}-")


def differences(record: Record, package: Package, chost: str) -> tuple[str, ...]:
    """Why the binary package of `record` is not what `package` asks for, in words; empty if it is."""
    found = []
    if use := _use_changes(record.use, package.use):
        found.append(f"USE: {use}")
    if record.slot != full_slot(package.slot):
        found.append(f"its slot was {record.slot}")
    if record.chost != chost:
        found.append(f"it is for CHOST {record.chost}")
    return (*found, *fingerprint.changes(record.fingerprint, package.fingerprint))


def _use_changes(before: tuple[str, ...], after: tuple[str, ...]) -> str:
    on, off = sorted(set(after) - set(before)), sorted(set(before) - set(after))
    return " ".join([*(f"+{flag}" for flag in on), *(f"-{flag}" for flag in off)])


def _broken(link: abi.Link, provider: Record | None) -> Iterator[str]:
    if provider is None:
        return
    now = dict(provider.provides).get(link.name)
    if now is None:
        yield f"{provider.cpv} has no {link.name}{_unbumped(link, provider)}"
    elif now != link.digest:
        yield f"the symbols of {link.name} of {provider.cpv} changed"


def _unbumped(link: abi.Link, provider: Record) -> str:
    """That a library went away although the subslot says that nothing did."""
    return f", though its slot is still {link.slot}" if provider.slot == link.slot else ""


def missing_bumps(plan: Plan, before: Records, after: Records) -> tuple[str, ...]:
    """The packages that lost a library which others linked to and kept their subslot, one line each.

    `before` and `after` are what the binhost had and has.
    """
    world = _world(plan, after)
    gone: dict[Cpv, set[str]] = {}
    for record in before.values():
        for link in record.links:
            provider = world.provider(link)
            now = after.get(provider.cpv) if provider else None
            if now is not None and now.slot == link.slot and link.name not in dict(now.provides):
                gone.setdefault(now.cpv, set()).add(link.name)
    return tuple(
        f"{cpv} no longer has {', '.join(sorted(names))} and its subslot is the same: its ebuild lacks a bump"
        for cpv, names in sorted(gone.items())
    )


def settled(plan: Plan, package: Package, records: Records) -> str:
    """Why a package to CHECK is built after all, now that all it requires is in `records`; "" if it is kept."""
    record = records.get(package.cpv)
    if record is None:
        return "it is gone from the binhost"
    return "; ".join(_world(plan, records).moved(record))
