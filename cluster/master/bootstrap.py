"""Plans in two rounds: what is built first, into a binhost of its own, is part of the stage for the rest.

Of a circle of build dependencies one package is built with the USE that it can have now, and again
when the others are there. And a whole plan may be built twice: with the stage's own tools, then in a
stage of what came out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from cluster.errors import InputError
from cluster.master import fingerprint, resolver
from cluster.master.refusal import CircularError
from cluster.master.resolver import Request
from cluster.master.solution import Circle, UseChange
from cluster.model import Cpv, Kind, Package, Plan

_MOST = 12  # circles in one plan, before it is a fault in the tree


def unbroken(request: Request, workdir: Path) -> Plan:
    """`resolver.resolve`, with circles broken by building some packages twice.

    A plan that needs none has no first round. Raises CircularError for a circle that no change
    of USE breaks.
    """
    try:
        return resolver.resolve(request, workdir)
    except CircularError as error:
        changes = _with_next({}, error.circle, error)
    for _ in range(_MOST):
        try:
            return _two_rounds(request, changes, workdir)
        except CircularError as error:
            changes = _with_next(changes, error.circle, error)
    raise InputError(f"more than {_MOST} circles of dependencies", "have the stage provide some of them (--installed)")


def _with_next(changes: dict[str, UseChange], circle: Circle, error: CircularError) -> dict[str, UseChange]:
    """`changes` with the first of `circle` that is not among them, and undoes none."""
    for change in circle.changes:
        had = changes.get(change.cpv, UseChange(change.cpv, (), ()))
        enable, disable = {*had.enable, *change.enable}, {*had.disable, *change.disable}
        both = UseChange(change.cpv, tuple(sorted(enable)), tuple(sorted(disable)))
        if both != had and enable.isdisjoint(disable):
            return {**changes, change.cpv: both}
    raise error


def _two_rounds(request: Request, changes: dict[str, UseChange], workdir: Path) -> Plan:
    # Of what the stage has nothing is built in the first round that need not be.
    least = replace(request, emptytree=False)
    lines = tuple(f"={change.cpv} {change.flags}" for change in changes.values())
    atoms = tuple(f"={cpv}" for cpv in changes)
    first = resolver.resolve(replace(least, atoms=atoms, package_use=lines), workdir)
    again = tuple(f"={package.cpv}" for package in first.packages)
    rest = resolver.resolve(replace(request, atoms=(*request.atoms, *again), first=first.packages), workdir)
    rest = replace(rest, packages=tuple(_unasked(rest, set(again))), first=_explained(first, changes))
    return _made_with_first(rest, first)


def _made_with_first(plan: Plan, first: Plan) -> Plan:
    """`plan`, in whose fingerprints are those of the first round's packages that a build uses itself.

    Libraries do not tell of them: what was linked to one of these is used with the second round's.
    """
    made = {package.cpv: fingerprint.render(package.fingerprint) for package in first.packages}

    def with_part(package: Package) -> Package:
        needs = (need.cpv for need in package.dependencies if Kind.BUILD in need.kinds)
        used = [made[cpv] for cpv in needs if cpv in made and cpv not in package.requires]
        return replace(package, fingerprint=(*package.fingerprint, ("first", fingerprint.digest(*used))))

    return replace(plan, packages=tuple(map(with_part, plan.packages)))


def _explained(first: Plan, changes: dict[str, UseChange]) -> Plan:
    packages = (
        replace(package, requested=False, arguments=(), reason=_first_reason(package, changes))
        for package in first.packages
    )
    return replace(first, packages=tuple(packages))


def _first_reason(package: Package, changes: dict[str, UseChange]) -> str:
    change = changes.get(package.cpv)
    return f"breaks a circle with {change.flags}" if change else package.reason


def _unasked(plan: Plan, again: set[str]) -> Iterator[Package]:
    """The packages without the arguments that made Portage plan those of the first round once more."""
    for package in plan.packages:
        if again.isdisjoint(package.arguments):
            yield package
            continue
        arguments = tuple(word for word in package.arguments if word not in again)
        reason = package.reason if arguments else "built once more, with all that it needs"
        yield replace(package, arguments=arguments, requested=bool(arguments), reason=reason)


def twice(plan: Plan) -> Plan:
    """Everything of `plan` once more, in a stage that has all of it: nothing waits for anything else then.

    The second round's fingerprints have the first's in them: that is another stage.
    """
    stage = fingerprint.digest(*(fingerprint.render(package.fingerprint) for package in plan.packages))
    packages = (
        replace(package, requires=(), fingerprint=_in_stage(package.fingerprint, stage)) for package in plan.packages
    )
    return replace(plan, packages=tuple(packages), first=replace(plan, packages=tuple(map(_stage_one, plan.packages))))


def _stage_one(package: Package) -> Package:
    return replace(package, requested=False)


def _in_stage(parts: fingerprint.Parts, stage: str) -> fingerprint.Parts:
    return tuple((name, fingerprint.digest(value, stage) if name == "stage" else value) for name, value in parts)


def base(plan: Plan) -> dict[Cpv, tuple[Cpv, ...]]:
    """For each package of `plan` those of its first round that its node has, besides what it requires.

    What is required takes the place of the first round's package of that name and slot.
    """
    if plan.first is None:
        return {}
    places = {package.cpv: package.place for package in plan.packages}
    return {
        package.cpv: _without(plan.first.packages, {places[cpv] for cpv in package.requires})
        for package in plan.packages
    }


def _without(packages: Iterable[Package], taken: set[tuple[str, str]]) -> tuple[Cpv, ...]:
    return tuple(package.cpv for package in packages if package.place not in taken)
