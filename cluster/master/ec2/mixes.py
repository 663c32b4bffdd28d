"""Which instances to rent: mixes of them, each played to its end by the core that schedules builds. Pure.

A mix is paid by the second from the request for its instances on, each until it has nothing more to do. Of all that
were played those are given that no other one of their market beats in both time and cost.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product

from cluster.master.ec2.catalogue import Catalogue, Offer
from cluster.master.ec2.rental import Market
from cluster.master.schedule import advice, bound, core, critical, simulation
from cluster.master.schedule.hosts import Host
from cluster.master.schedule.rules import Earliest
from cluster.master.schedule.simulation import Trace
from cluster.master.schedule.state import ranked
from cluster.master.schedule.tasks import Task, Tasks, retimed

MARKETS = (Market.ON_DEMAND, Market.SPOT)
HOUR_S = 3600.0
_SHOWN = 8  # mixes of a market
_STEP = 0.02  # of time or cost: what gains no more is not worth to be shown, or played
_NEAR = 1.005  # of the bound: no other rule is tried then
_PACKAGES = 24_000  # that are played through for each way of making mixes; they take one to two seconds
_AT_LEAST = 8  # runs, however many packages there are
_SLOTS = (24.0, 16.0, 12.0, 8.0, 6.0, 4.0, 3.0, 2.0, 1.0, 0.5)  # for a node, of other hosts: alike fleets share a run
_MANY = 16.0  # compiles at once, of a host that does nothing else
_HELPERS = (1, 2, 4)  # of them
_PARTNERS = (1, 2, 4, 8)  # instances of each of two types that are mixed


AtBest = tuple[float, float]
"""Seconds and USD that a fleet cannot beat."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What may not be exceeded. None for no limit."""

    hosts: int = 16
    price: float | None = None
    """USD an hour of all instances together."""
    budget: float | None = None
    """USD in all."""
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True)
class Fleet:
    """Instances that are rented together."""

    building: tuple[tuple[Offer, int], ...]
    """Types and how many of each, those with more nodes last."""
    compiling: tuple[Offer, int] | None = None
    """Those that have no nodes and lend all their processors to the others' compiles (distcc)."""

    @property
    def all(self) -> tuple[tuple[Offer, int], ...]:
        """Every type and how many of it."""
        return (*self.building, self.compiling) if self.compiling else self.building

    @property
    def count(self) -> int:
        """How many instances."""
        return sum(count for _, count in self.all)

    @property
    def nodes(self) -> int:
        """How many packages are built at once."""
        return sum(count * offer.nodes for offer, count in self.building)

    @property
    def capacity(self) -> float:
        """What its nodes do together, in seconds of work a second."""
        return sum(count * offer.nodes * offer.speed for offer, count in self.building)

    def at_least(self, tasks: Tasks) -> float:
        """`bound.lower` of `tasks` on its hosts, without making them: it is asked of thousands of fleets."""
        work_s, chain_s = bound.amounts(tasks)
        return max(work_s / self.capacity, chain_s / max(offer.speed for offer, _ in self.building))

    def usd_h(self, market: Market, disk_usd_h: float) -> float:
        """Of all of them, with their disks."""
        return sum(count * (offer.price(market) + disk_usd_h) for offer, count in self.all)

    def hosts(self) -> tuple[Host, ...]:
        """Those that build, in the order in which they are wanted to stay: the smallest first."""
        return tuple(
            Host(
                name := f"{offer.type}#{number}",
                tuple(f"{name}:{node}" for node in range(1, offer.nodes + 1)),
                offer.speed,
                offer.memory_mib,
            )
            for offer, count in self.building
            for number in range(1, count + 1)
        )


