"""The hosts that serve a master through Dask: who is there, and what is under way on each.

Dask carries a job to the worker that it is for, tells which workers come and go, and decides nothing. All that hosts
say is heard by one thread, in order, so that a job ends once: with what its host says of it, or with its host.
"""

from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from cluster import lazy
from cluster.errors import MachineError, NodeLost
from cluster.host.bench import Equipment
from cluster.host.pool import Member, Offer, Pool
from cluster.host.relay import Measured
from cluster.host.tls import Identity
from cluster.master.engines.engine import Came, Change, Went
from cluster.master.engines.names import NodeName
from cluster.master.engines.scheduler import CONFIG, Scheduler
from cluster.master.schedule.hosts import Host

dask = lazy.module("dask")
distributed = lazy.module("distributed")
worker = lazy.module("cluster.host.worker")
announcer = lazy.module("cluster.master.engines.announcer")
yaml = lazy.module("yaml")

log = logging.getLogger(__name__)

_GROUP = "build"
"""Of all keys: Dask's work for one job grows with the number of groups."""
_QUIET = dict.fromkeys(("distributed", "distributed.client"), "critical")
"""Its complaints about hosts that go away are ours to make, in one line."""
_CONNECT_S = 30.0
_WATCH_S = 1.0
_STOP_S = 10.0
_GATHER_S = 0.01
"""For so long jobs are gathered to be given to Dask together: a call is more work for it than a job."""
_CALLS = 8
"""Calls to hosts at once: to share, to abandon."""


@dataclass(frozen=True, slots=True)
class Flight:
    """A job on its way to a host, there, or on its way back."""

    node: str
    address: str
    """Of the worker that has it."""
    entered: Callable[[str], None]
    ended: Callable[[Any], None]
    """Is told once: what the host's bench made, or the ClusterError that came of it."""


