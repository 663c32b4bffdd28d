"""Before renting: when a run will end, what more hosts would save, and what is to blame for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, starmap

from cluster.master.schedule import bound, core, critical, lookahead, simulation
from cluster.master.schedule.hosts import Host, capacity, fastest
from cluster.master.schedule.rules import Earliest
from cluster.master.schedule.simulation import Stay, Trace
from cluster.master.schedule.state import ranked
from cluster.master.schedule.tasks import Tasks, longest
from cluster.model import Cpv

_MOST = 1024  # hosts of a kind that are thought of
_WORTH = 0.005  # of the run: what saves less saves nothing
_RULES = 3  # that are looked ahead with; a build tries more, and may end some percent sooner
_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Kind:
    """Hosts that could be added, of one node each."""

    speed: float
    price: float | None = None
    """Of one for an hour; None where that does not matter."""

    def host(self, number: int) -> Host:
        """One of them."""
        name = f"+{number}@{self.speed:g}"
        return Host(name, (name,), self.speed)


@dataclass(frozen=True, slots=True)
class Link:
    """A package of the chain that the end of a run waits for."""

    cpv: Cpv
    node: str
    since: float
    until: float
    waited_for: str
    """What it could not start before: "need" (the link before it), "node" (likewise, it had the node), or ""."""


@dataclass(frozen=True, slots=True)
class Mix:
    """What hosts are added, and what comes of it."""

    kind: Kind
    count: int
    end_s: float
    cost: float | None = None
    """Of what is added, for as long as the run takes; None without a price."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What can be said of a run before it begins. All in seconds from its start."""

    end_s: float
    bound_s: float
    """What no schedule on these hosts can beat."""
    idle: float
    """How much of the hosts' time has nothing to do, 0 to 1."""
    longest: tuple[Cpv, ...]
    """The chain of packages that takes longest, on whatever hosts."""
    longest_s: float
    """How long that is on the fastest host there is."""
    blame: tuple[Link, ...]
    """The chain that this schedule's end waits for, from its start on."""
    one_more: tuple[Mix, ...]
    """With one host more, of each kind."""


def advise(tasks: Tasks, hosts: Sequence[Host], kinds: Sequence[Kind]) -> Advice:
    """When `tasks` end on `hosts`, why not sooner, and what one more of each of `kinds` changes."""
    trace = play(tasks, hosts)
    work = sum(task.seconds for task in tasks.all)
    chain = _longest(tasks)
    return Advice(
        end_s=trace.end,
        bound_s=bound.lower(tasks, hosts),
        idle=1 - work / (capacity(hosts) * trace.end) if trace.end else 0.0,
        longest=tuple(tasks.all[place].cpv for place in chain),
        longest_s=sum(tasks.all[place].seconds for place in chain) / fastest(hosts),
        blame=blame(tasks, trace),
        one_more=tuple(_with(tasks, hosts, kind, 1) for kind in kinds),
    )


def play(tasks: Tasks, hosts: Sequence[Host]) -> Trace:
    """The run of `tasks` on `hosts`, if all takes what is expected."""
    state = core.start(tasks, hosts, ranked(Earliest(), tasks), attempts=1)
    state = core.reranked(state, lookahead.choose(state, 0.0, tuple(islice(lookahead.candidates(), _RULES))))
    return simulation.run(state, simulation.expected(state))


def _roughly(tasks: Tasks, hosts: Sequence[Host]) -> float:
    """When they end if nothing is looked ahead for: at most some percent late, and many times as fast."""
    state = core.start(tasks, hosts, ranked(Earliest(), tasks), attempts=1)
    return simulation.run(state, simulation.expected(state)).end


def saves(advice: Advice, mix: Mix) -> float:
    """Seconds by which `mix` ends the run sooner; 0 where that is next to nothing."""
    saved = advice.end_s - mix.end_s
    return saved if saved > _WORTH * advice.end_s else 0.0


def in_time(tasks: Tasks, hosts: Sequence[Host], kind: Kind, deadline_s: float) -> Mix | None:
    """The fewest hosts of `kind` that have to be added to end by then; None where no number of them does it.

    More hosts are taken never to be worse, which is so but for anomalies (Graham 1969) of a few percent.
    """
    if max(longest(tasks, lambda task: task.seconds), default=0.0) > deadline_s * max(kind.speed, fastest(hosts)):
        return None
    count = _least(lambda number: _roughly(tasks, _joined(hosts, kind, number)) <= deadline_s, min(_MOST, len(tasks)))
    return None if count is None else _with(tasks, hosts, kind, count)


def within(tasks: Tasks, hosts: Sequence[Host], kind: Kind, budget: float) -> Mix:
    """What ends soonest of all numbers of `kind` that cost no more than `budget`; the fewer of two that are alike.

    Each is paid for as long as the run takes. A kind without a price costs nothing.
    """
    best, least = 0, _roughly(tasks, hosts)
    for count in _counts(min(_MOST, len(tasks))):
        end = _roughly(tasks, _joined(hosts, kind, count))
        if _cost(kind, count, end) <= budget and end < least * (1 - _WORTH):
            best, least = count, end
    return _with(tasks, hosts, kind, best)


def _counts(most: int) -> Iterator[int]:
    """1, 2, 3... and then ever more at a time."""
    count = 1
    while count <= most:
        yield count
        count = max(count + 1, count * 5 // 4)


def _joined(hosts: Sequence[Host], kind: Kind, count: int) -> tuple[Host, ...]:
    return (*hosts, *(kind.host(number) for number in range(1, count + 1)))


def _cost(kind: Kind, count: int, end_s: float) -> float:
    return count * (kind.price or 0.0) * end_s / _HOUR_S


def _with(tasks: Tasks, hosts: Sequence[Host], kind: Kind, count: int) -> Mix:
    end = play(tasks, _joined(hosts, kind, count)).end
    return Mix(kind, count, end, None if kind.price is None else _cost(kind, count, end))


def _least(holds: Callable[[int], bool], most: int) -> int | None:
    """The least number up to `most` for which `holds`, if it does for all greater ones: doubling, then halving."""
    if holds(0):
        return 0
    high = 1
    while not holds(high):
        if high >= most:
            return None
        high = min(2 * high, most)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _longest(tasks: Tasks) -> tuple[int, ...]:
    rank = longest(tasks, lambda task: task.seconds)
    chain: list[int] = []
    left: Sequence[int] = range(len(tasks))
    while left:
        chain.append(max(left, key=rank.__getitem__))
        left = tasks.dependents[chain[-1]]
    return tuple(chain)


def blame(tasks: Tasks, trace: Trace) -> tuple[Link, ...]:
    """What the end of `trace` waited for, from its start on."""
    stays = critical.chain(trace)
    return tuple(starmap(partial(_link, tasks), zip((None, *stays), stays, strict=False)))


def _link(tasks: Tasks, before: Stay | None, stay: Stay) -> Link:
    if before is None:
        word = ""
    else:
        word = "need" if tasks.places[before.cpv] in tasks.needs[tasks.places[stay.cpv]] else "node"
    return Link(stay.cpv, stay.node, stay.since, stay.until, word)
