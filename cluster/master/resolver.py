"""From atoms to a plan. Portage solves; this asks it, copies the answer, and says why there is none."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import or_
from pathlib import Path

from cluster.errors import InputError
from cluster.master import ingredients, inputs, keepgoing, portagelib
from cluster.master.fingerprint import Parts
from cluster.master.keepgoing import Refusal, Wish
from cluster.master.portagelib import Source
from cluster.master.refusal import CircularError, ResolveError, explain, explain_unmet
from cluster.master.solution import Need, Node, Solution, Unsolved
from cluster.model import Cpv, Dependency, Distfile, Kind, LeftOut, Package, Plan, Repository
from cluster.node.installed import with_built
from cluster.process import tail
from cluster.subset import Subset, Universe
from cluster.target import Target

_MEND_SET = "mend the set"


class Order(enum.StrEnum):
    """Which of two things that exclude each other a plan is to have."""

    NEWEST = "newest"
    """Every build has its dependencies as the plan makes them, as far as Portage's order allows."""
    PARALLEL = "parallel"
    """A build does not wait for what the stage has in a version that will do, unless it links to it."""


class NothingToPlan(ResolveError):
    """With `keep_going`: what is wrong beside `left_out` lets nothing be planned, or that was all."""

    def __init__(self, left_out: tuple[LeftOut, ...], what: str = "", mend: str = "") -> None:
        super().__init__(what or "nothing of what was asked for can be planned", mend or "mend one of the lines above")
        self.left_out = left_out


@dataclass(frozen=True, slots=True)
class Request:
    """What to plan, and over which ebuilds."""

    target: Target
    atoms: tuple[str, ...]
    """Atoms, and sets such as `@demo`."""
    repositories: tuple[Repository, ...]
    """The first is the main one; a later one wins over an earlier."""
    profile: Path
    installed: Path
    """The stage's /var/db/pkg. Read, never written."""
    emptytree: bool = False
    """Plan as if nothing were installed."""
    test: bool = False
    """FEATURES=test: the tests' dependencies too."""
    make_conf: str = ""
    """The user's own lines for make.conf."""
    user: Path | None = None
    """The user's own directory like /etc/portage."""
    order: Order = Order.NEWEST
    package_use: tuple[str, ...] = ()
    """Lines for package.use, after the user's own."""
    first: tuple[Package, ...] = ()
    """What is built before this plan and is part of the stage then."""
    built_with: Parts = ()
    """The stage's part of every package's fingerprint."""
    metadata: Path | None = None
    """Where Portage keeps what it read of ebuilds, for the next time; below the working directory if None."""
    manifests: bool = True
    """Whether a source archive without a Manifest entry is an error. Without, it has no digests."""
    defaults: bool = False
    """Whether no atoms mean every set of the repositories, or @system where they have none."""
    keep_going: bool = False
    """Whether what cannot be planned is left out, and the rest planned."""
    raise_circles: bool = False
    """Whether, with `keep_going`, a circle that other USE flags break is raised all the same."""


def resolve(request: Request, workdir: Path) -> Plan:
    """The plan that builds `request.atoms`, as `emerge --pretend --with-bdeps=y` orders it.

    Portage writes below `workdir` and `request.metadata` and nowhere else; kept for the next
    time, they save sourcing the ebuilds again. Raises InputError, or the ResolveError that it is where
    Portage has more to say. With `request.keep_going` that is for want of anything to plan; the
    plan has what it does without.
    """
    left: tuple[LeftOut, ...] = ()
    if request.keep_going:
        repositories, left = inputs.usable(request.repositories)
        request = replace(request, repositories=repositories)
    try:
        plan = _listened(request, workdir)
    except NothingToPlan as error:
        error.left_out = (*left, *error.left_out)
        raise
    except InputError as error:
        if left:
            raise NothingToPlan(left, error.what, error.mend) from error
        raise
    return replace(plan, left_out=(*left, *plan.left_out))


def _listened(request: Request, workdir: Path) -> Plan:
    """The plan, or the error with what Portage said."""
    _check_places(request)
    place = portagelib.Place(
        root=workdir.absolute(),
        repositories=request.repositories,
        profile=request.profile,
        installed=_installed(request, workdir.absolute()),
        make_conf=request.make_conf,
        test=request.test,
        user=request.user,
        package_use=request.package_use,
        depcache=request.metadata,
    )
    with portagelib.listening() as said:
        try:
            plan = _resolve(request, place)
        except InputError as error:
            problem: InputError | None = error
        except portagelib.PortageError as error:
            problem = ResolveError("Portage gave up", str(error).strip() or type(error).__name__)
        else:
            problem = None
    if problem is None:
        return plan
    if isinstance(problem, ResolveError):
        raise _with_detail(problem, said.text)
    raise problem


