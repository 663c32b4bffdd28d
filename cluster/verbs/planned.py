"""Plans for verbs: what was left out of one is said on stderr, which leaves stdout to the answer."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape

from cluster import report
from cluster.master import planning, resolver
from cluster.master.session import Session
from cluster.model import Plan
from cluster.options import Common, console_for


def plans_of(
    opened: Sequence[Session], atoms: tuple[str, ...], keep_going: bool, *, sources: bool = False
) -> tuple[Plan, ...]:
    """The plans; what is wrong and does not stop them is said on stderr, which leaves stdout to the answer."""
    with _said_what_is_left_out():
        plans = planning.make_plans(opened, atoms, sources=sources, keep_going=keep_going)
    for session, made in zip(opened, plans, strict=True):
        if len(opened) > 1 and (made.left_out or made.warnings):
            print(f"{session.name}:", file=sys.stderr)
        report.beside(Console(stderr=True), made.left_out, made.warnings)
    return plans


def plan_of(session: Session, atoms: tuple[str, ...], keep_going: bool, *, defaults: bool = False) -> Plan:
    """As `plans_of`, for one."""
    with _said_what_is_left_out():
        made = planning.make_plan(session, atoms, sources=False, defaults=defaults, keep_going=keep_going)
    report.beside(Console(stderr=True), made.left_out, made.warnings)
    return made


@contextmanager
def _said_what_is_left_out() -> Iterator[None]:
    try:
        yield
    except resolver.NothingToPlan as error:
        report.beside(Console(stderr=True), error.left_out)
        raise


def beside(made: Plan, keep_going: bool) -> dict[str, Any]:
    """What is added to the JSON of an answer about a plan that may do without something."""
    return report.beside_json(made) if keep_going else {}


def one_or_all(parts: Sequence[dict[str, Any]], opened: Sequence[Session]) -> Mapping[str, Any]:
    """The one of `parts` by itself; of several each under its session's name."""
    if len(parts) == 1:
        return parts[0]
    return {session.name: part for session, part in zip(opened, parts, strict=True)}


def heading(common: Common, session: Session, opened: Sequence[Session]) -> None:
    """Name `session` before what is said of it, where there are several."""
    if len(opened) > 1:
        console_for(common).print(f"[bold]{escape(session.name)}[/]", highlight=False)


def code_of(made: Plan) -> int:
    """The exit code of an answer about `made`: 2 where something was left out."""
    return 2 if made.left_out else 0
