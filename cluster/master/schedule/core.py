"""The state of a run, and what follows from an event: `schedule(state, event) -> state, actions`.

No I/O, no clock: events bring the time. A build and a simulation go through the same code.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from immutables import Map

from cluster.master.schedule.events import (
    Action,
    Adopted,
    Allowed,
    Block,
    Dispatch,
    Event,
    Finished,
    Joined,
    Left,
    Rethink,
    Tick,
    Wake,
)
from cluster.master.schedule.hosts import Host, capacity
from cluster.master.schedule.state import Draft, Pool, Ranking, Room, State
from cluster.master.schedule.tasks import Tasks
from cluster.model import Verdict

_DRIFT = 0.05  # of what is left


def start(tasks: Tasks, hosts: Iterable[Host], ranking: Ranking, attempts: int) -> State:
    """The state of a run in which nothing has happened yet."""
    missing = Map({place: len(needs) for place, needs in enumerate(tasks.needs) if needs})
    ready = sorted((ranking.keys[place], place) for place, needs in enumerate(tasks.needs) if not needs)
    left_s = sum(task.seconds for task in tasks.all)
    state = State(tasks, ranking, attempts, missing=missing, ready=tuple(ready), left_s=left_s)
    for host in hosts:
        state = _with_host(state, host)
    return state


def schedule(state: State, event: Event) -> tuple[State, tuple[Action, ...]]:
    """What follows from `event`: another state, and what is to be done."""
    match event:
        case Joined(_, host):
            return _filled(_rehosted(_with_host(state, host), host), event.at)
        case Left(_, name):
            return _filled(_rehosted(_without_host(state, name, event.at), state.hosts[name]), event.at)
        case Allowed(_, nodes):
            return _filled(Draft(replace(state, allowed=nodes)), event.at)
        case Adopted(_, ranking):
            return _filled(Draft(reranked(state, ranking)), event.at)
        case Finished(_, cpv, verdict):
            draft, blocked = _finished(state, state.tasks.places[cpv], event.at, verdict)
            return _filled(draft, event.at, blocked)
        case Tick(at):
            return _filled(Draft(state), at)


def _filled(draft: Draft, now: float, actions: tuple[Action, ...] = ()) -> tuple[State, tuple[Action, ...]]:
    """Give idle nodes what the rule has for them."""
    again = draft.rule.place(draft, now)
    wake = (Wake(again),) if again < math.inf else ()
    started = (
        Dispatch(draft.tasks[place].cpv, draft.running[place].node, draft.tried[place]) for place in draft.started
    )
    actions = (*actions, *started, *wake, *_rethought(draft))
    return draft.frozen(), actions


def _rethought(draft: Draft) -> tuple[Rethink, ...]:
    """After all else, so that an Adopted that is dealt with at once finds it done."""
    if draft.drift_s <= _DRIFT * max(0.0, draft.left_s) or not draft.unbegun:
        return ()
    draft.drift_s = 0.0
    return (Rethink(),)


def reranked(state: State, ranking: Ranking) -> State:
    """`state` with another rule, which takes effect at the next event."""
    ready = tuple(sorted((ranking.keys[place], place) for _, place in state.ready))
    return replace(state, ranking=ranking, ready=ready, drift_s=0.0)


def _finished(state: State, place: int, now: float, verdict: Verdict) -> tuple[Draft, tuple[Block, ...]]:
    draft = Draft(state)
    running = draft.stop(place)
    if verdict is Verdict.BUILT:
        off_s = abs(now - running.end) * state.hosts[running.host].speed
        draft.drift_s += off_s
        draft.off_s += off_s
    return draft, _ended(state, draft, place, now, verdict)


def _rehosted(state: State, host: Host) -> Draft:
    """After `host` came or went: as if all that it could do of what is left took longer or shorter."""
    draft = Draft(state)
    every = {**state.hosts, host.name: host}.values()
    draft.drift_s += state.left_s * capacity([host]) / capacity(every)
    return draft


def _ended(state: State, draft: Draft, place: int, now: float, verdict: Verdict) -> tuple[Block, ...]:
    """What comes of the end of a package for those that need it."""
    if verdict is Verdict.LOST and draft.tried[place] < state.attempts:
        draft.open(place, now)
        return ()
    draft.end(place, now, verdict)
    if verdict.is_there:
        for dependent in state.tasks.dependents[place]:
            left = draft.missing[dependent] - 1
            if left:
                draft.missing[dependent] = left
            else:
                del draft.missing[dependent]
                draft.open(dependent, now)
        return ()
    blocked = sorted(_downstream(state, draft, place), key=lambda other: state.tasks.all[other].cpv)
    for other in blocked:
        draft.end(other, now, Verdict.BLOCKED)
    return tuple(Block(state.tasks.all[other].cpv, state.tasks.all[place].cpv) for other in blocked)


def _downstream(state: State, draft: Draft, failed: int) -> set[int]:
    """What cannot be built without `failed`, and was not known to be so before."""
    found: set[int] = set()
    left = [failed]
    while left:
        new = {other for other in state.tasks.dependents[left.pop()] if other not in draft.ended and other not in found}
        found |= new
        left.extend(new)
    return found


def _with_host(state: State, host: Host) -> State:
    pools = {pool.speed: pool for pool in state.pools}
    pool = pools.get(host.speed, Pool(host.speed))
    limited = pool.limited or state.tasks.apart or min(host.memory_mib, host.disk_mib) < math.inf
    pools[host.speed] = replace(pool, idle=(*pool.idle, host.name), limited=limited)
    return replace(
        state,
        hosts=state.hosts.set(host.name, host),
        rooms=state.rooms.set(host.name, Room(host.nodes, host.memory_mib, host.disk_mib)),
        pools=tuple(pools[speed] for speed in sorted(pools, reverse=True)),
    )


def _without_host(state: State, name: str, now: float) -> State:
    draft = Draft(state)
    for place in [place for place, running in state.running.items() if running.host == name]:
        draft.stop(place)
        draft.tried[place] -= 1  # it was not the package's fault, nor its node's
        draft.open(place, now)
    draft.idle[state.hosts[name].speed].remove(name)
    state = draft.frozen()
    pools = tuple(pool for pool in state.pools if pool.idle or pool.busy)
    return replace(state, hosts=state.hosts.delete(name), rooms=state.rooms.delete(name), pools=pools)