def _installed(request: Request, workdir: Path) -> Path:
    """What the nodes of this plan have, when its first round is done."""
    if not request.first:
        return request.installed
    return with_built(request.installed, request.first, workdir / "first", request.target.name)


def _with_detail(problem: ResolveError, said: str) -> ResolveError:
    """`problem` with what Portage said; where it has no mend of its own, that is the end of it."""
    problem.detail = said.strip()
    if not problem.mend:
        return ResolveError(problem.what, tail(said.replace("!!! ", ""), 3), detail=problem.detail)
    return problem


def _resolve(request: Request, place: portagelib.Place) -> Plan:
    with portagelib.opened(place) as target:
        _check_profile(target)
        atoms = request.atoms or _default(target)
        plan = (_most if request.keep_going else _all)(request, target, atoms)
        return replace(plan, warnings=tuple(_warnings(target, plan)))


def _all(request: Request, target: portagelib.Target, atoms: Sequence[str]) -> Plan:
    _check_atoms(target, atoms)
    answer = target.solve(atoms, emptytree=request.emptytree)
    if isinstance(answer, Unsolved):
        raise explain(target, answer)
    return _plan(request, target, answer)


def _default(target: portagelib.Target) -> tuple[str, ...]:
    return tuple(f"@{name}" for name in target.repository_sets()) or ("@system",)


def _warnings(target: portagelib.Target, plan: Plan) -> Iterator[str]:
    """What Portage found a way around: entries of metadata caches, ebuilds of other versions."""
    for repository in plan.repositories:
        mine = (package.cpv for package in plan.packages if package.repository == repository.name)
        if stale := [cpv for cpv in mine if target.is_stale(cpv, repository.name)]:
            more = f" and {len(stale) - 1} more" if len(stale) > 1 else ""
            yield (
                f"repository {repository.name}: its metadata/md5-cache is damaged or out of date for {stale[0]}{more}, "
                "so Portage sourced the ebuild: have `egencache --update` write it anew"
            )
    for cpv in target.passed_over():
        ebuild = target.ebuild(cpv)
        if not any(str(ebuild) in str(left) for left in plan.left_out):
            yield f"{ebuild} cannot be read, so other versions were looked at: mend it: {target.complaint(cpv)}"


# As much as can be planned.


def _most(request: Request, target: portagelib.Target, atoms: Sequence[str]) -> Plan:
    wishes, left, torn = _wanted(target, atoms)
    if not wishes and not left:  # sets that are empty
        return _all(request, target, atoms)
    plan, more = keepgoing.most(wishes, partial(_attempt, request, target, wishes, torn))
    left = (*left, *more)
    if plan is None:
        raise NothingToPlan(left)
    packages = tuple(replace(package, arguments=_askers(package.arguments, wishes)) for package in plan.packages)
    return replace(plan, packages=packages, left_out=left)


def _wanted(
    target: portagelib.Target, atoms: Sequence[str]
) -> tuple[tuple[Wish, ...], tuple[LeftOut, ...], frozenset[str]]:
    """What is asked for, atom by atom; what of it is known not to be had; the sets that have some of that."""
    wishes: list[Wish] = []
    left: dict[str, LeftOut] = {}
    torn: set[str] = set()
    for argument in dict.fromkeys(atoms):
        name = argument.removeprefix("@")
        members, problems = target.members(name) if argument.startswith("@") else ([argument], [])
        for what, reason in problems:
            torn.add(argument)
            error = InputError(reason, _MEND_SET) if target.has_set(name) else _unknown_set(target, name)
            left.setdefault(f"{what}: {reason}", keepgoing.left_out(what, error))
        for wish in (Wish(atom, argument) for atom in members):
            if fault := _own_fault(target, wish):
                torn.add(argument)
                left.setdefault(wish.atom, keepgoing.left_out(wish.atom, fault))
            else:
                wishes.append(wish)
    return tuple(wishes), tuple(left.values()), frozenset(torn)


def _own_fault(target: portagelib.Target, wish: Wish) -> InputError | None:
    """Why `wish` cannot be had, where that shows without a run of the solver."""
    if not portagelib.valid_atom(wish.atom):
        return _not_an_atom(wish.atom)
    unmet = target.out_of_reach(wish.atom, wish.asker)
    return explain_unmet(target, unmet) if unmet else None


