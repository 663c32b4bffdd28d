"""`cluster advise`: what more hosts would bring, before they are rented."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cluster import advicetable, config
from cluster.errors import InputError
from cluster.master.schedule import advice
from cluster.master.schedule import hosts as host_kinds
from cluster.master.schedule.advice import Kind
from cluster.master.schedule.hosts import Host
from cluster.options import Common, KeepGoing, What, console_for, print_json, seconds
from cluster.verbs.workloads import workload_of

_FAST = 4.0
_KIND = re.compile(r"(\d+(?:\.\d+)?)(?:=(\d+(?:\.\d+)?))?")


def advise(
    *atoms: str,
    graph: Annotated[Path | None, Parameter(help="A -> B lines or a saved plan, in the place of ATOMS.")] = None,
    history: Annotated[Path | None, Parameter(help="Past builds, in the place of the journal's.")] = None,
    hosts: Annotated[str | None, Parameter(help="What you have, as 2x4.0,6x1.0; else the configured nodes.")] = None,
    kinds: Annotated[str | None, Parameter(help="What you could add: SPEED or SPEED=USD an hour, with commas.")] = None,
    deadline: Annotated[str | None, Parameter(help="By when it is to end, as 90m or 5h: what that takes.")] = None,
    budget: Annotated[float | None, Parameter(help="USD that may be spent on more hosts: what ends soonest.")] = None,
    keep_going: KeepGoing = False,
    what: What | None = None,
    common: Common | None = None,
) -> int:
    """Say when building ATOMS ends with the hosts there are, what one more would save, and what is to blame."""
    what, common = what or What(), common or Common()
    present = _present(hosts, common)
    offered = _offered(kinds, present)
    limit = None if deadline is None else seconds(deadline, "--deadline")
    if budget is not None and (budget <= 0 or any(kind.price is None for kind in offered)):
        raise InputError(f"--budget {budget:g} needs prices", "for example --kinds 1.0=0.04,4.0=0.17 --budget 3")
    work = workload_of(atoms, graph, history, keep_going, what, common)
    found = advicetable.Answer(
        hosts=present,
        unknown=work.unknown,
        packages=len(work.tasks),
        advice=advice.advise(work.tasks, present, offered),
        deadline_s=limit,
        in_time=tuple((kind, advice.in_time(work.tasks, present, kind, limit)) for kind in offered) if limit else (),
        budget=budget,
        within=tuple(advice.within(work.tasks, present, kind, budget) for kind in offered) if budget else (),
    )
    if common.json:
        print_json(advicetable.json(found))
    else:
        advicetable.show(console_for(common), found)
    return 0


def _present(text: str | None, common: Common) -> tuple[Host, ...]:
    return host_kinds.parse(text or f"{config.load(common.config).build.nodes}x1")


def _offered(text: str | None, present: Sequence[Host]) -> tuple[Kind, ...]:
    """The kinds in `text`; else one as each that there is, and a fast one."""
    if text is None:
        return tuple(Kind(speed) for speed in sorted({*(host.speed for host in present), _FAST}))
    return tuple(_kind(word.strip()) for word in text.split(","))


def _kind(word: str) -> Kind:
    found = _KIND.fullmatch(word)
    if found is None or not float(found[1]):
        raise InputError(f"--kinds {word!r} is not SPEED or SPEED=USD", "for example --kinds 1.0=0.04,4.0=0.17")
    return Kind(float(found[1]), float(found[2]) if found[2] else None)