@dataclass(frozen=True, slots=True)
class Mix:
    """What is rented, and what comes of it."""

    fleet: Fleet
    market: Market
    finish_s: float
    """From the request for the instances to the end of the last package; of spot ones what is to be expected."""
    cost_usd: float
    usd_h: float
    """While all of them run."""
    bound_s: float
    """What no schedule on these instances can beat."""
    kept_s: Mapping[str, float]
    """By host, how long it is paid."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """All that can be said."""

    mixes: tuple[Mix, ...]
    """Of each market from the cheapest to the fastest."""
    lower_bound_s: float
    """What no mix within the limits can beat."""
    cheapest: Mix | None
    """Of all that was played, also beyond budget and deadline: what a message says where nothing is within them."""
    soonest: Mix | None


def propose(
    tasks: Tasks, offers: Sequence[Offer], catalogue: Catalogue, limits: Limits, markets: Sequence[Market]
) -> Proposal:
    """The mixes of `offers` on which `tasks` end soonest for what they cost, within `limits`."""
    search = _Search(tasks, catalogue, limits)
    for market in markets:
        search.play_all(market, _alone(offers, limits.hosts))
        search.play_all(market, _paired(offers, limits.hosts))
        search.play_all(market, _near(_front(search.played[market]), offers, limits.hosts))
        search.play_all(market, _helped(_front(search.played[market]), offers, limits.hosts))
    found = tuple(mix for market in markets for mix in _thinned(list(map(search.refined, search.front(market)))))
    every = [mix for mixes in search.played.values() for mix in mixes]
    return Proposal(
        mixes=found,
        lower_bound_s=search.lower_bound(offers, markets),
        cheapest=min(every, key=lambda mix: mix.cost_usd, default=None),
        soonest=min(every, key=lambda mix: mix.finish_s, default=None),
    )


def _alone(offers: Iterable[Offer], most: int) -> Iterator[Fleet]:
    return (Fleet(((offer, count),)) for offer in offers for count in _counts(most))


def _counts(most: int) -> Iterator[int]:
    """1, 2, 3... and then ever more at a time; `most` is the last."""
    count = 1
    while count < most:
        yield count
        count = max(count + 1, count * 5 // 4)
    yield most


def _paired(offers: Sequence[Offer], most: int) -> Iterator[Fleet]:
    """Two types of different speeds."""
    for one, other in combinations(sorted(offers, key=lambda offer: offer.nodes), 2):
        for first, second in product(_PARTNERS, _PARTNERS):
            if one.speed != other.speed and first + second <= most:
                yield Fleet(((one, first), (other, second)))


def _near(mixes: Iterable[Mix], offers: Sequence[Offer], most: int) -> Iterator[Fleet]:
    """The fleets of `mixes` with one instance more or less of a type, or as many nodes in other sizes of it."""
    for mix in mixes:
        for at, (offer, count) in enumerate(mix.fleet.building):
            sizes = (other for other in offers if other.speed == offer.speed and count * offer.nodes % other.nodes == 0)
            resized = ((other, count * offer.nodes // other.nodes) for other in sizes)
            for changed in ((offer, count - 1), (offer, count + 1), *resized):
                parts = (*mix.fleet.building[:at], changed, *mix.fleet.building[at + 1 :])
                fleet = Fleet(tuple((one, many) for one, many in parts if many))
                if 0 < fleet.count <= most:
                    yield fleet


def _helped(mixes: Iterable[Mix], offers: Sequence[Offer], most: int) -> Iterator[Fleet]:
    """The fleets of `mixes` with hosts that compile for them, of the types that have the most processors."""
    many = [offer for offer in offers if offer.slots >= _MANY]
    for mix in mixes:
        for offer, count in product(many, _HELPERS):
            if mix.fleet.count + count <= most:
                yield Fleet(mix.fleet.building, (offer, count))


@dataclass(slots=True)
class _Search:
    tasks: Tasks
    catalogue: Catalogue
    limits: Limits
    played: dict[Market, list[Mix]] = field(default_factory=dict)
    runs: dict[object, _Run] = field(default_factory=dict)
    """By what of a fleet the schedule sees."""
    lent: dict[float, Tasks] = field(default_factory=dict)
    """The tasks, by how many compiles more each node may have at once."""

    def play_all(self, market: Market, fleets: Iterable[Fleet]) -> None:
        """Play those that may be worth it, the most promising first."""
        allowed = [(self._at_best(fleet, market), fleet) for fleet in fleets if self._may(fleet, market)]
        mixes = self.played.setdefault(market, [])
        most = len(self.runs) + max(_AT_LEAST, _PACKAGES // max(1, len(self.tasks)))
        for (finish_s, cost_usd), fleet in self._promising(allowed):
            if len(self.runs) >= most:
                break
            if not any(_beats(mix, finish_s * (1 + _STEP), cost_usd * (1 + _STEP)) for mix in mixes):
                mixes.append(self._mix(fleet, market, self._run(fleet, _by_one_rule)))

    def _promising(self, fleets: Sequence[tuple[AtBest, Fleet]]) -> Iterator[tuple[AtBest, Fleet]]:
        """Those that may keep the limits first; in turns that of least time times cost, the cheapest, the fastest."""
        kept = [pair for pair in fleets if self._keeps(*pair[0])]
        others = [pair for pair in fleets if not self._keeps(*pair[0])]
        for some in (kept, others):
            orders = (
                sorted(some, key=lambda pair: math.prod(pair[0])),
                sorted(some, key=lambda pair: (pair[0][1], pair[0][0])),
                sorted(some, key=lambda pair: pair[0]),
            )
            for turn in zip(*orders, strict=True):
                yield from turn

    def _may(self, fleet: Fleet, market: Market) -> bool:
        price = self.limits.price
        return price is None or fleet.usd_h(market, self._disk_usd_h) <= price

    def _at_best(self, fleet: Fleet, market: Market) -> AtBest:
        """Seconds and USD that cannot be beaten: all nodes busy to the end, and none of them kept any longer."""
        tasks = self._tasks_on(fleet)
        finish_s = self._startup_s + fleet.at_least(tasks)
        work_s, _ = bound.amounts(tasks)
        usd_s = min((offer.price(market) + self._disk_usd_h) / offer.nodes / offer.speed for offer, _ in fleet.building)
        usd = work_s * usd_s + self._startup_s * fleet.usd_h(market, self._disk_usd_h)
        if fleet.compiling:
            offer, count = fleet.compiling
            usd += count * (offer.price(market) + self._disk_usd_h) * (finish_s - self._startup_s)
        return finish_s, usd / HOUR_S

    @property
    def _startup_s(self) -> float:
        return self.catalogue.startup.seconds

    @property
    def _disk_usd_h(self) -> float:
        return self.catalogue.billing.disk_usd_h

    def _tasks_on(self, fleet: Fleet) -> Tasks:
        """The tasks as fast as the hosts that compile for `fleet` let them be."""
        if fleet.compiling is None:
            return self.tasks
        offer, count = fleet.compiling
        slots = offer.slots * count / fleet.capacity
        return self._with(next((step for step in _SLOTS if step <= slots), 0.0))

    def _with(self, slots: float) -> Tasks:
        if slots not in self.lent:
            terms = self.catalogue.compiling
            seconds = (
                task.seconds * left(task, slots, terms.jobs, terms.remote, terms.most) for task in self.tasks.all
            )
            self.lent[slots] = retimed(self.tasks, seconds)
        return self.lent[slots]

    def _run(self, fleet: Fleet, play: Callable[[Tasks, Sequence[Host]], Trace]) -> _Run:
        """Played once for all fleets with as many nodes of each speed, unless memory makes a difference."""
        hosts, tasks = fleet.hosts(), self._tasks_on(fleet)
        if _has_room(tasks, hosts):
            hosts = tuple(Host(node, (node,), host.speed) for host in hosts for node in host.nodes)
        key = (play, tasks, tuple(sorted((host.speed, len(host.nodes), host.memory_mib) for host in hosts)))
        if key not in self.runs:
            self.runs[key] = _run_of(play(tasks, hosts))
        return self.runs[key]

    def _mix(self, fleet: Fleet, market: Market, run: _Run) -> Mix:
        lost_s = self._interruptions(run.exposed_s2) if market is Market.SPOT else 0.0
        finish_s = self._startup_s + run.trace.end + lost_s
        kept = {name: self._startup_s + until for name, until in busy_until(run.trace, fleet.hosts()).items()}
        if fleet.compiling:
            offer, count = fleet.compiling
            kept |= {f"{offer.type}#c{number}": finish_s for number in range(1, count + 1)}
        if market is Market.SPOT:
            again_s = self._startup_s + run.in_work_s
            kept = {name: paid_s + self._interruptions(paid_s * again_s) for name, paid_s in kept.items()}
        return Mix(
            fleet=fleet,
            market=market,
            finish_s=finish_s,
            cost_usd=sum(self._cost(fleet, name, paid, market) for name, paid in kept.items()),
            usd_h=fleet.usd_h(market, self._disk_usd_h),
            bound_s=self._startup_s + fleet.at_least(self._tasks_on(fleet)),
            kept_s=kept,
        )

    def _interruptions(self, seconds2: float) -> float:
        """Seconds lost where each second is open to be lost together with so many others, their sum in `seconds2`."""
        return self.catalogue.spot.interruptions_h / HOUR_S * seconds2

    def _cost(self, fleet: Fleet, name: str, paid_s: float, market: Market) -> float:
        offer = next(offer for offer, _ in fleet.all if offer.type == name.partition("#")[0])
        paid_s = max(paid_s, self.catalogue.billing.least_s)
        return (offer.price(market) + self._disk_usd_h) * paid_s / HOUR_S

    def refined(self, mix: Mix) -> Mix:
        """With other rules looked ahead with, where the first left something to gain."""
        if mix.finish_s <= mix.bound_s * _NEAR:
            return mix
        better = self._mix(mix.fleet, mix.market, self._run(mix.fleet, advice.play))
        kept = self._keeps(better.finish_s, better.cost_usd)
        return better if kept and better.finish_s < mix.finish_s else mix

    def front(self, market: Market) -> list[Mix]:
        """Of what was played and is within the limits: what nothing else beats."""
        return _front(mix for mix in self.played[market] if self._keeps(mix.finish_s, mix.cost_usd))

    def _keeps(self, finish_s: float, cost_usd: float) -> bool:
        budget, deadline_s = self.limits.budget, self.limits.deadline_s
        return (budget is None or cost_usd <= budget) and (deadline_s is None or finish_s <= deadline_s)

    def lower_bound(self, offers: Sequence[Offer], markets: Sequence[Market]) -> float:
        """On the fastest nodes, as many as the limits let there be, each with as many compiles as it can use."""
        price = math.inf if self.limits.price is None else self.limits.price
        best = max(
            min(self.limits.hosts, price / (offer.price(market) + self._disk_usd_h)) * offer.nodes * offer.speed
            for offer, market in product(offers, markets)
        )
        tasks = self._with(math.inf) if self.limits.hosts > 1 else self.tasks
        work_s, chain_s = bound.amounts(tasks)
        return self._startup_s + max(work_s / best, chain_s / max(offer.speed for offer in offers))


def left(task: Task, slots: float, jobs: int, remote: float, most: int) -> float:
    """What part of its time `task` takes if `slots` compiles more may be done for it at once, on other hosts.

    `jobs` were done at once when its time was taken, `most` at once a node can prepare. Amdahl's law (AFIPS 1967):
    from the processors that it kept busy follow its parallel part, which they share, and the rest, for which there is
    one. Of the parallel part `remote` can leave the node.
    """
    if task.parallelism is None or task.parallelism <= 1:
        return 1.0
    had = max(jobs, math.ceil(task.parallelism))
    parallel = (task.parallelism - 1) / (1 - 1 / had) * remote
    return 1 - parallel / had + parallel / min(had + slots, max(had, most))


def _front(mixes: Iterable[Mix]) -> list[Mix]:
    """Those that no other one beats in both time and cost, from the cheapest to the fastest (Pareto)."""
    found: list[Mix] = []
    for mix in sorted(mixes, key=lambda mix: (mix.cost_usd, mix.finish_s)):
        if not found or mix.finish_s < found[-1].finish_s:
            found.append(mix)
    return found


def _beats(mix: Mix, finish_s: float, cost_usd: float) -> bool:
    return mix.finish_s <= finish_s and mix.cost_usd <= cost_usd


def _has_room(tasks: Tasks, hosts: Iterable[Host]) -> bool:
    """Whether all nodes of a host may have any packages at once."""
    most = max((task.memory_mib for task in tasks.all), default=0.0)
    return not tasks.apart and all(most * len(host.nodes) <= host.memory_mib for host in hosts)


def _by_one_rule(tasks: Tasks, hosts: Sequence[Host]) -> Trace:
    state = core.start(tasks, hosts, ranked(Earliest(), tasks), attempts=1)
    return simulation.run(state, simulation.expected(state))


def busy_until(trace: Trace, hosts: Sequence[Host]) -> dict[str, float]:
    """When each of `hosts` may be let go, if packages keep to the first of each speed that have room.

    As many nodes of each speed as `trace` had are enough for it, whichever of them has which package. So every
    package goes to the first host of `hosts` that can take it, of two that begin at once the longer one first, and the
    hosts that come last are needed least long.
    """
    speeds = {node: host.speed for host in trace.state.hosts.values() for node in host.nodes}
    kept = {speed: _Kept([host for host in hosts if host.speed == speed]) for speed in set(speeds.values())}
    until = {host.name: 0.0 for host in hosts}
    for stay in sorted(trace.stays, key=lambda stay: (stay.since, -stay.until)):
        task = trace.state.tasks.all[trace.state.tasks.places[stay.cpv]]
        host = kept[speeds[stay.node]].take(stay.since, stay.until, task.memory_mib)
        until[host.name] = max(until[host.name], stay.until)
    return until


class _Kept:
    """The hosts of one speed, whose nodes are taken in their order."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._hosts = hosts
        self._memory = [host.memory_mib for host in hosts]
        self._free = [number for number, host in enumerate(hosts) for _ in host.nodes]
        self._busy: list[tuple[float, int, float]] = []
        """When each node is free again, the number of its host, and what it has of its memory."""

    def take(self, since: float, until: float, memory_mib: float) -> Host:
        """The first host that has a node and memory, or at least a node."""
        while self._busy and self._busy[0][0] <= since:
            _, number, memory = heapq.heappop(self._busy)
            self._memory[number] += memory
            heapq.heappush(self._free, number)
        full = []
        while self._free and self._memory[self._free[0]] < memory_mib:
            full.append(heapq.heappop(self._free))
        number = heapq.heappop(self._free) if self._free else full.pop(0)
        for other in full:
            heapq.heappush(self._free, other)
        self._memory[number] -= memory_mib
        heapq.heappush(self._busy, (until, number, memory_mib))
        return self._hosts[number]