def _attempt(
    request: Request, target: portagelib.Target, wishes: Sequence[Wish], torn: frozenset[str], kept: Sequence[Wish]
) -> Plan | Refusal:
    """The plan for `kept` of `wishes`, or what is to blame that there is none."""
    atoms = keepgoing.arguments(wishes, kept, torn)
    with portagelib.listening() as said:
        try:
            answer = target.solve(atoms, emptytree=request.emptytree)
            while isinstance(answer, Unsolved) and answer.broken and target.shun(answer.broken):
                answer = target.solve(atoms, emptytree=request.emptytree)
        except portagelib.PortageError as error:
            return Refusal(
                ((ResolveError("Portage gave up", str(error).strip() or type(error).__name__), frozenset()),)
            )
    if isinstance(answer, Unsolved):
        reason = explain(target, answer)
        if request.raise_circles and isinstance(reason, CircularError) and reason.circle.changes:
            raise reason
        return Refusal(((_with_detail(reason, said.text), _blame(answer, [wish.atom for wish in kept])),))
    try:
        return _plan(request, target, answer)
    except InputError as error:
        return Refusal(tuple(_faults(request, target, answer)) or ((error, frozenset()),))


def _faults(
    request: Request, target: portagelib.Target, solution: Solution
) -> Iterator[tuple[InputError, frozenset[str]]]:
    """Why packages of `solution` cannot be in a plan, and the atoms that lead to each."""
    for node in solution.order:
        try:
            _distfiles(target, node, strict=request.manifests)
        except InputError as error:
            yield error, solution.wanting.above([node.cpv])


def _blame(problem: Unsolved, order: Sequence[str]) -> frozenset[str]:
    """The atoms of the request that lead to what `_explain` names."""
    above = problem.wanting.above
    if problem.broken:
        return frozenset()
    if problem.unmet:
        unmet = problem.unmet[0]
        return frozenset({unmet.argument}) if unmet.argument else above([unmet.wanted_by])
    if problem.rivals:
        return keepgoing.weakest([above(side) for side in problem.rivals], order)
    return above(problem.circle.cpvs) if problem.circle else frozenset()


def _askers(arguments: Sequence[str], wishes: Sequence[Wish]) -> tuple[str, ...]:
    """The atoms and sets of the request behind `arguments`, which have atoms in the place of some sets."""
    asked = {wish.argument for wish in wishes}
    found = {argument for argument in arguments if argument in asked}
    found.update(wish.argument for wish in wishes if wish.atom in arguments)
    return tuple(sorted(found))


def _plan(request: Request, target: portagelib.Target, solution: Solution) -> Plan:
    pairs = zip(solution.order, _requires(solution, request.order), strict=True)
    packages = tuple(_package(request, target, solution, node, requires) for node, requires in pairs)
    return Plan(
        target=request.target.name,
        chost=request.target.chost,
        packages=packages,
        repositories=request.repositories,
        profile=request.profile,
    )


def _package(
    request: Request, target: portagelib.Target, solution: Solution, node: Node, requires: Subset[Cpv]
) -> Package:
    distfiles = _distfiles(target, node, strict=request.manifests)
    metadata = target.cache_entry(node.cpv, node.repository)
    return Package(
        cpv=Cpv(node.cpv),
        slot=node.slot,
        use=node.use,
        iuse=node.iuse,
        repository=node.repository,
        ebuild=target.ebuild(node.cpv, node.repository),
        requires=requires,
        distfiles=distfiles,
        reason=_reason(solution, node),
        requested=_requested(solution, node),
        arguments=solution.arguments.get(node, ()),
        dependencies=_dependencies(solution, node),
        metadata=metadata,
        fingerprint=(
            *ingredients.of(target, node, solution.needs[node], requires, distfiles, metadata),
            *request.built_with,
        ),
    )


def _dependencies(solution: Solution, node: Node) -> tuple[Dependency, ...]:
    return tuple(Dependency(Cpv(need.child.cpv), need.kinds, need.atoms) for need in solution.needs[node])


def _reason(solution: Solution, node: Node) -> str:
    if _requested(solution, node):
        return "requested"
    return f"needed by {solution.parents[node].cpv}"


def _requested(solution: Solution, node: Node) -> bool:
    return node in solution.arguments or node not in solution.parents


