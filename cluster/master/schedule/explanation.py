"""Why a package is where it is: decided from the state that the scheduler decides over, and by its very rule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cluster.master.schedule.outlook import Outlook
from cluster.master.schedule.reasons import (
    Behind,
    Blocked,
    Building,
    Crowded,
    Ended,
    Patient,
    Queued,
    Reason,
    Resource,
    Starting,
    Turn,
    Unbegun,
    Waiting,
)
from cluster.master.schedule.state import Draft, Start, State
from cluster.model import Cpv, Verdict

_NONE: Mapping[str, str] = MappingProxyType({})
_FOLLOWED = 64  # packages that are to start later; the rule itself looks no further


def explain(state: State, cpv: Cpv, ahead: Outlook, phases: Mapping[str, str] = _NONE) -> Reason:
    """The one reason why `cpv` is where it is at `ahead.now`. KeyError if the run has no such package.

    `phases` are those of the nodes. Takes as long as one decision of the rule.
    """
    place = state.tasks.places[cpv]
    if place in state.ended:
        return _ended(state, place)
    if place in state.running:
        return _building(state, place, ahead.now, phases)
    if place in state.missing:
        return _waiting(state, place, ahead, phases)
    return _Ready(state, place, ahead).reason()


def _ended(state: State, place: int) -> Reason:
    verdict, at = state.ended[place], state.since[place]
    if verdict is not Verdict.BLOCKED:
        return Ended(verdict, at, state.tried.get(place, 0))
    cause = _cause(state, place)
    return Blocked(state.tasks.all[cause].cpv, state.ended[cause], at)


def _cause(state: State, place: int) -> int:
    """What a blocked package needs, directly or not, and was the first not to be built."""
    left, seen = [place], {place}
    while left:
        needs = state.tasks.needs[left.pop()]
        new = {need for need in needs if need in state.ended and not state.ended[need].is_there} - seen
        seen |= new
        left.extend(new)
    causes = (one for one in seen if state.ended[one] is not Verdict.BLOCKED)
    return min(causes, key=lambda one: (state.since[one], one))


def _building(state: State, place: int, now: float, phases: Mapping[str, str]) -> Building:
    one = state.running[place]
    expected = one.end - one.since
    part = (now - one.since) / expected if expected else 1.0
    return Building(one.node, one.since, phases.get(one.node, ""), part, state.tried[place])


def _waiting(state: State, place: int, ahead: Outlook, phases: Mapping[str, str]) -> Waiting:
    needs = [need for need in state.tasks.needs[place] if not (need in state.ended and state.ended[need].is_there)]
    ends = {need: ahead.stays[cpv].until for need in needs if (cpv := state.tasks.all[need].cpv) in ahead.stays}
    last = max(needs, key=lambda need: ends.get(need, math.inf))
    cpv = state.tasks.all[last].cpv
    need_now = _building(state, last, ahead.now, phases) if last in state.running else Unbegun(_starts(ahead, cpv))
    return Waiting(state.since.get(place, 0.0), cpv, need_now, len(needs) - 1)


@dataclass(frozen=True, slots=True)
class _Ready:
    """A package that could start, and what the rule has in mind with it."""

    state: State
    place: int
    ahead: Outlook

    def reason(self) -> Reason:
        draft, now = Draft(self.state), self.ahead.now
        starts = self.state.ranking.rule.starts(draft, now)
        first: dict[str, int] = {}
        """What is wanted most, of what waits for each host."""
        followed = 0
        while followed < _FOLLOWED:
            if not draft.may and any(draft.idle.values()):
                return Turn(self._since, self.state.allowed or 0)
            start = next(starts, None) if self.state.pools else None
            if start is None:
                return self._undecided(draft)
            if start.place == self.place:
                return self._decided(draft, start, first)
            if start.at > now:
                first.setdefault(start.host, start.place)
                followed += 1
        return self._queued(self._expected)

    def _decided(self, draft: Draft, start: Start, first: Mapping[str, int]) -> Reason:
        now, seconds = self.ahead.now, draft.tasks[self.place].seconds
        if start.at <= now:
            return Starting(self._since, start.host)
        ends = {
            name: now + seconds / speed
            for speed, names in draft.idle.items()
            for name in names
            if draft.fits(self.place, name)
        }
        if not ends:
            return self._without_room(draft, start.host, start.at)
        name = min(ends, key=lambda name: ends[name])
        end = start.at + seconds / draft.hosts[start.host].speed
        if ends[name] >= end:
            return Patient(self._since, start.host, start.at, end, name, ends[name])
        return Behind(self._since, name, self.state.tasks.all[first[name]].cpv, start.at)

    def _undecided(self, draft: Draft) -> Reason:
        """The rule takes what comes, and nothing that is free suits."""
        shuns = draft.shuns(self.place)
        idle = next((name for names in draft.idle.values() for name in names if name not in shuns), None)
        return self._queued(self._expected) if idle is None else self._without_room(draft, idle, self._expected)

    def _without_room(self, draft: Draft, name: str, at: float) -> Reason:
        """Why `name` has no room before `at`."""
        room, host, task = draft.rooms[name], draft.hosts[name], draft.tasks[self.place]
        if not room.nodes:
            return self._queued(at)
        needs = {"memory": min(task.memory_mib, host.memory_mib), "disk": min(task.disk_mib, host.disk_mib)}
        free = {"memory": room.memory_mib, "disk": room.disk_mib}
        lacks: Resource = (
            "memory" if needs["memory"] > free["memory"] else "disk" if needs["disk"] > free["disk"] else "company"
        )
        until = self._until(draft, name, at)
        return Crowded(self._since, name, lacks, needs.get(lacks, 0.0), free.get(lacks, 0.0), until, at)

    def _until(self, draft: Draft, name: str, at: float) -> Cpv | None:
        """What ends last on a host before `at`."""
        there = [place for _, place in draft.busy[draft.hosts[name].speed] if draft.running[place].host == name]
        ends = {place: draft.running[place].expected(self.ahead.now) for place in there}
        before = [place for place, end in ends.items() if end <= at]
        return draft.tasks[max(before, key=lambda place: ends[place])].cpv if before else None

    def _queued(self, at: float) -> Queued:
        turn = next(turn for turn, (_, place) in enumerate(self.state.ready, 1) if place == self.place)
        return Queued(self._since, turn, len(self.state.ready), at)

    @property
    def _since(self) -> float:
        return self.state.since.get(self.place, 0.0)

    @property
    def _expected(self) -> float:
        return _starts(self.ahead, self.state.tasks.all[self.place].cpv)


def _starts(ahead: Outlook, cpv: Cpv) -> float:
    return ahead.stays[cpv].since if cpv in ahead.stays else math.inf
