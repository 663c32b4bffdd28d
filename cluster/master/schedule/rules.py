"""How we choose: which of the ready packages first, and on which node."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from cluster.master.schedule import forecast
from cluster.master.schedule.state import Draft, Start
from cluster.master.schedule.tasks import Task, Tasks, longest

_PATIENCE_S = 1.0  # after the time when what is waited for should have come
_AHEAD = 64  # packages that a decision looks beyond for one that may start now


@dataclass(frozen=True, slots=True)
class Earliest:
    """Each package where it ends first, on a busy node if that is sooner: the longest chain to the end goes first.

    HEFT (Topcuoglu, Hariri and Wu, IEEE TPDS 13(3), 2002), decided anew at every event.
    """

    hops: float = 0.0
    """How much the number of packages that must follow counts for the order, 0 to 1; the rest is their seconds."""
    wait_s: float = 0.0
    """A package of no more seconds, on a node of speed 1, takes any free node."""

    @property
    def name(self) -> str:
        """With what is adjustable."""
        return f"earliest end, hops {self.hops:g}, waits above {self.wait_s:g} s"

    def priorities(self, tasks: Tasks) -> tuple[float, ...]:
        """By the longest chain from each package to the end, in seconds and in packages, each of its greatest."""
        seconds = _of_greatest(longest(tasks, lambda task: task.seconds))
        hops = _of_greatest(longest(tasks, lambda task: 1.0))
        return tuple(one + self.hops * (other - one) for one, other in zip(seconds, hops, strict=True))

    def place(self, draft: Draft, now: float) -> float:
        """Start what ends sooner on a free node than on any that it could wait for."""
        again, reserved = math.inf, 0
        starts = self.starts(draft, now)
        while draft.free and reserved < _AHEAD and (start := next(starts, None)):
            if start.at > now:
                reserved += 1
                again = min(again, start.at + _PATIENCE_S)
        return again

    def starts(self, draft: Draft, now: float) -> Iterator[Start]:
        """Each package where it ends first, after those that are wanted more."""
        forecasts: dict[float, forecast.Forecast] = {}
        for place in draft.waiting():
            task = draft.tasks[place]
            speed, at, name = self._choice(draft, forecasts, place, task, now)
            if at <= now:
                draft.start(place, name, now)
            if speed in forecasts:
                forecasts[speed].reserve(task, at, name)
            yield Start(place, at, name)

    def _choice(
        self, draft: Draft, forecasts: dict[float, forecast.Forecast], place: int, task: Task, now: float
    ) -> tuple[float, float, str]:
        """The speed, time and host of the start that is best for `task`."""
        best: tuple[float, float, float, str] | None = None
        for speed in draft.speeds:
            at, name = self._soonest(draft, forecasts, place, speed, now)
            chance = (at + task.seconds / speed, speed, at, name)
            if at <= now and task.seconds <= self.wait_s:
                best = chance
                break
            if best is None or chance[0] < best[0]:
                best = chance
            if at <= now:
                break  # slower hosts end it later still
        assert best is not None
        return best[1:]

    @staticmethod
    def _soonest(
        draft: Draft, forecasts: dict[float, forecast.Forecast], place: int, speed: float, now: float
    ) -> tuple[float, str]:
        if speed not in forecasts:
            name = draft.room_for(place, speed)
            if name is not None:
                return now, name
            forecasts[speed] = forecast.of(draft, speed, now)
        return forecasts[speed].soonest(draft.tasks[place], draft.shuns(place))


def _of_greatest(values: tuple[float, ...]) -> tuple[float, ...]:
    greatest = max(values, default=0.0) or 1.0
    return tuple(value / greatest for value in values)