def _requires(solution: Solution, order: Order) -> list[Subset[Cpv]]:
    """For each package of the plan, in its order, what must be in the node before its build.

    These are its build-time children, closed over what they need to run. Of those only
    the ones before it in Portage's order count: a sequential emerge would have installed
    exactly them, and what comes later (a runtime cycle, a post dependency) the stage has in
    its own version. So every edge agrees with one order, and the plan has no cycle.

    In the most parallel order what the stage satisfies is left out. A slot operator's is not: the
    package would be bound to the stage's library, which is not the one that it is used with.
    """
    plan = Universe(Cpv(node.cpv) for node in solution.order)
    counted = [[need for need in _counted(solution, node, order) if need.child.merge] for node in solution.order]
    run = [[plan.place[Cpv(need.child.cpv)] for need in needs if need.kinds != (Kind.BUILD,)] for needs in counted]
    build = [[plan.place[Cpv(need.child.cpv)] for need in needs if Kind.BUILD in need.kinds] for needs in counted]
    closures = _closures(run)
    found = []
    for place, needed in enumerate(build):
        bits = reduce(or_, (closures[child] for child in needed), 0)
        found.append(Subset(plan, bits & ((1 << place) - 1)))
    return found


def _closures(children: Sequence[Sequence[int]]) -> list[int]:
    """Each package by itself and with what it needs to run, as bits. What the stage has is complete as it is.

    Nearly every child comes before its parent, so that the first round finds nearly all; a circle takes some more.
    """
    found = [1 << place for place in range(len(children))]
    grown = True
    while grown:
        grown = False
        for place, needed in enumerate(children):
            bits = reduce(or_, (found[child] for child in needed), found[place])
            grown |= bits != found[place]
            found[place] = bits
    return found


def _counted(solution: Solution, node: Node, order: Order) -> Iterator[Need]:
    return (need for need in solution.needs[node] if _counts(need, order))


def _counts(need: Need, order: Order) -> bool:
    return order is Order.NEWEST or not need.satisfied or any(map(portagelib.is_bound, need.atoms))


def _distfiles(target: portagelib.Target, node: Node, *, strict: bool) -> tuple[Distfile, ...]:
    sources = target.sources(node)
    unknown = next((source for source in sources if not source.is_checked), None)
    if unknown and strict:
        ebuild = target.ebuild(node.cpv, node.repository)
        lack = "a damaged checksum" if unknown.digests else "no checksum"
        raise InputError(f"{node.cpv}: its Manifest has {lack} of {unknown.name}", f"run `ebuild {ebuild} manifest`")
    return tuple(_distfile(source) for source in sources)


def _distfile(source: Source) -> Distfile:
    return Distfile(source.name, source.size, source.digests, source.uris)


# What can be said before Portage is asked.


def _check_places(request: Request) -> None:
    if not request.repositories:
        raise InputError("there is no ebuild repository", "name one with --repo NAME=DIR")
    inputs.check_repositories(request.repositories)
    inputs.check_profile(request.profile, request.repositories)
    if not request.installed.is_dir():
        raise InputError(
            f"there is no installed database {request.installed}", "name a /var/db/pkg directory with --installed"
        )
    if not request.atoms and not request.defaults:
        raise InputError("there is nothing to plan", "name an atom or a set such as @demo")


def _check_profile(target: portagelib.Target) -> None:
    profile = target.place.profile
    if not target.has_profile:
        raise ResolveError(f"profile {profile} cannot be read")
    if not target.arch:
        raise ResolveError(f"profile {profile} sets no ARCH", "set it in the profile's make.defaults, or use another")


def _check_atoms(target: portagelib.Target, atoms: Iterable[str]) -> None:
    for atom in atoms:
        if atom.startswith("@"):
            _check_set(target, atom.removeprefix("@"))
        elif not portagelib.valid_atom(atom):
            raise _not_an_atom(atom)


def _not_an_atom(atom: str) -> ResolveError:
    return ResolveError(
        f"{atom!r} is not a package atom", "write CATEGORY/NAME, or =CATEGORY/NAME-VERSION with the sign for a version"
    )


def _check_set(target: portagelib.Target, name: str) -> None:
    if not target.has_set(name):
        raise _unknown_set(target, name)
    _, problems = target.members(name)
    if problems:
        what, reason = problems[0]
        raise ResolveError(f"{what} {reason}", _MEND_SET)


def _unknown_set(target: portagelib.Target, name: str) -> ResolveError:
    listed = ", ".join(f"@{other}" for other in target.sets())
    return ResolveError(f"unknown set @{name}", f"known sets: {listed}")


# Why Portage found no plan: the first reason that names something.
