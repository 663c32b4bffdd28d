"""A bench for tests of the Dask engine: what it builds is a word that says what becomes of it."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import NodeLost
from cluster.host.pool import Offer, Pool

_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class FakeEquipment:
    """Makes a FakeBench."""

    name: str = "fake"
    offer: Offer | None = None

    @property
    def is_early(self) -> bool:
        return self.offer is not None

    def bench(self, directory: Path) -> FakeBench:
        return FakeBench(directory, self.offer)


class FakeBench:
    """Writes what it is told into `directory`, a file for each; `hang` lasts until it is ended."""

    def __init__(self, directory: Path, offer: Offer | None = None) -> None:
        self._directory, self._offer = directory, offer
        self._ends: defaultdict[str, threading.Event] = defaultdict(threading.Event)

    def build(self, parcel: str, node: str, entered: Callable[[str], None]) -> str:
        entered("compile")
        if parcel == "die":
            os._exit(9)
        if parcel == "broken":
            raise ZeroDivisionError("a defect")
        if parcel == "hang":
            assert self._ends[node].wait(_PATIENCE_S)
            del self._ends[node]
            raise NodeLost("it was ended", "begin again")
        return f"{parcel} in {node} by {os.getpid()}"

    def abandon(self, node: str) -> None:
        self._ends[node].set()

    def share(self, slots: Mapping[str, int]) -> None:
        (self._directory / "slots").write_text(repr(dict(slots)))

    def pool(self, pool: Pool) -> None:
        (self._directory / "pool").write_text(repr(pool))

    @property
    def offer(self) -> Offer | None:
        return self._offer

    def stop(self) -> None:
        (self._directory / "stopped").touch()
        for end in self._ends.values():
            end.set()
