"""What goes between the master and its hosts: parcels there, binary packages and logs back, by their content."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from cluster.errors import NodeLost
from cluster.host import blobs, parcel
from cluster.host.shelf import Shelf
from cluster.host.store import Blob, Store
from cluster.host.whereabouts import Whereabouts
from cluster.host.work import Product, Work
from cluster.host.workshop import Came, Sent
from cluster.model import Cpv, Package


@dataclass(frozen=True, slots=True)
class Route:
    """The URLs by which a host and its master get files from each other."""

    there: str
    """The master's files, for the host."""
    here: str
    """The host's files, for the master."""
    others: str = ""
    """The host's files for other hosts; "" where they cannot reach it."""


@dataclass(slots=True)
class Courier:
    """Brings files to hosts and back; may be used from several threads."""

    shelf: Shelf
    """What hosts may ask the master for."""
    store: Store
    """What has come from them."""
    client: blobs.Client
    log: Callable[[Package], Path]
    """Where the log of a package is to be."""
    _whereabouts: Whereabouts = field(default_factory=Whereabouts)
    _routes: dict[str, Route] = field(default_factory=dict)
    _sent: dict[tuple[str, Cpv], frozenset[Blob]] = field(default_factory=dict)
    """By host and package: what the host has once that is built."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reach(self, host: str, route: Route) -> None:
        """`host` is reached so from now on."""
        with self._lock:
            self._routes[host] = route
        self._whereabouts.went(host)
        if route.others:
            self._whereabouts.came(host, route.others)

    def lose(self, host: str) -> None:
        """`host` is not reached any more."""
        with self._lock:
            self._routes.pop(host, None)
        self._whereabouts.went(host)

    def pack(self, work: Work, host: str) -> Sent:
        """What `host` is sent for `work`. Raises NodeLost if it is gone."""
        route = self._route(host)
        packed = parcel.pack(work, self.shelf)
        with self._lock:
            self._sent[host, work.package.cpv] = packed.blobs
        return Sent(packed, self._whereabouts.sources(packed.blobs, host, route.there))

    def receive(self, came: Came, host: str, package: Package) -> Product:
        """What `host` made of `package`, with its files here and its log in its place. Raises NodeLost."""
        route = self._route(host)
        log = self.log(package)
        shutil.copyfile(self._fetched(came.log, route), log)
        if came.pilot is not None:
            shutil.copyfile(self._fetched(came.pilot, route), log.with_suffix(".pilot.log"))
        with self._lock:
            has = self._sent.pop((host, package.cpv), frozenset())
        built = came.product.built
        if came.binpkg is not None:
            built = replace(built, binpkg=self._fetched(came.binpkg, route))
            has |= {came.binpkg}
        self._whereabouts.has(host, has)
        return replace(came.product, built=built)

    def _route(self, host: str) -> Route:
        with self._lock:
            route = self._routes.get(host)
        if route is None:
            raise NodeLost(f"{host} is gone")
        return route

    def _fetched(self, blob: Blob, route: Route) -> Path:
        return self.store.fetch(blob, (route.here,), self.client)
