"""What a host builds packages with, made once for each kind of work and kept while the host serves a master."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from cluster.errors import NodeLost
from cluster.host.pool import Offer, Pool


class Bench(Protocol):
    """Builds packages on this host; may be used from several threads."""

    def build(self, parcel: Any, node: str, entered: Callable[[str], None]) -> Any:
        """Build what is in `parcel` in the fresh node `node`; what came of it, to be pickled. Raises ClusterError."""
        ...

    def abandon(self, node: str) -> None:
        """End what is being built in `node`: its `build` raises NodeLost soon. Returns at once."""
        ...

    def share(self, slots: Mapping[str, int]) -> None:
        """How many of this host's compile slots each of its nodes has. Returns at once."""
        ...

    def pool(self, pool: Pool) -> None:
        """Which distccds its nodes may use from now on. Returns at once."""
        ...

    @property
    def offer(self) -> Offer | None:
        """What it has for a pool of distccds; None for nothing."""
        ...

    def stop(self) -> None:
        """End all nodes, and let no new one start."""
        ...


class Equipment(Protocol):
    """How a bench is made; frozen, to be pickled, and equal to any other that would make the same."""

    @property
    def is_early(self) -> bool:
        """Whether it is worth making as a host joins, before a job asks for it."""
        ...

    def bench(self, directory: Path) -> Bench:
        """A bench on this host, which may write in `directory`. Raises ClusterError."""
        ...


class Benches:
    """The benches of a host, by what they were made of; may be used from several threads."""

    def __init__(self, directory: Path, offered: Callable[[Offer], None] = lambda offer: None) -> None:
        """`offered` is told what each new one has for a pool."""
        self._directory = directory
        self._offered = offered
        self._lock = threading.Lock()
        self._making: dict[Equipment, threading.Lock] = {}
        self._benches: dict[Equipment, Bench] = {}
        self._slots: Mapping[str, int] = {}
        self._pool: Pool | None = None
        self._stopped = False

    def of(self, equipment: Equipment) -> Bench:
        """The one bench of `equipment`; of several that ask at once one makes it. Raises ClusterError."""
        with self._lock:
            making = self._making.setdefault(equipment, threading.Lock())
        with making:
            return self._benches.get(equipment) or self._made_of(equipment)

    def has(self, equipment: Equipment) -> bool:
        """Whether the bench of `equipment` is ready."""
        with self._lock:
            return equipment in self._benches

    def _made_of(self, equipment: Equipment) -> Bench:
        bench = equipment.bench(self._directory)
        with self._lock:
            self._benches[equipment] = bench
            slots, pool, stopped = self._slots, self._pool, self._stopped
        if stopped:
            bench.stop()
            raise NodeLost("the host is leaving")
        bench.share(slots)
        if pool is not None:
            bench.pool(pool)
        if bench.offer is not None:
            self._offered(bench.offer)
        return bench

    def abandon(self, node: str) -> None:
        """End what is being built in `node`."""
        for bench in self._made():
            bench.abandon(node)

    def share(self, slots: Mapping[str, int]) -> None:
        """How many compile slots each node has."""
        with self._lock:
            self._slots = slots
        for bench in self._made():
            bench.share(slots)

    def pool(self, pool: Pool) -> None:
        """Which distccds nodes may use."""
        with self._lock:
            self._pool = pool
        for bench in self._made():
            bench.pool(pool)

    def stop(self) -> None:
        """End all nodes of all benches, and let no new one start."""
        with self._lock:
            self._stopped = True
        for bench in self._made():
            bench.stop()

    def _made(self) -> tuple[Bench, ...]:
        with self._lock:
            return tuple(self._benches.values())
