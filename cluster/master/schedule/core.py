"""The state of a run, and what follows from an event: `schedule(state, event) -> state, actions`.

No I/O, no clock: events bring the time. A build and a simulation go through the same code.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from immutables import Map

from cluster.master.schedule import moves
from cluster.master.schedule.events import (
    Abandon,
    Action,
    Adopted,
    Allowed,
    Block,
    Dispatch,
    Drained,
    Event,
    Fail,
    Finished,
    Joined,
    Left,
    Resumed,
    Rethink,
    Tick,
    Wake,
)
from cluster.master.schedule.hosts import Exclusion, Host, Why, capacity
from cluster.master.schedule.state import Draft, Pool, Ranking, Room, State
from cluster.master.schedule.tasks import Tasks
from cluster.model import Cpv, Verdict

_DRIFT = 0.05  # of what is left


def start(
    tasks: Tasks,
    hosts: Iterable[Host],
    ranking: Ranking,
    attempts: int,
    *,
    losses: int | None = None,
    moves: bool = False,
) -> State:
    """The state of a run in which nothing has happened yet; the parameters are what State says."""
    missing = Map({place: len(needs) for place, needs in enumerate(tasks.needs) if needs})
    ready = sorted((ranking.keys[place], place) for place, needs in enumerate(tasks.needs) if not needs)
    left_s = sum(task.seconds for task in tasks.all)
    state = State(
        tasks, ranking, attempts, losses=losses, moves=moves, missing=missing, ready=tuple(ready), left_s=left_s
    )
    for host in hosts:
        state = _with_host(state, host)
    return state


def schedule(state: State, event: Event) -> tuple[State, tuple[Action, ...]]:
    """What follows from `event`: another state, and what is to be done."""
    match event:
        case Joined(_, host) if host.name not in state.hosts:
            return _filled(_rehosted(_readmitted(_with_host(state, host), host.name), host), event.at)
        case Left(_, name, excused, reason) if name in state.hosts:
            left, failed = _without_host(state, name, event.at, excused=excused)
            left = _excluded(left, name, Exclusion(Why.GONE, reason))
            return _filled(_rehosted(left, *(() if name in state.drained else (state.hosts[name],))), event.at, failed)
        case Drained(_, name, exclusion) if name in state.hosts and name not in state.drained:
            drained = _excluded(_drained(state, name), name, exclusion)
            return _filled(_rehosted(drained, state.hosts[name]), event.at)
        case Resumed(_, name) if name in state.drained:
            return _filled(_rehosted(_readmitted(_resumed(state, name), name), state.hosts[name]), event.at)
        case Allowed(_, nodes):
            return _filled(Draft(replace(state, allowed=nodes)), event.at)
        case Adopted(_, ranking):
            return _filled(Draft(reranked(state, ranking)), event.at)
        case Finished(_, cpv, verdict):
            draft, blocked = _finished(state, state.tasks.places[cpv], event.at, verdict)
            return _filled(draft, event.at, blocked)
        case Tick() | Joined() | Left() | Drained() | Resumed():
            return _filled(Draft(state), event.at)


def doubted(state: State, cpv: Cpv, verdict: Verdict) -> bool:
    """Whether `cpv`, which is running and ends like that, is tried once more on another host before it has failed.

    A first failure on a host that is not trusted may be that host's, as long as there is another one to tell.
    """
    place = state.tasks.places[cpv]
    if verdict is not Verdict.FAILED or place in state.failed or place not in state.running:
        return False
    host = state.hosts[state.running[place].host]
    return not host.trusted and any(other is not host for other in state.usable)


def is_moving(state: State, cpv: Cpv) -> bool:
    """Whether `cpv` is being abandoned where it runs, to begin anew elsewhere: if it is lost it is nobody's fault."""
    place = state.tasks.places[cpv]
    return place in state.running and state.moved.get(place) == state.running[place].host


def _filled(draft: Draft, now: float, actions: tuple[Action, ...] = ()) -> tuple[State, tuple[Action, ...]]:
    """Give idle nodes what the rule has for them."""
    again = draft.rule.place(draft, now)
    move = moves.soonest(draft, now) if draft.moves else None
    if move is not None and move.at <= now:
        running = draft.running[move.place]
        draft.moved[move.place] = running.host
        actions = (*actions, Abandon(draft.tasks[move.place].cpv, running.node))
    elif move is not None:
        again = min(again, move.at)
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
    if place not in state.running:
        return draft, _late(state, draft, place, now, verdict)
    running = draft.stop(place)
    if verdict is Verdict.LOST and is_moving(state, state.tasks.all[place].cpv):
        draft.moved[place] = ""
        draft.tried[place] -= 1
        _shun(state, draft, place, running.host)
        draft.open(place, now)
        return draft, ()
    if verdict is Verdict.LOST and draft.tried[place] == state.attempts - 1:  # a last one is left
        _shun(state, draft, place, running.host)
    if doubted(state, state.tasks.all[place].cpv, verdict):
        draft.failed[place] = running.host
        _shun(state, draft, place, running.host)
        draft.open(place, now)
        return draft, ()
    if verdict is Verdict.BUILT:
        off_s = abs(now - running.end) * state.hosts[running.host].speed
        draft.drift_s += off_s
        draft.off_s += off_s
    return draft, _ended(state, draft, place, now, verdict)


