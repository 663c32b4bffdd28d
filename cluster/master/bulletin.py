"""What a run's scheduler knows, published while it goes on: `cluster status` and `cluster explain` ask nobody else.

status/NAME.json in the state directory, NAME being that of the target or variant, holds the latest one of each. It
stays when the run ends. A run that ended without a word, because it was killed, no longer holds its lock.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError

from cluster import paths
from cluster.errors import InputError
from cluster.master.schedule.outlook import Outlook, accuracy, eta, outlook
from cluster.master.schedule.saved import Saved, save
from cluster.master.schedule.simulation import Stay
from cluster.master.schedule.state import State
from cluster.model import Verdict

_EVERY_S = 2.0
_SHARE = 0.01  # of a run's time that writing takes at most, and that playing the rest takes of a processor
Over = Literal["", "ended", "interrupted"]
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Past:
    """A package that has left its node."""

    stay: Stay
    expected_s: float
    """What it was expected to take there."""

    @property
    def ratio(self) -> float | None:
        """Of actual to expected seconds; None where it was not built."""
        took = self.stay.until - self.stay.since
        return took / self.expected_s if self.stay.verdict is Verdict.BUILT and self.expected_s > 0 else None


def ratios(past: Iterable[Past]) -> list[float]:
    """Of actual to expected seconds, of all that was built."""
    return [ratio for one in past if (ratio := one.ratio) is not None]


@dataclass(frozen=True, slots=True)
class Phase:
    """What a node does."""

    name: str
    since: float


@dataclass(frozen=True, slots=True)
class Bulletin:
    """What is known of a run. Times are seconds since its start."""

    __pydantic_config__ = ConfigDict(ser_json_inf_nan="strings")  # JSON has no infinity
    name: str
    """Of its target or variant."""
    run: str
    """Its directory below `runs`."""
    began: float
    """Its start, in seconds since the epoch."""
    at: float
    """When this was written."""
    over: Over
    """How it ended, if it has."""
    first_end: float
    """When it was expected to end as it began; infinity where that was not known yet."""
    state: Saved
    ahead: Outlook
    """How it goes on, as it was last played; with nothing in it before."""
    past: tuple[Past, ...] = ()
    """In the order in which they ended."""
    phases: Mapping[str, Phase] = field(default_factory=dict)
    """By node, of those that build."""

    @property
    def ratios(self) -> list[float]:
        """Of actual to expected seconds, of all that was built."""
        return ratios(self.past)


@cache
def _adapter() -> TypeAdapter[Bulletin]:
    return TypeAdapter(Bulletin)


def write(directory: Path, bulletin: Bulletin) -> None:
    """Publish `bulletin` in `directory`, which is made."""
    directory.mkdir(parents=True, exist_ok=True)
    said = _adapter().dump_json(bulletin)
    paths.publish(directory / f"{bulletin.name}.json", lambda file: file.write_bytes(said))


def read(directory: Path) -> tuple[Bulletin, ...]:
    """The bulletins in `directory`, by name; none where it is missing. Raises InputError."""
    return tuple(_read(path) for path in sorted(directory.glob("*.json")))


def _read(path: Path) -> Bulletin:
    try:
        return _adapter().validate_json(path.read_bytes())
    except ValidationError as error:
        raise InputError(f"{path} is not what this version writes", "remove it, or let a build replace it") from error


class Publisher:
    """Publishes what a run tells of its steps; at its end too, when it is left.

    The rest of the run is played on a thread of its own: for ten thousand packages that takes longer than a node
    should be kept waiting.
    """

    def __init__(self, directory: Path, name: str, run: str, expect: Callable[[float], None]) -> None:
        """`run` is its directory below `runs`; `expect` is told when the run is expected to end, in epoch seconds."""
        self._directory, self._name, self._run, self._expect = directory, name, run, expect
        self._pool = ThreadPoolExecutor(1)
        self._playing: Future[tuple[Outlook, float]] | None = None
        self._ahead: Outlook | None = None
        self._first_end = math.inf
        self._latest: tuple[State, float] | None = None
        self._zero = self._began = self._next = self._next_play = 0.0
        self._past: list[Past] = []
        self._phases: dict[str, Phase] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._latest is not None:
            self._publish(*self._latest, "ended" if kind is None else "interrupted")

    def saw(self, state: State, now: float) -> None:
        """Where the run stands at `now`, seconds since its start; after each step, and about once a second."""
        if self._latest is None:
            self._zero, self._began = time.monotonic() - now, time.time() - now
            _adapter()  # made once, and not to be counted as what a bulletin costs
        else:
            self._past += left(self._latest[0], state, now)
        self._latest = (state, now)
        self._look_ahead(state, now)
        if now >= self._next:
            start = time.monotonic()
            self._publish(state, now, "")
            self._next = now + max(_EVERY_S, (time.monotonic() - start) / _SHARE)

    def entered(self, node: str, phase: str) -> None:
        """The job of `node` is in a new phase; from any thread."""
        self._phases[node] = Phase(phase, time.monotonic() - self._zero)

    def _look_ahead(self, state: State, now: float) -> None:
        if self._playing is not None and self._playing.done():
            self._ahead, spent = self._playing.result()
            self._playing = None
            self._next_play = now + max(_EVERY_S, spent / _SHARE)
            self._tell(self._ahead)
        if self._playing is None and now >= self._next_play:
            self._playing = self._pool.submit(_played, state, now)

    def _tell(self, ahead: Outlook) -> None:
        if ahead.end == math.inf:
            return
        if self._first_end == math.inf:
            self._first_end = ahead.end
        seen = accuracy(ratios(self._past))
        self._expect(self._began + eta(ahead.end, ahead.now, seen).at)

    def _publish(self, state: State, now: float, over: Over) -> None:
        since = {running.node: running.since for running in state.running.values()}
        phases = {node: one for node, one in self._phases.copy().items() if one.since >= since.get(node, math.inf)}
        bulletin = Bulletin(
            self._name,
            self._run,
            self._began,
            now,
            over,
            self._first_end,
            save(state),
            self._ahead or Outlook(now, math.inf, {}),
            tuple(self._past),
            phases,
        )
        try:
            write(self._directory, bulletin)
        except OSError as error:  # a build is not to end for it; what it cannot do without complains itself
            log.warning("its state cannot be published: %s", error)


def _played(state: State, now: float) -> tuple[Outlook, float]:
    """The rest of a run, and the seconds that it took to find out."""
    start = time.thread_time()
    return outlook(state, now), time.thread_time() - start


def left(before: State, after: State, now: float) -> list[Past]:
    """What has left its node between two states."""
    if before.running is after.running:
        return []
    gone = ((place, one) for place, one in before.running.items() if after.running.get(place) != one)
    return [
        Past(
            Stay(one.node, before.tasks.all[place].cpv, one.since, now, after.ended.get(place, Verdict.LOST)),
            one.end - one.since,
        )
        for place, one in gone
    ]
