"""What the end of a run waited for."""

from __future__ import annotations

from cluster.master.schedule.simulation import Stay, Trace


def chain(trace: Trace) -> tuple[Stay, ...]:
    """The stays on nodes that the end of a run from its start waited for, the first one first.

    Before each comes the last to end of what it waited for: the packages that its own needs, the one that had its
    node before, its own attempt that was lost.
    """
    tasks = trace.state.tasks
    of_package: dict[int, int] = {}
    of_node: dict[str, int] = {}
    awaited: list[int | None] = []
    for number, stay in enumerate(trace.stays):
        place = tasks.places[stay.cpv]
        needed = (of_package.get(other) for other in (place, *tasks.needs[place]))
        before = [one for one in (*needed, of_node.get(stay.node)) if one is not None]
        awaited.append(max(before, key=lambda one: trace.stays[one].until, default=None))
        of_package[place] = of_node[stay.node] = number
    found = []
    here = len(awaited) - 1 if awaited else None
    while here is not None:
        found.append(trace.stays[here])
        here = awaited[here]
    return tuple(reversed(found))
