"""`cluster plan`: what would be built, in which order, and why."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from cluster import report
from cluster.options import Common, KeepGoing, What, console_for, open_all, print_json
from cluster.verbs.planned import code_of, heading, one_or_all, plans_of


def plan(
    *atoms: str,
    keep_going: KeepGoing = False,
    reason: Annotated[bool, Parameter(negative="", help="Say why, one line for each package.")] = False,
    what: What | None = None,
    common: Common | None = None,
) -> int:
    """Show what `build` would do for ATOMS (packages and @sets), in order."""
    what, common = what or What(), common or Common()
    opened = open_all(what, common)
    plans = plans_of(opened, atoms, keep_going)
    show = report.plan_reasons if reason else report.plan_table
    if common.json:
        print_json(one_or_all([report.plan_json(each) for each in plans], opened))
        return max(map(code_of, plans))
    for session, each in zip(opened, plans, strict=True):
        heading(common, session, opened)
        show(console_for(common), each)
    return max(map(code_of, plans))
