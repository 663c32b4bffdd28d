"""Each host's idle processors, lent to the compiles of packages on the others: ways are made, measured, handed out.

What is lent to whom `cluster.master.distccpool` decides; the relay on each host (`cluster.host.relay`) goes by it.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from statistics import mode
from typing import Protocol, Self

from cluster.errors import ClusterError
from cluster.host.pool import Member, Offer, Pool
from cluster.host.relay import Measured
from cluster.master import distccpool
from cluster.master.dispatch import Compiles
from cluster.master.distccpool import Host, Link, Want
from cluster.master.schedule.state import State

_EVERY_S = 1.0
_MEASURING = 4
"""Ways that are measured at once: more would slow each other."""


class Hands(Protocol):
    """What hosts are told, and asked (`crew.Crew`)."""

    def pool(self, host: str, pool: Pool) -> Future[None]:
        """Tell a host which distccds its nodes may use."""
        ...

    def measure(self, host: str, member: Member, compiler: str) -> Measured:
        """How the way from a host to a distccd is. Raises ClusterError if there is none."""
        ...


Way = Callable[[str, str, Offer], Member]
"""How the nodes of the first host reach the distccd that the second one offers; raises ClusterError if they cannot."""


@dataclass(slots=True)
class Lender:
    """Hands out slots about once a second, as long as the context lasts; a `Watcher` of the run."""

    hands: Hands
    way: Way
    compiler: str
    """What is measured with, by the name that distccds know."""
    compiles: Compiles
    """What a host alone bears; as read from here, what the pool has besides."""
    warn: Callable[[str], None]
    helpers: Callable[[], Set[str]] = frozenset
    """The hosts that have no nodes and compile for others, as they are now."""
    _offers: dict[str, Offer] = field(default_factory=dict)
    _ways: dict[tuple[str, str], Future[Link | None]] = field(default_factory=dict)
    """None for those that do not lead there."""
    _told: dict[str, Pool] = field(default_factory=dict)
    _telling: dict[str, Future[None]] = field(default_factory=dict)
    _lent: int = 0
    """The most compiles at once that the pool has for one host's nodes."""
    _warned: set[tuple[str, str]] = field(default_factory=set)
    _state: State | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread = field(init=False)
    _measuring: ThreadPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        self.compiles = replace(self.compiles, lent=lambda: self._lent)
        self._thread = threading.Thread(target=self._run, name="lender", daemon=True)
        self._measuring = ThreadPoolExecutor(_MEASURING, "measure")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._measuring.shutdown(wait=False, cancel_futures=True)
        self._thread.join()

    def offered(self, host: str, offer: Offer) -> None:
        """A host has come, perhaps anew, and has this for the others; what was known of ways to and from it is void."""
        with self._lock:
            self._offers[host] = offer
            self._told.pop(host, None)
            for pair in [pair for pair in self._ways if host in pair]:
                del self._ways[pair]

    def refused(self, host: str, why: str) -> None:
        """A host has come and has nothing for the others."""
        self._say(host, why)

    def saw(self, state: State, now: float) -> None:
        """As `Watcher.saw`."""
        self._state = state

    def entered(self, node: str, phase: str) -> None:
        """As `Watcher.entered`: it is all the same."""

    def _run(self) -> None:
        while not self._over.wait(_EVERY_S):
            if self._state is not None:
                self.lend(self._state)

    def lend(self, state: State) -> None:
        """Tell hosts what has changed for them, and begin to measure ways that are new."""
        with self._lock:
            there = {*state.hosts, *self.helpers()}
            offers = {name: offer for name, offer in self._offers.items() if name in there}
            links = self._links(offers, state)
        if len(offers) < 2 and not self._told:
            return  # alone it has what its relay began with
        nodes = Counter(running.host for running in state.running.values())
        hosts = [_host(name, offer, nodes[name]) for name, offer in offers.items()]
        wants = _wants(state, offers, self.compiles)
        builders = [name for name in offers if name in state.hosts]
        signature = mode(offers[name].signature for name in builders) if builders else ""
        handed = distccpool.hand_out(hosts, links, wants, signature)
        self._lent = distccpool.most_lent(builders, hosts, links, handed.out)
        for (mine, other), why in handed.out.items():
            if mine != other:
                self._say(other, why)
        for name in builders:
            self._tell(name, distccpool.pool_of(name, hosts, links, handed))

    def _links(self, offers: Mapping[str, Offer], state: State) -> dict[tuple[str, str], Link]:
        """The ways from hosts with nodes that are known by now."""
        idle = {name: offer.cores - len(_nodes(name, state)) for name, offer in offers.items()}
        found: dict[tuple[str, str], Link] = {}
        for mine in filter(state.hosts.__contains__, offers):
            for other in distccpool.neighbours(idle, mine):
                way = self._ways.get((mine, other))
                if way is None:
                    self._ways[mine, other] = self._measuring.submit(self._measured, mine, other, offers[other])
                elif way.done() and not way.cancelled() and (link := way.result()) is not None:
                    found[mine, other] = link
        return found

    def _measured(self, mine: str, other: str, offer: Offer) -> Link | None:
        try:
            member = self.way(mine, other, offer)
            found = self.hands.measure(mine, member, self.compiler)
        except ClusterError as error:
            self._say(other, f"{mine} does not reach it: {error}")
            return None
        return Link(member.address, member.port, member.tunnel, found.round_trip_s, found.bytes_s)

    def _tell(self, name: str, pool: Pool) -> None:
        telling = self._telling.get(name)
        if pool != self._told.get(name) and (telling is None or telling.done()):
            self._told[name] = pool
            self._telling[name] = self.hands.pool(name, pool)

    def _say(self, host: str, why: str) -> None:
        """Once for each host and reason."""
        if (host, why) not in self._warned and not self._over.is_set():
            self._warned.add((host, why))
            self.warn(f"{host} does not compile for others: {why}")


def _nodes(name: str, state: State) -> Sequence[str]:
    return state.hosts[name].nodes if name in state.hosts else ()


def _host(name: str, offer: Offer, nodes: int) -> Host:
    return Host(name, offer.cores, nodes, nodes * offer.pilots, offer.signature, offer.port, offer.address)


def _wants(state: State, offers: Mapping[str, Offer], compiles: Compiles) -> list[Want]:
    """What is being built on hosts of the pool, the most urgent first."""
    there = [(place, one) for place, one in state.running.items() if one.host in offers]
    wants = []
    for place, one in sorted(there, key=lambda item: (state.ranking.keys[item[0]], item[0])):
        task = state.tasks.all[place]
        wants.append(Want(task.cpv, one.host, compiles.of(task)))
    return wants