@dataclass(slots=True)
class Crew:
    """What is known of hosts and jobs. Its methods may be called from any thread and return at once."""

    client: Any
    """Dask's."""
    target: str
    hear: Callable[[Change], None] = lambda change: None
    offered: Callable[[str, Offer], None] = lambda host, offer: None
    """Is told what hosts have for a pool of distccds, by a thread that is not to wait."""
    refused: Callable[[str, str], None] = lambda host, why: None
    """Is told likewise of hosts that could not be equipped."""
    calls: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_CALLS, "hosts"))
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _hosts: dict[str, Host] = field(default_factory=dict)
    """By the address of the worker."""
    _addresses: dict[str, str] = field(default_factory=dict)
    """By the name of the host."""
    _flights: dict[int, Flight] = field(default_factory=dict)
    _jobs: dict[str, int] = field(default_factory=dict)
    """The last of each node."""
    _leaving: dict[int, bytes] = field(default_factory=dict)
    """Errands, pickled, that Dask is about to be given."""
    _futures: dict[int, Any] = field(default_factory=dict)
    """Dask forgets a job whose future is gone."""
    _shared: dict[str, dict[str, int]] = field(default_factory=dict)
    """What each address is to know of its slots."""
    _sharing: set[str] = field(default_factory=set)
    """The addresses that are being told, one thing after the other."""
    _numbers: Iterator[int] = field(default_factory=count)
    _over: str = ""
    """Why nothing starts any more."""

    def attend(self, hear: Callable[[Change], None]) -> tuple[Host, ...]:
        """The hosts that are there, with nodes or not; `hear` is told of others, by a thread that is not to wait."""
        with self._lock:
            self.hear = hear
            return tuple(self._hosts.values())

    def start(
        self,
        node: str,
        equipment: Equipment,
        parcel: Any,
        entered: Callable[[str], None],
        ended: Callable[[Any], None],
    ) -> None:
        """Let the host of `node` build `parcel` with `equipment`; see `Flight`."""
        name = NodeName.of(node)
        with self._lock:
            address = None if self._over else self._addresses.get(name.host)
            if address is not None:
                job, slots = next(self._numbers), self._shared.get(address, {})
                self._flights[job] = Flight(node, address, entered, ended)
                self._jobs[node] = job
        if address is None:
            ended(NodeLost(self._over or f"{name.host} is gone"))
            return
        packed = pickle.dumps(worker.Errand(job, name.there, equipment, parcel, slots))
        with self._lock:
            self._leaving[job] = packed
            if len(self._leaving) > 1:
                return  # it goes with the first
        # By the thread that hears hosts: several would wait for each other, and it for them, in Dask's client.
        self.client.loop.add_callback(self._submit_soon)

    def abandon(self, node: str) -> None:
        """End what is under way on `node`; its host says what comes of it."""
        name = NodeName.of(node)
        with self._lock:
            address = self._addresses.get(name.host)
            if address is not None and self._jobs.get(node) in self._flights:
                self._call(address, worker.abandon, name.there)

    def share(self, slots: Mapping[str, int]) -> None:
        """Tell each host how many compile slots each of its nodes has, if that is not what it had.

        A node that builds nothing is about to: what it is to build brings the news, and the host need not be called.
        """
        by_address: dict[str, dict[str, int]] = {}
        with self._lock:
            for node, count in slots.items():
                name = NodeName.of(node)
                by_address.setdefault(self._addresses.get(name.host, ""), {})[name.there] = count
            by_address.pop("", None)
            for address, own in by_address.items():
                if self._shared.get(address) != own:
                    self._shared[address] = own
                    if address not in self._sharing and self._are_busy(address, own):
                        self._sharing.add(address)
                        self.calls.submit(self._share, address)

    def equip(self, host: str, equipment: Equipment) -> None:
        """Let a host make ready what jobs with `equipment` will need."""
        with self._lock:
            address = self._addresses.get(host)
        if address is not None:
            self._call(address, worker.equip, pickle.dumps(equipment))

    def pool(self, host: str, pool: Pool) -> Future[None]:
        """Tell a host which distccds its nodes may use; the future is done when that was tried."""
        with self._lock:
            address = self._addresses.get(host, "")
        return self.calls.submit(self._called, address, worker.pool, pool)

    def measure(self, host: str, member: Member, compiler: str) -> Measured:
        """How the way from a host to a distccd is. Waits for the answer. Raises MachineError if there is no way."""
        with self._lock:
            address = self._addresses.get(host)
        if address is None:
            raise NodeLost(f"{host} is gone")
        try:
            found = self.client.run(worker.measure, member, compiler, workers=[address])[address]
        except Exception as error:  # a host that cannot be reached is told to be gone by Dask
            raise MachineError(f"{host} does not answer", str(error)) from error
        if isinstance(found, str):
            raise MachineError(found)
        return found  # type: ignore[no-any-return]

    def end(self, reason: str) -> None:
        """Nothing starts any more, and what is under way is lost."""
        with self._lock:
            self._over = self._over or reason
            for job in list(self._flights):
                self._land(job, NodeLost(reason))

    def said(self, event: tuple[float, Mapping[str, Any]]) -> None:
        """What a host or Dask's scheduler has said; called by Dask's client, one after the other."""
        match event[1]:
            case {"job": job, "phase": phase}:
                if (flight := self._flights.get(job)) is not None:
                    flight.entered(phase)
            case {"job": job, "came": came}:
                self._land(job, pickle.loads(came))
            case {"job": job, "erred": why}:
                self._land(job, MachineError("the host's worker could not do the job", why))
            case {"came": address, "resources": resources, "said": said}:
                self._came(address, resources, said)
            case {"host": host, "offer": offer}:
                self.offered(host, pickle.loads(offer))
            case {"host": host, "refused": why}:
                self.refused(host, why)
            case {"went": address, "reason": reason}:
                self._went(address, reason)

    def _are_busy(self, address: str, nodes: Iterable[str]) -> bool:
        """Whether a host builds in all of these nodes, by their names there."""
        own = {NodeName.of(node).there: node for node in self._hosts[address].nodes}
        return all(self._jobs.get(own[node]) in self._flights for node in nodes)

    def _submit_soon(self) -> None:
        self.client.loop.call_later(_GATHER_S, self._submit)

    def _submit(self) -> None:
        """Give Dask all that is leaving, as one graph of jobs that need nothing of each other."""
        with self._lock:
            # Those whose host went have landed.
            leaving = [(job, packed) for job, packed in self._leaving.items() if job in self._flights]
            places = {(_GROUP, job): [self._flights[job].address] for job, _ in leaving}
            self._leaving.clear()
        if not leaving:
            return
        graph = {(_GROUP, job): (worker.perform, packed) for job, packed in leaving}
        try:
            with dask.annotate(workers=places.__getitem__):
                futures = self.client.get(graph, [*graph], resources={resource(self.target): 1}, sync=False)
        except Exception as error:  # the jobs must end, whatever Dask has against them
            for job, _ in leaving:
                self._land(job, MachineError("Dask does not take the job", str(error)))
        else:
            self._futures |= {job: future for (job, _), future in zip(leaving, futures, strict=True)}

    def _land(self, job: int, came: Any) -> None:
        """A job has ended, unless it has before."""
        with self._lock:
            flight = self._flights.pop(job, None)
            self._futures.pop(job, None)
        if flight is not None:
            flight.ended(came)

    def _came(self, address: str, resources: Mapping[str, float], said: Mapping[str, Any]) -> None:
        nodes = resources.get(resource(self.target))
        unfit = unfitness(said, worker.versions())
        with self._lock:
            if address in self._hosts:
                return
            if unfit or nodes is None:
                log.warning("%s is not taken: %s", said.get("host", address), unfit or f"not for {self.target}")
                self.calls.submit(self._expel, address)
                return
            host = host_of(said, int(nodes))
            if host.name in self._addresses:  # back before it was missed
                self._went(self._addresses[host.name], "it came anew")
            self._hosts[address] = host
            self._addresses[host.name] = address
            self.hear(Came(host))

    def _went(self, address: str, reason: str) -> None:
        with self._lock:
            host = self._hosts.pop(address, None)
            if host is None:
                return
            del self._addresses[host.name]
            self._shared.pop(address, None)
            self.hear(Went(host.name, reason))
            for job in [job for job, flight in self._flights.items() if flight.address == address]:
                self._land(job, NodeLost(f"{host.name} is gone: {reason}"))

    def _expel(self, address: str) -> None:
        with suppress(Exception):  # it may be gone by then
            self.client.retire_workers([address], close_workers=True)

    def _share(self, address: str) -> None:
        """Tell what there is to know, until that has not changed meanwhile."""
        told: dict[str, int] | None = None
        while True:
            with self._lock:
                own = self._shared.get(address)
                if own is None or own == told:
                    self._sharing.discard(address)
                    return
            self._called(address, worker.share, own)
            told = own

    def _call(self, address: str, function: Callable[..., Any], argument: object) -> None:
        self.calls.submit(self._called, address, function, argument)

    def _called(self, address: str, function: Callable[..., Any], argument: object) -> None:
        with suppress(Exception):  # a host that cannot be reached is told to be gone by Dask
            self.client.run(function, argument, workers=[address], on_error="ignore")


