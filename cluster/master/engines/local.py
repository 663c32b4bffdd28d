"""Nodes that builders in this process have: on this machine, and on others that are reached from here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from cluster.errors import ClusterError, NodeLost
from cluster.host.builder import Builder, Entered
from cluster.host.work import Product
from cluster.master.engines.delivery import Delivery
from cluster.master.engines.engine import Change, Ended
from cluster.master.schedule.hosts import Host
from cluster.model import Job, Outcome


def run(
    delivery: Delivery,
    builder: Builder,
    job: Job,
    node: str,
    entered: Entered,
    abandoned: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Fetch, build in a fresh node unless it is `abandoned` by then, admit."""

    def product() -> Product | ClusterError:
        try:
            work = delivery.prepare(job, entered)
            if abandoned():
                return NodeLost("abandoned before its node started")
            return builder.build(work, node, delivery.log(job.package), entered)
        except ClusterError as error:
            return error

    began = time.monotonic()
    return delivery.conclude(job, node, began, product(), entered)


class LocalEngine:
    """Builds in this process what the master delivers, on each host by its builder; to be left when all has ended."""

    def __init__(self, delivery: Delivery, *places: tuple[Host, Builder]) -> None:
        self._delivery, self._places = delivery, places
        self._builders = {node: builder for host, builder in places for node in host.nodes}
        # A child dies with the thread that started it, so threads live as long as the engine.
        self._pool = ThreadPoolExecutor(len(self._builders), thread_name_prefix="node")
        self._abandoned: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def attend(self, hear: Callable[[Change], None]) -> tuple[Host, ...]:
        """Its hosts, which neither come nor go."""
        return tuple(host for host, _ in self._places)

    def expects(self) -> bool:
        """No other host comes."""
        return False

    def start(self, job: Job, node: str, entered: Entered, ended: Ended) -> None:
        """Begin `job` on a thread of its own."""
        self._abandoned.discard(node)
        self._pool.submit(self._work, job, node, entered, ended)

    def abandon(self, node: str) -> None:
        """End the node."""
        self._abandoned.add(node)
        self._builders[node].abandon(node)

    def share(self, slots: Mapping[str, int]) -> None:
        """How many of the compile server's slots each node has."""
        for host, builder in self._places:
            own = {node: slots[node] for node in host.nodes if node in slots}
            if own:
                builder.share(own)

    def quarantine(self, host: str, reason: str) -> None:
        """Its hosts are tried again by the next run."""

    def stop(self) -> None:
        """End the nodes."""
        for _, builder in self._places:
            builder.stop()

    def _work(self, job: Job, node: str, entered: Entered, ended: Ended) -> None:
        try:
            outcome = run(self._delivery, self._builders[node], job, node, entered, lambda: node in self._abandoned)
        except BaseException as error:  # it must end the run, not hang it
            ended(error)
        else:
            ended(outcome)
