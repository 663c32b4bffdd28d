"""From atoms to judged plans: Portage's answer, and what of it the binhosts have already."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cluster import target
from cluster.master import binhost as binhosts
from cluster.master import bootstrap, fingerprint, judge, resolver, trees, variants
from cluster.master.history import Build
from cluster.master.journal import Journal
from cluster.master.refusal import CircularError
from cluster.master.session import Session
from cluster.model import Plan
from cluster.node import stage
from cluster.node.installed import write_installed


def make_plan(
    session: Session,
    atoms: tuple[str, ...],
    *,
    sources: bool = True,
    defaults: bool = False,
    keep_going: bool = False,
) -> Plan:
    """Portage's plan for `atoms`; what the binhost has is marked as skipped. Raises InputError.

    With `sources`, a source archive that no Manifest describes is an error: it could not be checked.
    With `defaults`, no atoms mean every set of the repositories, or @system where they have none.
    With `keep_going`, what cannot be planned is left out; `over` is then the session to go on with.
    """
    with tempfile.TemporaryDirectory(prefix="portage-cluster-") as scratch:
        work = Path(scratch)
        installed = session.installed
        if installed is None:
            provides = target.load_recipe().provides
            installed = write_installed(provides, work / "installed", session.target.name)
        metadata = trees.places(session.directories).cache
        request = resolver.Request(
            target=session.target,
            atoms=atoms,
            repositories=session.repositories,
            metadata=metadata if metadata.is_dir() else None,
            profile=session.profile,
            installed=installed,
            emptytree=session.emptytree,
            test=session.config.build.test,
            make_conf=session.make_conf,
            user=session.user,
            order=session.order,
            built_with=_built_with(session),
            manifests=sources,
            defaults=defaults,
            keep_going=keep_going,
        )
        (work / "resolve").mkdir()
        with trees.revising(session.repositories) as revised:
            plan = _solved(request, work / "resolve", break_cycles=session.break_cycles)
        plan = replace(plan, repositories=tuple(one for one in revised() if one in plan.repositories))
    return _judged(session, bootstrap.twice(plan) if session.stages == 2 else plan)


def _solved(request: resolver.Request, work: Path, *, break_cycles: bool) -> Plan:
    """With `keep_going` a circle that cannot be broken is left out with all others, so that there is a plan."""
    if not break_cycles:
        return resolver.resolve(request, work)
    try:
        return bootstrap.unbroken(replace(request, raise_circles=True), work)
    except CircularError:
        if not request.keep_going:
            raise
        return resolver.resolve(request, work)


def _judged(session: Session, plan: Plan) -> Plan:
    siblings = {path: _records(path, plan.chost) for path in session.siblings}
    found = judge.judged(plan, _records(session.binhost, plan.chost), siblings)
    return replace(found, first=_judged(session.earlier, plan.first)) if plan.first else found


def _records(directory: Path, chost: str) -> judge.Records:
    """What the binhost in `directory` has, if there is one: a plan alone makes no directories."""
    return binhosts.Binhost(directory, chost).records() if directory.exists() else {}


def make_plans(
    chosen: Sequence[Session], atoms: tuple[str, ...], *, sources: bool = True, keep_going: bool = False
) -> tuple[Plan, ...]:
    """A plan for each of `chosen`, as `make_plan`; of two that would build the same the later takes it."""
    made = [make_plan(session, atoms, sources=sources, keep_going=keep_going) for session in chosen]
    return variants.shared([(one.name, one.binhost, plan) for one, plan in zip(chosen, made, strict=True)])


def over(session: Session, plan: Plan) -> Session:
    """`session` without the repositories that `plan` had to do without."""
    return replace(session, repositories=plan.repositories)


def past_builds(session: Session) -> tuple[Build, ...]:
    """The builds on record for the target, the latest last: to ask makes no journal."""
    return Journal(session.journal).builds(session.target.name) if session.journal.exists() else ()


def _built_with(session: Session) -> fingerprint.Parts:
    """The stage's part of a fingerprint; without its toolchain's while there is no stage."""
    recipe = target.load_recipe()
    chosen = session.target
    parts = [("stage", fingerprint.digest(recipe.model_dump_json(), chosen.chost, chosen.debian_arch))]
    if found := stage.find(chosen, recipe, session.directories.cache):
        parts.append(("toolchain", _toolchain(found)))
    return tuple(parts)


def _toolchain(found: stage.Stage) -> str:
    """A hash of what its own compilers say of themselves."""
    files = sorted(path for path in found.signature.rglob("*") if path.is_file())
    return fingerprint.digest(*(part for path in files for part in (path.name, path.read_bytes())))


def with_toolchain(plan: Plan, found: stage.Stage) -> Plan:
    """`plan`, made when there was no stage, with the toolchain of the one that has been built since."""
    part = ("toolchain", _toolchain(found))
    packages = (
        replace(package, fingerprint=(*(had for had in package.fingerprint if had[0] != part[0]), part))
        for package in plan.packages
    )
    return replace(plan, packages=tuple(packages))
