"""Nodes on other hosts: a job is packed here, built there, and what came of it is fetched and admitted here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, Self

from cluster.errors import ClusterError, NodeLost
from cluster.host.bench import Equipment
from cluster.host.builder import Entered
from cluster.host.work import Product, Work
from cluster.master.engines import crew as crews
from cluster.master.engines.engine import Came, Change, Ended
from cluster.master.engines.helpers import Helpers
from cluster.master.engines.names import NodeName
from cluster.master.schedule.hosts import Host
from cluster.model import Job, Outcome, Package

_HANDS = 16
"""Jobs that are prepared at once, and as many that are concluded."""


class Courier(Protocol):
    """Brings to a host what it builds from, and back what came of it; may be used from several threads."""

    def pack(self, work: Work, host: str) -> Any:
        """What the bench on `host` is given for `work`, to be pickled. Raises ClusterError."""
        ...

    def receive(self, came: Any, host: str, package: Package) -> Product:
        """What the bench on `host` made, with its files here and the log in its place. Raises ClusterError."""
        ...


class Desk(Protocol):
    """The master's part in a job (`delivery.Delivery`)."""

    def prepare(self, job: Job, entered: Entered) -> Work:
        """What is built from. Raises ClusterError."""
        ...

    def conclude(self, job: Job, node: str, began: float, came: Product | ClusterError, entered: Entered) -> Outcome:
        """How it ended."""
        ...


class DaskEngine:
    """Builds on the hosts of a crew what the master delivers; to be left when all has ended."""

    def __init__(
        self,
        crew: crews.Crew,
        delivery: Desk,
        courier: Courier,
        equipment: Callable[[str], Equipment],
        expects: Callable[[], bool] = lambda: False,
        attending: Callable[[Callable[[Change], None]], None] = lambda hear: None,
        quarantining: Callable[[str, str], None] = lambda host, reason: None,
        helpers: Helpers | None = None,
    ) -> None:
        """`equipment` says what a host, by its name, builds with; it may be asked from several threads."""
        self._crew, self._delivery, self._courier, self._equipment = crew, delivery, courier, equipment
        self._expects, self._attending, self._quarantining = expects, attending, quarantining
        self._helpers = helpers or Helpers()
        # Apart, so that what is built is not kept waiting by sources that are slow to come.
        self._preparing = ThreadPoolExecutor(_HANDS, "prepare")
        self._concluding = ThreadPoolExecutor(_HANDS, "conclude")
        self._given: dict[str, object] = {}
        """By node, what tells its present job from those before."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._helpers.close()
        self._preparing.shutdown()
        self._concluding.shutdown()

    def attend(self, hear: Callable[[Change], None]) -> tuple[Host, ...]:
        """The hosts with nodes that have come so far; those without are equipped, and the run hears nothing of them."""

        def heard(change: Change) -> None:
            if isinstance(change, Came):
                self._equip(change.host)
            if not self._helpers.heard(change):
                hear(change)

        self._attending(heard)
        hosts = self._crew.attend(heard)
        for host in hosts:
            self._equip(host)
        return tuple(host for host in hosts if not self._helpers.heard(Came(host)))

    def expects(self) -> bool:
        """Whether some of those that were started have not come yet."""
        return self._expects()

    def start(self, job: Job, node: str, entered: Entered, ended: Ended) -> None:
        """Begin `job`."""
        token = self._given[node] = object()
        self._preparing.submit(self._guarded, ended, self._send, job, node, token, entered, ended)

    def abandon(self, node: str) -> None:
        """End what is on `node`, or on its way there."""
        self._given.pop(node, None)
        self._crew.abandon(node)

    def share(self, slots: Mapping[str, int]) -> None:
        """Tell the hosts."""
        self._crew.share(slots)

    def quarantine(self, host: str, reason: str) -> None:
        """Tell those that keep hosts."""
        self._quarantining(host, reason)

    def stop(self) -> None:
        """End the hosts' workers, which end their nodes."""
        self._helpers.close()
        self._preparing.shutdown(wait=False, cancel_futures=True)
        crews.disband(self._crew)

    def _equip(self, host: Host) -> None:
        equipment = self._equipment(host.name)
        if equipment.is_early:
            self._crew.equip(host.name, equipment)

    def _send(self, job: Job, node: str, token: object, entered: Entered, ended: Ended) -> None:
        began = time.monotonic()

        def landed(came: Any) -> None:  # by the thread that hears all hosts
            self._concluding.submit(self._guarded, ended, self._receive, job, node, began, came, entered, ended)

        try:
            work = self._delivery.prepare(job, entered)
            parcel = self._courier.pack(work, NodeName.of(node).host)
        except ClusterError as error:
            landed(error)
            return
        if self._given.get(node) is not token:
            landed(NodeLost("abandoned before its node started"))
            return
        self._crew.start(node, self._equipment(NodeName.of(node).host), parcel, entered, landed)

    def _receive(self, job: Job, node: str, began: float, came: Any, entered: Entered, ended: Ended) -> None:
        if not isinstance(came, ClusterError):
            try:
                came = self._courier.receive(came, NodeName.of(node).host, job.package)
            except ClusterError as error:
                came = error
        ended(self._delivery.conclude(job, node, began, came, entered))

    def _guarded(self, ended: Ended, work: Callable[..., None], *arguments: object) -> None:
        try:
            work(*arguments)
        except BaseException as error:  # it must end the run, not hang it
            ended(error)
