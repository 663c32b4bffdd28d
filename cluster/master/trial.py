"""A policy tried on a workload, in a world that is kept from going as expected, against what no schedule can beat."""

from __future__ import annotations

import gc
import math
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal

from cluster.errors import InputError
from cluster.master.schedule import bound, core, events, lookahead, simulation
from cluster.master.schedule.events import Action, Event
from cluster.master.schedule.hosts import Host
from cluster.master.schedule.peers import PEERS
from cluster.master.schedule.rules import Earliest
from cluster.master.schedule.state import State, ranked
from cluster.master.schedule.tasks import Tasks, retimed
from cluster.model import Verdict

OURS = "ours"
Policy = Literal["ours", "dpb", "hydra", "poudriere", "portage", "random"]
POLICIES: tuple[Policy, ...] = ("ours", "dpb", "hydra", "poudriere", "portage", "random")
_WIDEST = 10.0  # standard deviation of logarithms; beyond it are times that no float holds


@dataclass(frozen=True, slots=True)
class Upset:
    """What keeps a run from going as expected. The same for the same seed, whatever the policy does."""

    fail_rate: float = 0.0
    """Share of the nodes, one for each package and attempt, that are lost under their package."""
    spot_loss: float = 0.0
    """Share of the hosts that leave for good; one stays."""
    estimate_error: float = 0.0
    """Standard deviation of the logarithm of expected over true seconds."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises InputError for what is out of range."""
        for name, value in (("--fail-rate", self.fail_rate), ("--spot-loss", self.spot_loss)):
            if not 0 <= value <= 1:
                raise InputError(f"{name} {value:g} is no share", "give 0 to 1")
        if self.fail_rate == 1:
            raise InputError("--fail-rate 1 loses every node, so that nothing is ever built", "give less than 1")
        if not 0 <= self.estimate_error <= _WIDEST:
            what = f"--estimate-error {self.estimate_error:g} is no standard deviation of logarithms"
            raise InputError(what, f"give 0 to {_WIDEST:g}; with 0.7 most estimates are within a factor of two")

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.fail_rate or self.spot_loss or self.estimate_error)

    def expected(self, tasks: Tasks) -> Tasks:
        """What a schedule believes of `tasks`."""
        if not self.estimate_error:
            return tasks
        drawn = random.Random(f"{self.seed} estimates")
        return retimed(tasks, (task.seconds * drawn.lognormvariate(0, self.estimate_error) for task in tasks.all))

    def gone(self, hosts: Sequence[Host], within_s: float) -> Mapping[str, float]:
        """When each host leaves that does, in the first `within_s` seconds."""
        drawn = random.Random(f"{self.seed} hosts")
        count = min(math.floor(self.spot_loss * len(hosts) + 0.5), len(hosts) - 1)
        return {host.name: drawn.uniform(0, within_s) for host in drawn.sample(hosts, count)}


CALM = Upset()


@dataclass(frozen=True, slots=True)
class Trial:
    """How a policy did."""

    policy: Policy
    trace: simulation.Trace
    lower_bound_s: float
    """For what happened: with the work that was lost on nodes, and without the hosts that had left (schedule.bound)."""
    undisturbed_bound_s: float
    """If all had gone as expected."""
    wall_s: float
    """What the simulation took, the choices of a rule included."""
    decisions_s: tuple[float, ...]
    """What each decision took of the processor, for which alone it ever waits."""
    gone: Mapping[str, float]
    """When hosts left."""

    @property
    def makespan_s(self) -> float:
        """Until the last package was built, of the simulated time."""
        return self.trace.end

    @property
    def ratio(self) -> float:
        """Of the bound; 1 if there is nothing to do."""
        return self.makespan_s / self.lower_bound_s if self.lower_bound_s else 1.0

    @property
    def lost(self) -> int:
        """How often a package lost its node or host."""
        return sum(stay.verdict is Verdict.LOST for stay in self.trace.stays)

    @property
    def slowest_ms(self) -> float:
        """The slowest decision."""
        return 1000 * max(self.decisions_s)

    @property
    def median_ms(self) -> float:
        """The median decision."""
        return 1000 * median(self.decisions_s)

    def json(self) -> dict[str, Any]:
        """The numbers of `cluster simulate --json` that are of this trial alone."""
        return {
            "policy": self.policy,
            "makespan_s": round(self.makespan_s, 3),
            "lower_bound_s": round(self.lower_bound_s, 3),
            "ratio": round(self.ratio, 5),
            "packages": len(self.trace.state.tasks),
            "lost": self.lost,
            "wall_s": round(self.wall_s, 3),
            "undisturbed_bound_s": round(self.undisturbed_bound_s, 3),
            "decisions": len(self.decisions_s),
            "median_decision_ms": round(self.median_ms, 3),
            "slowest_decision_ms": round(self.slowest_ms, 3),
        }


def run(policy: Policy, tasks: Tasks, hosts: Sequence[Host], upset: Upset = CALM) -> Trial:
    """Build `tasks` by `policy` on `hosts` as `upset` lets it, without building.

    Ours chooses its rule by looking ahead, and again whenever the core asks for it; others go by one to the end.
    """
    undisturbed = bound.lower(tasks, hosts)
    gone = upset.gone(hosts, undisturbed)
    seconds = tuple(task.seconds for task in tasks.all)
    leaving = tuple(events.Left(at, name) for name, at in gone.items())
    world = simulation.World(seconds, upset.fail_rate, upset.seed, leaving)
    spent = retimed(tasks, (world.whole(place) * one for place, one in enumerate(seconds)))
    watch = _Watch()
    began = time.perf_counter()
    with _nothing_collected():
        trace = _trace(policy, upset.expected(tasks), hosts, world, watch)
    wall_s = time.perf_counter() - began
    return Trial(policy, trace, bound.lower(spent, hosts, gone), undisturbed, wall_s, tuple(watch.took), gone)


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Without Python's collector of circles, of which a state has none: it would look at all there is in a decision."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _trace(
    policy: Policy, tasks: Tasks, hosts: Sequence[Host], world: simulation.World, watch: _Watch
) -> simulation.Trace:
    rule = Earliest() if policy == OURS else PEERS[policy]
    state = core.start(tasks, hosts, ranked(rule, tasks), attempts=sys.maxsize, moves=policy == OURS)
    if policy != OURS:
        return simulation.run(state, world, decide=watch)
    chosen = core.reranked(state, lookahead.choose(state, 0.0))
    return simulation.run(chosen, world, decide=watch, rethink=lookahead.choose)


@dataclass(slots=True)
class _Watch:
    """Decides, and takes the time."""

    took: list[float] = field(default_factory=list)

    def __call__(self, state: State, event: Event) -> tuple[State, tuple[Action, ...]]:
        began = time.thread_time()
        decided = core.schedule(state, event)
        self.took.append(time.thread_time() - began)
        return decided
