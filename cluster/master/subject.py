"""The package that a question about a plan is about, from what the user calls it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from cluster.errors import InputError
from cluster.master import portagelib
from cluster.master.gpkg import package_name
from cluster.model import Cpv, Plan

_FORMS = "write NAME, CATEGORY/NAME or =CATEGORY/NAME-VERSION"


def find(plan: Plan, name: str) -> Cpv:
    """The one package that `name` means, an atom or a name without its category.

    It is one that the plan builds, or one of the stage that they need. Raises InputError.
    """
    if not portagelib.valid_atom(name):
        raise InputError(f"{name!r} is not a package", _FORMS)
    slots = _slots(plan)
    found = portagelib.matching(name, slots)
    # The plan's own come first: of what it replaces the stage's version is still there to be needed.
    planned = frozenset(package.cpv for package in plan.packages)
    found = [cpv for cpv in found if cpv in planned] or found
    # `zlib` is sys-libs/zlib also where there is a virtual/zlib, as it is to emerge.
    found = [cpv for cpv in found if not cpv.startswith("virtual/")] or found
    if not found:
        raise InputError(f"{name} is not in the plan, nor needed by it from the stage", _near(name, slots))
    if len(found) > 1:
        raise InputError(f"{name} may be {' or '.join(found)}", f"name one, as ={found[0]}")
    return Cpv(found[0])


def among(names: Iterable[str], cpvs: Iterable[Cpv], *, absent: tuple[str, str]) -> set[Cpv]:
    """Those of `cpvs` that one of `names` means, atoms or names without a category.

    Raises InputError, with `absent` (what is the matter with it, and the mend) for a name that means none.

    A cpv whose version is none of Gentoo's has only its name, with or without its category.
    """
    slots = {str(cpv): "" for cpv in cpvs if package_name(cpv)}
    foreign = {cpv: cpv.rpartition("-")[0] for cpv in cpvs if cpv not in slots}
    found: set[Cpv] = set()
    for name in names:
        if not portagelib.valid_atom(name):
            raise InputError(f"{name!r} is not a package", _FORMS)
        meant = {Cpv(cpv) for cpv in portagelib.matching(name, slots)}
        meant |= {cpv for cpv, full in foreign.items() if name in (full, full.partition("/")[2])}
        if not meant:
            raise InputError(f"{name} {absent[0]}", absent[1])
        found |= meant
    return found


def _slots(plan: Plan) -> dict[str, str]:
    """Every package that can be asked about with its slot, "" where the plan does not know it."""
    slots: dict[str, str] = {need.cpv: "" for package in plan.packages for need in package.dependencies}
    slots.update((package.cpv, package.slot) for package in plan.packages)
    return slots


def _near(name: str, slots: Mapping[str, str]) -> str:
    names = _by_name(slots)
    wanted = name.lstrip("<>=~").partition(":")[0].rpartition("/")[2]
    near = [full for other in difflib.get_close_matches(wanted, names, 3) for full in names[other]]
    return f"did you mean {', '.join(near[:3])}?" if near else "`cluster plan` with the same arguments lists the plan"


def _by_name(cpvs: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for full in sorted({package_name(Cpv(cpv)) for cpv in cpvs}):
        found.setdefault(full.partition("/")[2], []).append(full)
    return found
