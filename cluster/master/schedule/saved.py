"""The state of a run as plain values that can be written, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from immutables import Map

from cluster.master.schedule import lookahead, tasks
from cluster.master.schedule.hosts import Exclusion, Host
from cluster.master.schedule.state import Pool, Room, Running, State, by_host, ranked
from cluster.master.schedule.tasks import Task
from cluster.model import Verdict


@dataclass(frozen=True, slots=True)
class Saved:
    """What of a State does not follow from the rest; packages are places in `tasks`, as there."""

    tasks: tuple[Task, ...]
    rule: str
    """The name of the one that is gone by."""
    attempts: int
    losses: int | None
    allowed: int | None
    hosts: tuple[Host, ...]
    rooms: Mapping[str, Room]
    pools: tuple[Pool, ...]
    drained: frozenset[str]
    excluded: Mapping[str, Exclusion]
    running: Mapping[int, Running]
    tried: Mapping[int, int]
    shunned: Mapping[int, frozenset[str]]
    failed: Mapping[int, str]
    bereft: Mapping[int, tuple[str, ...]]
    moves: bool
    moved: Mapping[int, str]
    ended: Mapping[int, Verdict]
    since: Mapping[int, float]
    left_s: float
    drift_s: float
    off_s: float


def save(state: State) -> Saved:
    """`state`, without what `restore` can tell."""
    return Saved(
        tasks=state.tasks.all,
        rule=state.ranking.rule.name,
        attempts=state.attempts,
        losses=state.losses,
        allowed=state.allowed,
        hosts=tuple(state.hosts.values()),
        rooms=dict(state.rooms),
        pools=state.pools,
        drained=state.drained,
        excluded=dict(state.excluded),
        running=dict(state.running),
        tried=dict(state.tried),
        shunned=dict(state.shunned),
        failed=dict(state.failed),
        bereft=dict(state.bereft),
        moves=state.moves,
        moved=dict(state.moved),
        ended=dict(state.ended),
        since=dict(state.since),
        left_s=state.left_s,
        drift_s=state.drift_s,
        off_s=state.off_s,
    )


def restore(saved: Saved) -> State:
    """The state that was saved. Raises InputError where its rule is none that is known."""
    todo = tasks.of(saved.tasks)
    ranking = ranked(lookahead.named(saved.rule), todo)
    there = {place for place, verdict in saved.ended.items() if verdict.is_there}
    missing = {place: len(set(needs) - there) for place, needs in enumerate(todo.needs)}
    waiting = (p for p, count in missing.items() if not count and p not in saved.running and p not in saved.ended)
    return State(
        todo,
        ranking,
        saved.attempts,
        losses=saved.losses,
        allowed=saved.allowed,
        hosts=Map({host.name: host for host in saved.hosts}),
        rooms=Map(saved.rooms),
        pools=saved.pools,
        drained=saved.drained,
        excluded=Map(saved.excluded),
        missing=Map({place: count for place, count in missing.items() if count}),
        ready=tuple(sorted((ranking.keys[place], place) for place in waiting)),
        running=Map(saved.running),
        there=by_host(saved.running),
        tried=Map(saved.tried),
        shunned=Map(saved.shunned),
        failed=Map(saved.failed),
        bereft=Map(saved.bereft),
        moves=saved.moves,
        moved=Map(saved.moved),
        ended=Map(saved.ended),
        since=Map(saved.since),
        left_s=saved.left_s,
        drift_s=saved.drift_s,
        off_s=saved.off_s,
    )
