"""When there will be room for a package, seen from one moment, with what is to wait for it taken into account."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections.abc import Collection
from typing import Protocol

from cluster.master.schedule.hosts import Host
from cluster.master.schedule.state import Draft
from cluster.master.schedule.tasks import Task

_NEVER = (math.inf, "")


class Forecast(Protocol):
    """Of the hosts of one speed."""

    def soonest(self, task: Task, but: Collection[str] = ()) -> tuple[float, str]:
        """When and on which host `task` could start, `but` those excepted; infinity if there is no other."""
        ...

    def reserve(self, task: Task, at: float, name: str) -> None:
        """Count on it that `task` starts then and there, as `soonest` said."""
        ...


def of(draft: Draft, speed: float, now: float) -> Forecast:
    """The forecast for the hosts of `speed`, of which there are some."""
    return _Hosts(draft, speed, now) if draft.limited[speed] else _Nodes(draft, speed, now)


class _Nodes:
    """Where a node is all that there is to wait for."""

    def __init__(self, draft: Draft, speed: float, now: float) -> None:
        self._speed = speed
        running = (draft.running[place] for _, place in draft.busy[speed])
        self._free = [(one.expected(now), one.host) for one in running]
        self._free += [(now, name) for name in draft.idle[speed] for _ in draft.rooms[name].nodes]
        heapq.heapify(self._free)

    def soonest(self, task: Task, but: Collection[str] = ()) -> tuple[float, str]:
        if not but:
            return self._free[0]
        return min((one for one in self._free if one[1] not in but), default=_NEVER)

    def reserve(self, task: Task, at: float, name: str) -> None:
        end = (at + task.seconds / self._speed, name)
        if self._free[0] == (at, name):
            heapq.heapreplace(self._free, end)
        else:
            self._free[self._free.index((at, name))] = end
            heapq.heapify(self._free)


class _Hosts:
    """Where nodes share memory, disk and what may be there once only.

    Every package that waits has its place in time, and none that is wanted less puts it off: conservative
    backfilling (Mu'alem and Feitelson, IEEE TPDS 12(6), 2001).
    """

    def __init__(self, draft: Draft, speed: float, now: float) -> None:
        hosts = [host for host in draft.hosts.values() if host.speed == speed and host.name not in draft.drained]
        ends: dict[str, list[tuple[float, int]]] = {host.name: [] for host in hosts}
        for _, place in draft.busy[speed]:
            running = draft.running[place]
            ends[running.host].append((running.expected(now), place))
        self._lines = {host.name: _Line(draft, host, sorted(ends[host.name]), now) for host in hosts}

    def soonest(self, task: Task, but: Collection[str] = ()) -> tuple[float, str]:
        lines = ((line.soonest(task), name) for name, line in self._lines.items() if name not in but)
        return min(lines, default=_NEVER)

    def reserve(self, task: Task, at: float, name: str) -> None:
        self._lines[name].reserve(task, at)


class _Line:
    """What one host will have left, step by step."""

    def __init__(self, draft: Draft, host: Host, ends: list[tuple[float, int]], now: float) -> None:
        self._host = host
        self._times, self._rooms = [now], [draft.rooms[host.name]]
        for end, place in ends:
            self._times.append(end)
            self._rooms.append(self._rooms[-1].given(draft.tasks[place], host, draft.running[place].node))

    def soonest(self, task: Task) -> float:
        """From when on there is room for as long as `task` takes: at the latest when nothing else is there."""
        start: float | None = None
        for time, room in zip(self._times, self._rooms, strict=True):
            if start is not None and time >= start + self._seconds(task):
                break
            if not room.fits(task, self._host):
                start = None
            elif start is None:
                start = time
        assert start is not None
        return start

    def reserve(self, task: Task, at: float) -> None:
        first, last = self._split(at), self._split(at + self._seconds(task))
        for index in range(first, last):
            self._rooms[index] = self._rooms[index].taken(task, self._host)

    def _split(self, time: float) -> int:
        """The place of the step that begins at `time`, made if there is none."""
        index = bisect_right(self._times, time)
        if self._times[index - 1] != time:
            self._times.insert(index, time)
            self._rooms.insert(index, self._rooms[index - 1])
            return index
        return index - 1

    def _seconds(self, task: Task) -> float:
        return task.seconds / self._host.speed
