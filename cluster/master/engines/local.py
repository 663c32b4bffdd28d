"""Nodes on this machine."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from cluster.errors import ClusterError
from cluster.host.builder import Builder, Entered
from cluster.host.work import Product
from cluster.master.engines.delivery import Delivery
from cluster.model import Job, Outcome


def run(delivery: Delivery, builder: Builder, job: Job, node: str, entered: Entered) -> Outcome:
    """Fetch, build in a fresh node, admit."""

    def product() -> Product | ClusterError:
        try:
            work = delivery.prepare(job, entered)
            return builder.build(work, node, delivery.log(job.package), entered)
        except ClusterError as error:
            return error

    began = time.monotonic()
    return delivery.conclude(job, node, began, product(), entered)


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """Builds in this process what the master delivers."""

    delivery: Delivery
    builder: Builder

    def run(self, job: Job, node: str, entered: Entered) -> Outcome:
        """Fetch, build in a fresh node, admit."""
        return run(self.delivery, self.builder, job, node, entered)

    def share(self, slots: Mapping[str, int]) -> None:
        """How many of the compile server's slots each node has."""
        self.builder.share(slots)

    def stop(self) -> None:
        """End the nodes."""
        self.builder.stop()
