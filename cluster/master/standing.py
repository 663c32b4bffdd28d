"""How a run stands when somebody asks: what was published of it, carried on to this moment."""

from __future__ import annotations

import enum
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cluster.errors import InputError
from cluster.master import subject
from cluster.master.bulletin import Bulletin
from cluster.master.schedule.explanation import explain
from cluster.master.schedule.outlook import Accuracy, Eta, Outlook, accuracy, carried, eta
from cluster.master.schedule.reasons import Reason
from cluster.master.schedule.saved import restore
from cluster.master.schedule.state import State
from cluster.model import Cpv, Verdict


class Life(enum.StrEnum):
    """Whether a run goes on."""

    RUNNING = "running"
    ENDED = "ended"
    INTERRUPTED = "interrupted"
    KILLED = "killed"
    """It ended without a word."""


class Stage(enum.StrEnum):
    """Where a package is."""

    BUILDING = "building"
    READY = "ready"
    WAITING = "waiting"
    BLOCKED = "blocked"
    BUILT = "built"
    SKIPPED = "skipped"
    FAILED = "failed"
    LOST = "lost"


_ENDS = {
    Verdict.BUILT: Stage.BUILT,
    Verdict.SKIPPED: Stage.SKIPPED,
    Verdict.FAILED: Stage.FAILED,
    Verdict.LOST: Stage.LOST,
    Verdict.BLOCKED: Stage.BLOCKED,
}


@dataclass(frozen=True, slots=True)
class HostStanding:
    """How a host of a run stands."""

    name: str
    state: str
    """`building`, `idle`, or why it is given nothing (`Why`)."""
    reason: str
    """Of that, in a line; else empty."""
    nodes: int
    """None of one that is gone."""
    packages: tuple[Cpv, ...]
    """What it builds, by node."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A run at one moment. Times are seconds since its start."""

    bulletin: Bulletin
    life: Life
    now: float
    """The moment; of a run that is over the last that is known of it."""
    state: State
    ahead: Outlook
    seen: Accuracy | None
    starts: Mapping[Cpv, float]
    """When each package that has left its node had got it, the last time."""

    def counts(self) -> dict[Stage, int]:
        """How many packages are where."""
        found = Counter(self.stage(cpv) for cpv in self.state.tasks.places)
        return {stage: found[stage] for stage in Stage}

    def stage(self, cpv: Cpv) -> Stage:
        """Where a package is."""
        place = self.state.tasks.places[cpv]
        if place in self.state.ended:
            return _ENDS[self.state.ended[place]]
        if place in self.state.running:
            return Stage.BUILDING
        return Stage.WAITING if place in self.state.missing else Stage.READY

    def hosts(self) -> tuple[HostStanding, ...]:
        """Those that there are or were, by name."""
        builds: defaultdict[str, list[Cpv]] = defaultdict(list)
        for place, one in sorted(self.state.running.items(), key=lambda item: item[1].node):
            builds[one.host].append(self.state.tasks.all[place].cpv)
        return tuple(self._host(name, builds[name]) for name in sorted({*self.state.hosts, *self.state.excluded}))

    def _host(self, name: str, builds: Sequence[Cpv]) -> HostStanding:
        nodes = len(self.state.hosts[name].nodes) if name in self.state.hosts else 0
        excluded = self.state.excluded.get(name)
        if excluded is not None:
            return HostStanding(name, excluded.why.value, excluded.reason, nodes, tuple(builds))
        return HostStanding(name, "building" if builds else "idle", "", nodes, tuple(builds))

    def reason(self, cpv: Cpv) -> Reason:
        """Why a package is where it is."""
        phases = {node: phase.name for node, phase in self.bulletin.phases.items()}
        return explain(self.state, cpv, self.ahead, phases)

    def expected(self, at: float) -> Eta | None:
        """When something is to be expected that the scheduler expects `at`; None if never, or the run is over."""
        return eta(at, self.now, self.seen) if self.life is Life.RUNNING and at < math.inf else None

    @property
    def end(self) -> Eta | None:
        """When the run is to end."""
        return self.expected(self.ahead.end)

    def over(self, cpv: Cpv) -> bool:
        """Whether a package has ended, in whatever way."""
        return self.state.tasks.places[cpv] in self.state.ended

    def span(self, cpv: Cpv) -> tuple[float | None, float | None]:
        """When a package started to be built and ended, or is to; None where that is not, or not known."""
        place = self.state.tasks.places[cpv]
        if place in self.state.ended:
            return self.starts.get(cpv), self.state.since[place]
        stay = self.ahead.stays.get(cpv)
        running = self.state.running.get(place)
        start = running.since if running else self._at(stay.since if stay else math.inf)
        return start, self._at(stay.until if stay else math.inf)

    def _at(self, at: float) -> float | None:
        found = self.expected(at)
        return found.at if found else None


def standing(bulletin: Bulletin, lives: bool, wall: float) -> Standing:
    """How the run of `bulletin`, which `lives` or not, stands at `wall`, seconds since the epoch."""
    life = Life(bulletin.over or (Life.RUNNING if lives else Life.KILLED))
    now = max(bulletin.at, wall - bulletin.began) if life is Life.RUNNING else bulletin.at
    state = restore(bulletin.state)
    ahead = carried(bulletin.ahead, state, now)
    starts = {past.stay.cpv: past.stay.since for past in bulletin.past}
    return Standing(bulletin, life, now, state, ahead, accuracy(bulletin.ratios), starts)


def having(name: str, runs: Iterable[Standing]) -> list[tuple[Standing, Cpv]]:
    """The package that `name` means, in each of `runs` that has it. Raises InputError for none, and for several."""
    every = list(runs)
    (cpv,) = _meant(name, {cpv for run in every for cpv in run.state.tasks.places})
    return [(run, cpv) for run in every if cpv in run.state.tasks.places]


def _meant(name: str, cpvs: set[Cpv]) -> set[Cpv]:
    if Cpv(name) in cpvs:
        return {Cpv(name)}
    absent = ("is in no build that is known", "`cluster status --json` lists their packages")
    found = subject.among([name], cpvs, absent=absent)
    if len(found) > 1:
        raise InputError(f"{name} may be {' or '.join(sorted(found))}", f"name one, as {min(found)}")
    return found