def resource(target: str) -> str:
    """The resource of Dask's that counts a worker's nodes for `target`."""
    return f"node-{target}"


def unfitness(said: Mapping[str, Any], own: Mapping[str, str]) -> str:
    """Why a host that says this of itself cannot serve a master with the versions `own`; "" if it can."""
    if "host" not in said:
        return "it does not say what it is"
    theirs = said.get("versions", {})
    other = next((name for name in own if theirs.get(name) != own[name]), None)
    return f"it has {other} {theirs.get(other)}, the master {own[other]}" if other else ""


def host_of(said: Mapping[str, Any], nodes: int) -> Host:
    """The host that says this of itself."""
    names = tuple(str(NodeName(said["host"], number)) for number in range(1, nodes + 1))
    return Host(said["host"], names, said["speed"], memory_mib=said["memory_mib"], disk_mib=said["disk_mib"])


@contextmanager
def gathering(scheduler: Scheduler, identity: Identity, target: str) -> Iterator[Crew]:
    """The crew of the workers of `scheduler` that serve `target`; they are told to end with the context.

    Raises MachineError if the scheduler does not answer.
    """
    with CONFIG.open() as stream:
        dask.config.update(dask.config.config, {**yaml.safe_load(stream), "logging": _QUIET})
    security = distributed.security.Security(
        require_encryption=True,
        tls_ca_file=str(identity.authority),
        tls_client_cert=str(identity.certificate),
        tls_client_key=str(identity.key),
    )
    try:
        client = distributed.Client(scheduler.address, security=security, set_as_default=False, timeout=_CONNECT_S)
    except OSError as error:
        raise MachineError("the Dask scheduler does not answer", str(error)) from error
    crew, over = Crew(client, target), threading.Event()
    watch = threading.Thread(target=_watch, args=(scheduler, crew, over), name="scheduler", daemon=True)
    try:
        client.subscribe_topic(worker.TOPIC, crew.said)
        client.run_on_scheduler(announcer.call_roll, client.id)
        watch.start()
        yield crew
    finally:
        over.set()
        disband(crew)


def disband(crew: Crew) -> None:
    """End what is under way, and all workers."""
    crew.end("the run is being stopped")
    ending = threading.Thread(target=_shut_down, args=(crew.client,), name="disband", daemon=True)
    ending.start()
    ending.join(_STOP_S)  # the scheduler is killed in any case, and then its workers end
    crew.client.status = "closed"  # else it waits for a minute, as Python ends, for a loop that has ended
    crew.calls.shutdown(wait=False, cancel_futures=True)


def _shut_down(client: Any) -> None:
    with suppress(Exception):  # the scheduler may be gone
        client.shutdown()


def _watch(scheduler: Scheduler, crew: Crew, over: threading.Event) -> None:
    """Without its scheduler a crew is lost."""
    while not over.wait(_WATCH_S):
        if scheduler.child.ended:
            crew.end(f"the Dask scheduler has ended: {scheduler.child.why()}")
            return
