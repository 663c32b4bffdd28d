"""Which packages of a plan are built anew, and why: pure decisions over what the binhost has.

A package is built when it is not there, or when something that it is made from changed. What
links to a library that is itself built anew in the plan can be judged only when that library
is there: until then its action is CHECK.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from cluster.master import abi, fingerprint
from cluster.model import Action, Cpv, Package, Plan, full_slot

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
    """The plan's packages by name and slot, with what is known of each."""

    records: Records
    by_slot: Mapping[tuple[str, str], Package]

    def provider(self, link: abi.Link) -> Package | None:
        """The package of the plan that takes the place of the one linked to."""
        return self.by_slot.get((link.package, _main(link.slot)))


def _main(slot: str) -> str:
    return slot.partition("/")[0]


def judged(plan: Plan, records: Records) -> Plan:
    """`plan` with the action and reason of each package. Linear in packages and links."""
    older = {(record.name, _main(record.slot)): record for record in records.values()}
    done: dict[Cpv, Package] = {}
    by_slot: dict[tuple[str, str], Package] = {}
    world = _World(records, by_slot)
    for package in plan.packages:
        place = (package.name, _main(package.slot))
        by_slot[place] = package
        action, reason = _judge(plan.chost, world, done, package, older.get(place))
        by_slot[place] = done[package.cpv] = replace(package, action=action, reason=reason)
    return replace(plan, packages=tuple(done.values()))


def _judge(
    chost: str, world: _World, done: Mapping[Cpv, Package], package: Package, older: Record | None
) -> tuple[Action, str]:
    record = world.records.get(package.cpv)
    if record is None:
        return Action.BUILD, _newcomer(package, older)
    if changed := (*differences(record, package, chost), *_moved(world, record, done)):
        return Action.BUILD, "; ".join(changed)
    pending = sorted({link.package for link in record.links if _pending(world, link)})
    if pending:
        return Action.CHECK, f"if the libraries of {', '.join(pending)} change"
    return Action.SKIP, KEPT


def _newcomer(package: Package, older: Record | None) -> str:
    if older is None or older.cpv == package.cpv:
        return package.reason
    return f"version {_version(older.name, older.cpv)} -> {_version(package.name, package.cpv)}"


def _version(name: str, cpv: Cpv) -> str:
    return cpv.removeprefix(f"{name}-")


def _pending(world: _World, link: abi.Link) -> bool:
    provider = world.provider(link)
    return provider is not None and provider.action is not Action.SKIP


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


def _moved(world: _World, record: Record, done: Mapping[Cpv, Package]) -> Iterator[str]:
    """The libraries that it links to and that are other ones now, of packages that the plan leaves alone."""
    for link in record.links:
        provider = world.provider(link)
        if provider is not None and done.get(provider.cpv, provider).action is Action.SKIP:
            yield from _broken(link, world.records.get(provider.cpv))


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
    world = _World(after, {(package.name, _main(package.slot)): package for package in plan.packages})
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
    world = _World(records, {(other.name, _main(other.slot)): other for other in plan.packages})
    record = records.get(package.cpv)
    if record is None:
        return "it is gone from the binhost"
    return "; ".join(
        reason
        for link in record.links
        if (provider := world.provider(link)) is not None
        for reason in _broken(link, records.get(provider.cpv))
    )
