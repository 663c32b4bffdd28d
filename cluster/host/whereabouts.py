"""Which hosts have which blob, so that one host gets from another what the master need not send again."""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict
from collections.abc import Iterable

from cluster.host.store import Blob

_ASKED = 3
"""Hosts that are asked for a blob before the master is."""


class Whereabouts:
    """The master's account of what its hosts have; may be used by several threads.

    A host may have pruned what is on account: who asks for it there is refused, and asks elsewhere.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._urls: dict[str, str] = {}
        self._holders: defaultdict[Blob, set[str]] = defaultdict(set)

    def came(self, host: str, url: str) -> None:
        """The host called `host` serves its blobs to the others at `url`; what it has had before is forgotten."""
        self.went(host)
        with self._lock:
            self._urls[host] = url

    def went(self, host: str) -> None:
        """`host` is not there any more."""
        with self._lock:
            self._urls.pop(host, None)
            for holders in self._holders.values():
                holders.discard(host)

    def has(self, host: str, blobs: Iterable[Blob]) -> None:
        """`host` has `blobs` now; nothing if others cannot reach it."""
        with self._lock:
            if host in self._urls:
                for blob in blobs:
                    self._holders[blob].add(host)

    def sources(self, blobs: Iterable[Blob], host: str, master: str) -> dict[Blob, tuple[str, ...]]:
        """The URLs where `host` gets each of `blobs`: other hosts that have it, then `master`.

        Each host asks in an order of its own for each blob, so that those that have it share the work.
        """
        with self._lock:
            return {blob: (*self._nearest(blob, host), master) for blob in blobs}

    def _nearest(self, blob: Blob, host: str) -> list[str]:
        holders = self._holders.get(blob, set()) - {host}
        ranked = sorted(holders, key=lambda holder: hashlib.blake2b(f"{holder} {host} {blob.sha256}".encode()).digest())
        return [self._urls[holder] for holder in ranked[:_ASKED]]
