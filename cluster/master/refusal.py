"""Why Portage found no plan, in one line that names the thing and the mend."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

from cluster.errors import InputError
from cluster.master import portagelib
from cluster.master.solution import Circle, SlotConflict, Unmet, Unsolved, UseProblem

_CONFIG = "make_conf"
"""Where a user's own make.conf lines come from, as messages call it."""


class ResolveError(InputError):
    """There is no plan. `detail` is what Portage itself said, which may be many lines or none."""

    def __init__(self, what: str, mend: str = "", *, detail: str = "") -> None:
        super().__init__(what, mend)
        self.detail = detail


class CircularError(ResolveError):
    """Each package of a circle needs another of it built first."""

    def __init__(self, circle: Circle) -> None:
        around = " -> ".join((*circle.cpvs, circle.cpvs[0]))
        super().__init__(f"circular dependencies: {around}", _mend_circle(circle))
        self.circle = circle


def _mend_circle(circle: Circle) -> str:
    if not circle.changes:
        return "break the circle: have the stage provide one of them (--installed); no USE flag would do"
    change = circle.changes[0]
    name = portagelib.name(change.cpv)
    return (
        f'build {change.cpv} with USE="{change.flags}" first, and again when the others are there: --break-cycles;'
        f" or put `{name} {change.flags}` in package.use"
    )


def explain(target: portagelib.Target, problem: Unsolved) -> ResolveError:
    """The first reason of `problem` that names something."""
    if problem.broken:
        return explain_broken(target, problem.broken)
    if problem.unmet:
        return explain_unmet(target, problem.unmet[0])
    if problem.conflicts:
        return _explain_conflict(problem.conflicts[0])
    if problem.blockers:
        blocker, blocked = problem.blockers[0]
        return ResolveError(f"{blocker} cannot be installed beside {blocked}", "ask for one of the two")
    if problem.circle:
        return CircularError(problem.circle)
    return ResolveError("Portage found no solution")


def _explain_conflict(conflict: SlotConflict) -> ResolveError:
    sides = "; ".join(f"{cpv} for {_wishes(wishes)}" for cpv, wishes in conflict.versions)
    return ResolveError(
        f"slot conflict: {conflict.slot} cannot be two versions at once ({sides})",
        "ask for packages that agree on one version",
    )


def _wishes(wishes: Sequence[tuple[str, str]]) -> str:
    return " and ".join(f"{who or 'the request'} ({atom})" for who, atom in wishes) or "the request"


def explain_unmet(target: portagelib.Target, unmet: Unmet) -> ResolveError:
    """What stands against the atom: no such name, no such version, a mask, a broken ebuild, USE."""
    versions = target.versions(_findable(target, unmet))
    if not versions:
        return _explain_unknown(target, unmet)
    if unmet.use:
        return _explain_use(unmet, unmet.use[0])
    for cpv in reversed(versions):
        if target.complaint(cpv):
            return explain_broken(target, cpv, _because(unmet))
        if target.masks(cpv):
            return _explain_mask(target, unmet, cpv)
    return ResolveError(f"{_subject(unmet)} cannot be satisfied")


def explain_broken(target: portagelib.Target, cpv: str, because: str = "") -> ResolveError:
    """That the ebuild of `cpv` cannot be sourced, and what Portage says of it."""
    ebuild, complaint = target.ebuild(cpv), target.complaint(cpv)
    checked = complaint.startswith(("Manifest not found", "Missing digest", "Digest verification"))
    mend = (
        f"{complaint}: if it is as it should be, run `ebuild {ebuild} manifest`" if checked else f"mend it: {complaint}"
    )
    return ResolveError(f"{ebuild} cannot be read{because}", mend)


def _findable(target: portagelib.Target, unmet: Unmet) -> str:
    """The atom without USE, its category filled in when only one has the name."""
    category, _, name = unmet.cp.partition("/")
    if category != "null":
        return unmet.bare
    full = [cp for cp in target.names() if cp.partition("/")[2] == name]
    return unmet.bare.replace(unmet.cp, full[0]) if len(full) == 1 else unmet.bare


def _subject(unmet: Unmet) -> str:
    """`app/foo needs dev/bar[x]`, or the atom alone when it was asked for."""
    if unmet.wanted_by.startswith("@"):
        return f"set {unmet.wanted_by} has {unmet.atom}, which"
    return f"{unmet.wanted_by} needs {unmet.atom}, which" if unmet.wanted_by else unmet.atom


def _because(unmet: Unmet) -> str:
    return f" (for {unmet.wanted_by})" if unmet.wanted_by else ""


