"""What verbs that build nothing are given to build; apart from plans, which are not to wait for its imports."""

from __future__ import annotations

from pathlib import Path

from cluster.errors import InputError
from cluster.master import historyfile, planning, workload
from cluster.master.workload import Workload
from cluster.options import Common, What, open_one
from cluster.verbs.planned import plan_of


def workload_of(
    atoms: tuple[str, ...], graph: Path | None, history: Path | None, keep_going: bool, what: What, common: Common
) -> Workload:
    """The packages of the file `graph`, or those that ATOMS build; with the times in `history`, or the journal's.

    Raises InputError.
    """
    if graph is not None and atoms:
        raise InputError(f"--graph {graph} and {' '.join(atoms)} exclude each other", "give one of them")
    builds = historyfile.read(history) if history is not None else None
    if graph is not None:
        return workload.read(graph, builds or ())
    session = open_one(what, common)
    made = plan_of(session, atoms, keep_going)
    return workload.of_plan(made, planning.past_builds(session) if builds is None else builds)