def _late(state: State, draft: Draft, place: int, now: float, verdict: Verdict) -> tuple[Block, ...]:
    """What comes of a package that waits to be tried again, or has ended, and now comes from where it was lost."""
    if not verdict.is_there or place in state.ended or place in state.missing:
        return ()
    draft.close(place)
    return _ended(state, draft, place, now, verdict)


def _shun(state: State, draft: Draft, place: int, name: str) -> None:
    """Keep a package from the host `name`, as long as there are others."""
    draft.shunned[place] = draft.shuns(place) | {name}
    _relent(state, draft)


def _relent(state: State, draft: Draft) -> None:
    """What was kept from every host there is may have any."""
    usable = {host.name for host in state.usable}
    for place in [place for place, names in draft.shunned.items() if usable <= names]:
        del draft.shunned[place]


def _rehosted(state: State, *changed: Host) -> Draft:
    """After `changed` came or went: as if all that they could do of what is left took longer or shorter."""
    draft = Draft(state)
    _relent(state, draft)
    if changed:
        every = {host.name: host for host in (*state.usable, *changed)}.values()
        draft.drift_s += state.left_s * capacity(changed) / capacity(every)
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
    room = Room(host.nodes, host.memory_mib, host.disk_mib)
    return _pooled(replace(state, hosts=state.hosts.set(host.name, host), rooms=state.rooms.set(host.name, room)), host)


def _pooled(state: State, host: Host) -> State:
    """With `host` among those that are given packages."""
    pools = {pool.speed: pool for pool in state.pools}
    pool = pools.get(host.speed, Pool(host.speed))
    limited = pool.limited or state.tasks.apart or min(host.memory_mib, host.disk_mib) < math.inf
    idle = (*pool.idle, host.name) if state.rooms[host.name].nodes else pool.idle
    there = ((running.end, place) for place, running in state.running.items() if running.host == host.name)
    pools[host.speed] = replace(pool, idle=idle, busy=tuple(sorted((*pool.busy, *there))), limited=limited)
    return replace(state, pools=tuple(pools[speed] for speed in sorted(pools, reverse=True)))


def _drained(state: State, name: str) -> State:
    left = (
        replace(
            pool,
            idle=tuple(other for other in pool.idle if other != name),
            busy=tuple((end, place) for end, place in pool.busy if state.running[place].host != name),
        )
        for pool in state.pools
    )
    pools = tuple(pool for pool in left if pool.idle or pool.busy)
    return replace(state, pools=pools, drained=state.drained | {name})


def _resumed(state: State, name: str) -> State:
    return _pooled(replace(state, drained=state.drained - {name}), state.hosts[name])


def _excluded(state: State, name: str, exclusion: Exclusion) -> State:
    return replace(state, excluded=state.excluded.set(name, exclusion))


def _readmitted(state: State, name: str) -> State:
    return replace(state, excluded=state.excluded.delete(name)) if name in state.excluded else state


def _without_host(state: State, name: str, now: float, *, excused: bool) -> tuple[State, tuple[Action, ...]]:
    draft = Draft(_drained(state, name))
    actions: list[Action] = []
    for place in [place for place, running in state.running.items() if running.host == name]:
        draft.stop(place)
        draft.tried[place] -= 1  # which of all that it built took it down, if any did, nobody knows
        if not excused:
            draft.bereft[place] = (*draft.bereft.get(place, ()), name)
        actions += _bereaved(state, draft, place, now)
    for place, names in draft.shunned.items():  # should it come back it is another one
        draft.shunned[place] = names - {name}
    left = draft.frozen()
    gone = replace(
        left,
        hosts=left.hosts.delete(name),
        rooms=left.rooms.delete(name),
        drained=left.drained - {name},
    )
    return gone, tuple(actions)


def _bereaved(state: State, draft: Draft, place: int, now: float) -> tuple[Action, ...]:
    """What comes of a package whose host went away: it is tried elsewhere, or fails if that happened too often."""
    hosts = draft.bereft.get(place, ())
    if state.losses is None or len(hosts) < state.losses:
        draft.open(place, now)
        return ()
    return (Fail(state.tasks.all[place].cpv, hosts), *_ended(state, draft, place, now, Verdict.FAILED))
