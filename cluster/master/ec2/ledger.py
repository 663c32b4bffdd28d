"""What rented hosts did for a build: each node's time with each package, noted in the rental that its host is of."""

from __future__ import annotations

import queue
import time
from collections import defaultdict

from cluster.master.bulletin import left
from cluster.master.ec2.rental import Rentals, Span
from cluster.master.schedule.state import State


class Ledger:
    """A watcher of a run that keeps what ended, however it did, until it is told to write it down."""

    def __init__(self, rentals: Rentals) -> None:
        self._rentals = rentals
        self._latest: State | None = None
        self._began = 0.0
        self._spans: queue.SimpleQueue[Span] = queue.SimpleQueue()

    def saw(self, state: State, now: float) -> None:
        """Where the run stands."""
        began = time.time() - now
        for past in left(self._latest, state, now) if self._latest is not None else ():
            self._put(past.stay.cpv, past.stay.node, began + past.stay.since, began + past.stay.until)
        self._latest, self._began = state, began

    def entered(self, node: str, phase: str) -> None:
        """Of no interest here."""

    def _put(self, package: str, node: str, began: float, ended: float) -> None:
        self._spans.put(Span(package, node.rpartition(":")[0], began, ended))

    def close(self) -> None:
        """What runs still is not waited for: the run was interrupted."""
        if self._latest is not None:
            for place, running in self._latest.running.items():
                package = self._latest.tasks.all[place].cpv
                self._put(package, running.node, self._began + running.since, time.time())
        self._latest = None

    def note(self) -> None:
        """Write down what has ended since the last time on hosts that are rented; from any thread, one at a time."""
        if self._spans.empty():
            return
        runs = {one.name: rental.run for rental in self._rentals.all() for one in rental.instances}
        noted: defaultdict[str, list[Span]] = defaultdict(list)
        while not self._spans.empty():
            span = self._spans.get()
            if span.host in runs:
                noted[runs[span.host]].append(span)
        for run, spans in noted.items():
            self._rentals.note(run, spans)