def _explain_unknown(target: portagelib.Target, unmet: Unmet) -> ResolveError:
    names = target.names()
    repositories = ", ".join(repository.name for repository in target.place.repositories)
    if found := _unseen(target, unmet):
        return found
    if unmet.cp in names:
        known = ", ".join(cpv.partition("/")[2] for cpv in target.versions(unmet.cp))
        return ResolveError(f"{_subject(unmet)} no ebuild matches", f"there are {known}")
    near = _similar(unmet.cp, names)
    mend = f"did you mean {', '.join(near)}?" if near else "add the repository that has it with --repo NAME=DIR"
    if not unmet.wanted_by:
        return ResolveError(f"unknown package {unmet.atom} (not in {repositories})", mend)
    return ResolveError(f"{_subject(unmet)} no repository has ({repositories})", mend)


def _unseen(target: portagelib.Target, unmet: Unmet) -> ResolveError | None:
    """Why Portage does not see a package that has a place in a repository."""
    for repository in target.place.repositories:
        place, categories = repository.location / unmet.cp, repository.location / "profiles/categories"
        if os.path.lexists(place) and not place.is_dir():
            return ResolveError(f"{place} cannot be read{_because(unmet)}", "it is no directory with ebuilds; mend it")
        if place.is_dir() and unmet.cp.partition("/")[0] not in target.categories:
            return ResolveError(
                f"{place} is not seen{_because(unmet)}: its category is in no profiles/categories",
                f"add it to {categories}",
            )
    return None


def _similar(cp: str, names: Sequence[str]) -> list[str]:
    """Names like `cp`: the same in another category, or nearly the same."""
    category, _, name = cp.partition("/")
    same = [other for other in names if other.partition("/")[2] == name]
    by_name: Mapping[str, list[str]] = _by_name(names)
    near = [full for other in difflib.get_close_matches(name, by_name, 3) for full in by_name[other]]
    whole = [] if category == "null" else difflib.get_close_matches(cp, names, 3, 0.75)
    return list(dict.fromkeys([*same, *whole, *near]))[:3]


def _by_name(names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for full in names:
        found.setdefault(full.partition("/")[2], []).append(full)
    return found


def _explain_mask(target: portagelib.Target, unmet: Unmet, cpv: str) -> ResolveError:
    """Which masks there are, and the line that lifts each."""
    reasons = target.masks(cpv)
    # Of an EAPI it does not know Portage reads nothing else, and calls the rest invalid.
    reasons = [reason for reason in reasons if reason.startswith("EAPI")] or reasons
    if invalid := [reason.removeprefix("invalid: ") for reason in reasons if reason.startswith("invalid: ")]:
        words = "; ".join(invalid)
        return ResolveError(f"{target.ebuild(cpv)} is invalid{_because(unmet)}", f"mend it: {words}")
    if reasons[0].startswith("EAPI"):
        return ResolveError(
            f"{target.ebuild(cpv)} has {reasons[0]}{_because(unmet)}, which this Portage does not know",
            "ask for another version, or update Portage",
        )
    lift = "; ".join(dict.fromkeys(_lift(target, cpv, reason) for reason in reasons))
    return ResolveError(f"{cpv}{_because(unmet)} is masked by {', '.join(reasons)}", lift)


def _lift(target: portagelib.Target, cpv: str, reason: str) -> str:
    if reason.endswith("keyword"):
        keyword = f"~{target.arch}" if reason.startswith("~") else "**"
        return f'put ACCEPT_KEYWORDS="{keyword}" in {_CONFIG}'
    if reason == "package.mask":
        return f"take it from {target.mask_file(cpv) or 'package.mask'}, or ask for another version"
    if reason.endswith("license(s)"):
        return f'put ACCEPT_LICENSE="{reason.removesuffix(" license(s)")}" in {_CONFIG}'
    return f"mend {target.ebuild(cpv)}, or ask for another version"


def _explain_use(unmet: Unmet, problem: UseProblem) -> ResolveError:
    if problem.required_use:
        return ResolveError(
            f"{problem.cpv}{_because(unmet)}: its USE flags break its REQUIRED_USE ( {problem.required_use} )",
            f"set USE in {_CONFIG} or the profile's package.use",
        )
    if problem.missing:
        return ResolveError(
            f"{_subject(unmet)} {problem.cpv} cannot satisfy: it has no USE flag {' '.join(problem.missing)}",
            "use another version of either",
        )
    changes = " ".join(_changes(problem))
    return ResolveError(
        f"{_subject(unmet)} {problem.cpv} satisfies only with other USE flags",
        f'put USE="{changes}" in {_CONFIG}, or `{unmet.cp} {changes}` in the profile\'s package.use',
    )


def _changes(problem: UseProblem) -> Iterator[str]:
    yield from problem.enable
    yield from (f"-{flag}" for flag in problem.disable)
