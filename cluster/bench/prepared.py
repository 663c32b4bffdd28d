"""What measuring the build of one package begins with: its plan, its prerequisites, its sources, and hardware."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cluster import paths
from cluster.errors import BuildFailed, InputError, NodeLost
from cluster.host import runs
from cluster.master import binhost as binhosts
from cluster.master import building, distfiles, equipment, planning
from cluster.master.progress import Reporter
from cluster.master.session import Session
from cluster.model import Cpv, Outcome, Package, Plan, Verdict
from cluster.node.build import Limits
from cluster.node.node import Hardware

_NEED_MIB = 4000


@dataclass(frozen=True, slots=True)
class Bench:
    """What all builds of one benchmark share."""

    session: Session
    plan: Plan
    package: Package
    live: runs.Run
    hardware: Hardware
    """Of a tuned node."""
    binhost: binhosts.Binhost
    """A scratch one with the package's prerequisites."""
    limits: Limits
    logs: Path
    reporter: Reporter


@contextmanager
def prepared(session: Session, atom: str, nodes: int, reporter: Reporter) -> Iterator[Bench]:
    """All that it takes to build the one package that `atom` means, on up to `nodes` nodes; ended with the context.

    Prerequisites that the binhost lacks are built first. Raises InputError for what cannot be meant,
    MachineError if the machine cannot do it, BuildFailed if a prerequisite does not build.
    """
    session = _untested(session)
    plan, package = _planned(session, atom)
    _build_prerequisites(session, plan, package, reporter)
    for distfile in package.distfiles:
        distfiles.fetch(distfile, session.directories.distfiles, equipment.providers(session))
    with building.only_one(session), ExitStack() as stack:
        runs.sweep(session.directories.state)
        paths.require_space(session.directories.state, _NEED_MIB, "the benchmark")
        hardware = equipment.hardware_for(session, nodes, reporter)
        live = stack.enter_context(runs.Run(session.directories.state))
        stack.callback(live.stop)
        yield Bench(
            session=session,
            plan=plan,
            package=package,
            live=live,
            hardware=hardware,
            binhost=_scratch_binhost(session, plan, package, live.directory / "binhost"),
            limits=Limits(session.config.limits.total_s, session.config.limits.silence_s),
            logs=session.directories.logs / "bench",
            reporter=reporter,
        )


def _untested(session: Session) -> Session:
    """The session without packages' tests, which are not measured."""
    build = session.config.build.model_copy(update={"test": False})
    return replace(session, config=session.config.model_copy(update={"build": build}))


def _planned(session: Session, atom: str) -> tuple[Plan, Package]:
    """The plan for `atom` and the one package that it means. Raises InputError if it means several or none."""
    plan = planning.make_plan(session, (atom,))
    requested = [package for package in plan.packages if package.requested]
    if len(requested) != 1:
        raise InputError(f"{atom} is {len(requested)} packages", "name one package with --package")
    return plan, requested[0]


def needed(plan: Plan, package: Package) -> tuple[Package, ...]:
    """The packages that building `package` from nothing takes, itself left out, in the plan's order."""
    closure: set[Cpv] = set()
    wanted = list(package.requires)
    while wanted:
        cpv = wanted.pop()
        if cpv not in closure:
            closure.add(cpv)
            wanted += plan.package(cpv).requires
    return tuple(other for other in plan.packages if other.cpv in closure)


def _build_prerequisites(session: Session, plan: Plan, package: Package, reporter: Reporter) -> None:
    """Build what `package` requires and the binhost lacks into it. Raises BuildFailed if some of it fails."""
    packages = needed(plan, package)
    missing = [other.cpv for other in packages if other.action.builds]
    if not missing:
        return
    reporter.warn(f"built first, because the binhost lacks them: {', '.join(missing)}")
    result = building.build(session, replace(plan, packages=packages), session.config.build.nodes, reporter)
    if result.exit_code:
        raise BuildFailed(f"the prerequisites of {package.cpv} do not build", "see `cluster build`")


def _scratch_binhost(session: Session, plan: Plan, package: Package, directory: Path) -> binhosts.Binhost:
    """A binhost with what `package` requires: benchmarks publish nothing."""
    real = binhosts.Binhost(session.binhost, session.target.chost)
    scratch = binhosts.Binhost(directory, session.target.chost)
    for cpv in package.requires:
        scratch.admit(real.path(cpv), plan.package(cpv))
    return scratch


def require_built(name: str, outcome: Outcome) -> None:
    """Raise BuildFailed or NodeLost if the build of `name` did not end well."""
    if outcome.verdict is Verdict.BUILT:
        return
    kind = NodeLost if outcome.verdict is Verdict.LOST else BuildFailed
    raise kind(f"{name}: {outcome.cpv} {outcome.verdict}: {outcome.reason}", f"see {outcome.log}")
