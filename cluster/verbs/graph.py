"""Questions about a plan: `cluster graph`, `why` and `impact`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cluster import answers
from cluster.drawing import formats
from cluster.errors import InputError
from cluster.master import planning, subject
from cluster.master import shape as shapes
from cluster.master.chains import why as find_chains
from cluster.master.impact import impact as find_impact
from cluster.master.session import Session
from cluster.model import Cpv, Plan
from cluster.options import Common, KeepGoing, What, at_least_one, console_for, open_one, print_json
from cluster.verbs.planned import beside, code_of, plan_of


def graph(
    *atoms: str,
    output: Annotated[Path | None, Parameter(help="Write the graph into this file.")] = None,
    format: Annotated[
        formats.Format | None, Parameter(help="Of the file; by default its suffix. Without --output, print it.")
    ] = None,
    keep_going: KeepGoing = False,
    what: What | None = None,
    common: Common | None = None,
) -> int:
    """Draw the dependencies of the plan for ATOMS (packages and @sets), and say what takes longest.

    Levels are columns in the picture: a package is built after all it needs on the levels before.
    """
    what, common = what or What(), common or Common()
    if format is not None and output is None and common.json:
        raise InputError(f"--format {format} and --json both want stdout", "give --format a file with --output")
    chosen = format or (formats.by_suffix(output) if output else None)
    session = open_one(what, common)
    made = plan_of(session, atoms, keep_going)
    found = shapes.shape(made, planning.past_builds(session))
    drawn = formats.render(found, chosen, answers.title(made.packages, made.target)) if chosen else ""
    if output is not None:
        formats.write(output, drawn)
    if common.json:
        print_json({**formats.as_json(found), **beside(made, keep_going)})
    elif drawn and output is None:
        print(drawn, end="")
    else:
        answers.graph_summary(console_for(common), found, output)
    return code_of(made)


def why(
    package: str,
    /,
    *atoms: str,
    chains: Annotated[int, Parameter(help="How many chains at most.")] = 5,
    keep_going: KeepGoing = False,
    what: What | None = None,
    common: Common | None = None,
) -> int:
    """Show what pulls PACKAGE (an atom, or a name alone) into the plan for ATOMS.

    ATOMS default to every set of the repositories, or @system where they have none.
    """
    what, common = what or What(), common or Common()
    at_least_one(chains, "--chains")
    made, cpv = _asked(package, atoms, open_one(what, common), keep_going)
    answer = find_chains(made, cpv, chains)
    if common.json:
        print_json({**answers.why_json(answer), **beside(made, keep_going)})
    else:
        answers.why_tree(console_for(common), answer)
    return code_of(made)


def impact(
    package: str,
    /,
    *atoms: str,
    keep_going: KeepGoing = False,
    what: What | None = None,
    common: Common | None = None,
) -> int:
    """Show what a change of PACKAGE (an atom, or a name alone) would rebuild of the plan for ATOMS, and for how long.

    ATOMS default to every set of the repositories, or @system where they have none.
    """
    what, common = what or What(), common or Common()
    session = open_one(what, common)
    made, cpv = _asked(package, atoms, session, keep_going)
    answer = find_impact(made, cpv, planning.past_builds(session))
    if common.json:
        print_json({**answers.impact_json(answer), **beside(made, keep_going)})
    else:
        answers.impact_table(console_for(common), answer)
    return code_of(made)


def _asked(package: str, atoms: tuple[str, ...], session: Session, keep_going: bool) -> tuple[Plan, Cpv]:
    made = plan_of(session, atoms, keep_going, defaults=True)
    return made, subject.find(made, package)
