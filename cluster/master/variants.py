"""Several plans of one run: what two of them would build from the very same things is built once.

A plan is for one target and one set of USE flags, and has a binhost of its own. A package of a
later plan is taken from an earlier one's binhost when its key is the same: that covers what it is
made from, and the keys of all that its node has. So nothing needs to be known of what comes out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cluster.master import fingerprint
from cluster.model import Action, Cpv, Package, Plan, full_slot


def shared(plans: Sequence[tuple[str, Path, Plan]]) -> tuple[Plan, ...]:
    """The plans, given with their names and the directories of their binhosts, in the order that they are built in.

    Linear in packages and what they require.
    """
    had: dict[str, tuple[str, Path]] = {}
    found = []
    for name, binhost, plan in plans:
        keys = _keys(plan)
        packages = tuple(_taken(package, had.get(keys[package.cpv])) for package in plan.packages)
        found.append(replace(plan, packages=packages))
        for key in keys.values():
            had.setdefault(key, (name, binhost))
    return tuple(found)


def _taken(package: Package, earlier: tuple[str, Path] | None) -> Package:
    if earlier is None or not package.action.builds:
        return package
    name, binhost = earlier
    return replace(package, action=Action.TAKE, reason=f"{name} has the same", origin=binhost)


def _keys(plan: Plan) -> Mapping[Cpv, str]:
    """For each package what its build starts from, by its hash; those of two rounds differ by the first."""
    keys: dict[Cpv, str] = {}
    first = fingerprint.digest(*_keys(plan.first).values()) if plan.first else ""
    for package in plan.packages:
        keys[package.cpv] = fingerprint.digest(
            plan.chost,
            first,
            package.cpv,
            package.repository,
            full_slot(package.slot),
            " ".join(package.use),
            fingerprint.render(package.fingerprint),
            *(keys[cpv] for cpv in package.requires),
        )
    return keys
