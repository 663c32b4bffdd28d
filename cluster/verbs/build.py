"""`cluster build` and `cluster verify`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape

from cluster import config, report
from cluster.errors import InputError
from cluster.master import building, planning, rented
from cluster.master import priority as priorities
from cluster.master.session import Session
from cluster.options import Common, KeepGoing, What, at_least_one, console_for, open_all, open_one, print_json
from cluster.verbs.planned import beside, code_of, heading, one_or_all, plans_of


def build(
    *atoms: str,
    nodes: Annotated[int | None, Parameter(help="Nodes at once.")] = None,
    driver: Annotated[
        Literal["qemu", "chroot"] | None, Parameter(help="What a node is; by default what node.driver says.")
    ] = None,
    local: Annotated[
        bool, Parameter(negative="", help="Build on this machine alone, though hosts have been added.")
    ] = False,
    plain: Annotated[
        bool, Parameter(negative="", help="Give nodes no help: boot, emerge and compile in them.")
    ] = False,
    weight: Annotated[
        float | None, Parameter(help="How much it counts beside other builds on this machine, which have 1.")
    ] = None,
    priority: Annotated[
        list[str] | None,
        Parameter(negative="", help="A package of the plan that is built first, before other builds; may be repeated."),
    ] = None,
    ec2_down: Annotated[
        bool, Parameter(negative="", help="End what is rented when the build is over, however it ends.")
    ] = False,
    audit_compiles: Annotated[float | None, Parameter(help="Percent of compiles to do in the node as well.")] = None,
    keep_going: KeepGoing = False,
    what: What | None = None,
    common: Common | None = None,
) -> int:
    """Build ATOMS (packages and @sets) into the binhost."""
    what, common = what or What(), common or Common()
    opened = tuple(
        _weighed(_placed(_driven(_helped(session, plain, audit_compiles), driver), local), weight)
        for session in open_all(what, common)
    )
    if nodes is not None:
        at_least_one(nodes, "--nodes")
    console = console_for(common)
    results = []
    plans = plans_of(opened, atoms, keep_going, sources=True)
    urgent = priorities.urgent(plans, priority or ())
    with _ending(opened, console, ec2_down=ec2_down):
        for number, (session, made) in enumerate(zip(opened, plans, strict=True), 1):
            heading(common, session, opened)
            usable, count = planning.over(session, made), nodes or session.config.build.nodes
            with report.Reporter(console) as reporter:
                results.append(building.build(usable, made, count, reporter, urgent, more=number < len(opened)))
            if not common.json:
                report.summary(console, results[-1])
                report.beside(console, made.left_out)
    if common.json:
        print_json(one_or_all([report.build_json(result) for result in results], opened))
    return max(result.exit_code for result in results)


def verify(*atoms: str, keep_going: KeepGoing = False, what: What | None = None, common: Common | None = None) -> int:
    """Let a fresh node install ATOMS from the binhost over HTTP, and run their programs."""
    what, common = what or What(), common or Common()
    session = open_one(what, common)
    (made,) = plans_of((session,), atoms, keep_going, sources=True)
    session = planning.over(session, made)
    console = console_for(common)
    with report.Reporter(console) as reporter:
        proof = building.prove(session, made, reporter)
    if common.json:
        answer = {"installed": [p.cpv for p in made.packages], "ran": proof.ran, "failed": proof.failed}
        print_json({**answer, **beside(made, keep_going)})
    else:
        for program in proof.ran:
            console.print(f"   [green]ran[/] {escape(program)}", highlight=False)
        for program in proof.failed:
            console.print(f"[red]failed[/] {escape(program)}", highlight=False)
    return code_of(made) if proof.good else 2


@contextmanager
def _ending(opened: Sequence[Session], console: Console, *, ec2_down: bool) -> Iterator[None]:
    """When it is over, however it ends, end what is rented for the sessions that are to do so."""
    over = [session for session in opened if ec2_down or session.config.ec2.down_after]
    try:
        yield
    finally:
        if over:
            with report.Reporter(console) as reporter:
                rented.down(over, reporter)


def _helped(session: Session, plain: bool, audit: float | None) -> Session:
    """The session with the help for nodes that `build`'s options ask for."""
    chosen = config.plain(session.config) if plain else session.config
    if audit is not None:
        if not 0 <= audit <= 100:
            raise InputError(f"--audit-compiles {audit:g} is no percentage", "use 0 to 100")
        chosen = chosen.model_copy(update={"compile": chosen.compile.model_copy(update={"audit_percent": audit})})
    return replace(session, config=chosen)


def _driven(session: Session, driver: Literal["qemu", "chroot"] | None) -> Session:
    """The session with the node driver that `build`'s option names."""
    if driver is None:
        return session
    node = session.config.node.model_copy(update={"driver": driver})
    return replace(session, config=session.config.model_copy(update={"node": node}))


def _placed(session: Session, local: bool) -> Session:
    """The session, on this machine alone if `build`'s option says so."""
    if not local:
        return session
    hosts = session.config.hosts.model_copy(update={"use": False})
    return replace(session, config=session.config.model_copy(update={"hosts": hosts}))


def _weighed(session: Session, weight: float | None) -> Session:
    """The session with the weight that `build`'s option gives it."""
    if weight is None:
        return session
    if not config.LIGHTEST <= weight <= config.HEAVIEST:
        mend = f"use {config.LIGHTEST:g} to {config.HEAVIEST:g}; other builds have 1"
        raise InputError(f"--weight {weight:g} is no weight", mend)
    build = session.config.build.model_copy(update={"weight": weight})
    return replace(session, config=session.config.model_copy(update={"build": build}))
