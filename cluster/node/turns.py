"""Who compiles next on the host: slots that jobs share."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(eq=False, slots=True)
class _Waiting:
    name: str
    may_go: threading.Event = field(default_factory=threading.Event)


class Turns:
    """So many compiles at once, whoever they are for. May be used from any thread.

    A slot that comes free goes to the job that has the fewest for its share; a slot that is not wanted by one
    is another's. So a share is what a job gets when all want more than there is.
    """

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._shares: Mapping[str, int] = {}
        self._active: Counter[str] = Counter()
        self._waiting: list[_Waiting] = []
        self._lock = threading.Lock()

    def share(self, shares: Mapping[str, int]) -> None:
        """Jobs' shares from now on, by name, at least 1 each; one that is not named has 1."""
        with self._lock:
            self._shares = dict(shares)

    @property
    def all_taken(self) -> bool:
        """Whether who comes now has to wait."""
        return not self._free

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """Have a slot for the job called `name`, when it is its turn."""
        waiting = _Waiting(name)
        with self._lock:
            self._waiting.append(waiting)
            self._hand_out()
        waiting.may_go.wait()
        try:
            yield
        finally:
            with self._lock:
                self._active[name] -= 1
                self._free += 1
                self._hand_out()

    def _hand_out(self) -> None:
        while self._free and self._waiting:
            first = min(self._waiting, key=self._load)  # of equals the one that has waited longest
            self._waiting.remove(first)
            self._active[first.name] += 1
            self._free -= 1
            first.may_go.set()

    def _load(self, waiting: _Waiting) -> float:
        return (self._active[waiting.name] + 1) / self._shares.get(waiting.name, 1)
