"""What is late on a slow node and would end sooner if it began anew on a faster one that is idle."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cluster.master.schedule.state import Draft, Running

_MARGIN = 2.0  # times what it would take elsewhere a package has to need still: it may be late there as well


@dataclass(frozen=True, slots=True)
class Move:
    """A running package that is to begin anew, unless it ends before."""

    place: int
    at: float
    """From when on that is worth it."""


def soonest(draft: Draft, now: float) -> Move | None:
    """The move that is worth it first; None if there is none, or one is under way.

    A package is moved once. Of those that are worth it now it is the one that is wanted most.
    """
    if not any(draft.idle[speed] for speed in [*draft.speeds][:-1]):
        return None
    begun = draft.begun
    if any(draft.moved.get(place) for place in begun):
        return None
    best: Move | None = None
    for place in sorted(begun, key=draft.key):
        faster = _faster(draft, place)
        if faster is None or place in draft.moved:
            continue
        at = _worth_it(draft.running[place], draft.hosts[draft.running[place].host].speed / faster, now)
        if at < (best.at if best else math.inf):
            best = Move(place, at)
    return best


def _faster(draft: Draft, place: int) -> float | None:
    """The speed of the fastest hosts that have room for a package now and are faster than the one that it is on."""
    own = draft.hosts[draft.running[place].host].speed
    speeds = (speed for speed in draft.speeds if speed > own)
    return next((speed for speed in speeds if draft.room_for(place, speed) is not None), None)


def _worth_it(running: Running, part: float, now: float) -> float:
    """From when on, not before `now`, a package is worth moving to where it takes `part` of its time here.

    One that is late by l of what was expected, d, is taken to need l more (Running.expected), so d + 2l in all. It is
    worth it from `margin * part * (d + 2l) < l` on.
    """
    expected = running.expected(now) - running.since
    part *= _MARGIN
    if part * expected < running.expected(now) - now:
        return now
    took = running.end - running.since
    return max(now, running.end + part * took / (1 - 2 * part)) if part < 0.5 else math.inf