@dataclass(frozen=True, slots=True)
class _Run:
    """A fleet that was played."""

    trace: Trace
    in_work_s: float
    """What the package of a node has had on average, seen at any moment at which there is one."""
    exposed_s2: float
    """For each second of what the end waits for, those that are begun anew if its host is taken back in it; summed."""


def _run_of(trace: Trace) -> _Run:
    times = [stay.until - stay.since for stay in trace.stays]
    squares = sum(took * took for took in times) / 2
    awaited = sum((stay.until - stay.since) ** 2 for stay in critical.chain(trace)) / 2
    return _Run(trace, squares / sum(times) if squares else 0.0, awaited)


def _thinned(mixes: Sequence[Mix]) -> list[Mix]:
    """As few as a person looks at, the fastest among them, without those that save next to nothing for being slower."""
    step, found = _STEP, list(_cheaper(mixes))
    while len(found) > _SHOWN:
        found = list(_faster(found, step))
        step *= 1.25
    return found


def _cheaper(mixes: Sequence[Mix]) -> Iterable[Mix]:
    """Those that are cheaper by a step than the next faster one."""
    found: list[Mix] = []
    for mix in reversed(mixes):
        if not found or mix.cost_usd < found[-1].cost_usd * (1 - _STEP):
            found.append(mix)
    return reversed(found)


def _faster(mixes: Sequence[Mix], step: float) -> Iterator[Mix]:
    """Those that are faster by `step` than the next cheaper one, and the fastest."""
    last: Mix | None = None
    for mix in mixes:
        if last is None or mix is mixes[-1] or mix.finish_s < last.finish_s * (1 - step):
            yield mix
            last = mix
