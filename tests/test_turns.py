"""Who compiles next on the host."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from cluster.node.turns import Turns

_PATIENCE_S = 20.0  # never reached when the tests pass


class Crowd:
    """Threads that want a slot, have it until they are told to go, and say who has one."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.has: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._leaving: Counter[str] = Counter()
        self._pool = ThreadPoolExecutor(max_workers=32)

    def want(self, name: str, count: int = 1) -> None:
        """`count` compiles of a job come, one after another."""
        for _ in range(count):
            self._pool.submit(self._stay, name)

    def leave(self, name: str) -> None:
        """One compile of a job ends."""
        with self._changed:
            self._leaving[name] += 1
            self._changed.notify_all()

    def until(self, **has: int) -> None:
        """Wait until the jobs have so many slots, and no other has any."""
        self._wait(lambda: +self.has == Counter(has))

    def _stay(self, name: str) -> None:
        with self.turns.turn(name):
            self._change(name, 1)
            self._wait(lambda: self._leaving[name] > 0, lambda: self._leaving.subtract([name]))
            self._change(name, -1)

    def _change(self, name: str, by: int) -> None:
        with self._changed:
            self.has[name] += by
            self._changed.notify_all()

    def _wait(self, holds: Callable[[], bool], then: Callable[[], None] = lambda: None) -> None:
        with self._changed:
            assert self._changed.wait_for(holds, _PATIENCE_S), f"{dict(self.has)} have slots"
            then()


def test_no_more_compile_at_once_than_there_are_slots() -> None:
    crowd = Crowd(Turns(2))
    crowd.want("a", 3)
    crowd.until(a=2)
    crowd.leave("a")
    crowd.until(a=2)
    crowd.leave("a")
    crowd.leave("a")
    crowd.until()


def test_a_slot_goes_to_the_job_that_has_the_fewest_for_its_share() -> None:
    turns = Turns(4)
    turns.share({"critical": 3, "other": 1})
    crowd = Crowd(turns)
    crowd.want("other", 8)
    crowd.until(other=4)  # nobody else wants them
    crowd.want("critical", 8)
    for has in ({"other": 3, "critical": 1}, {"other": 2, "critical": 2}, {"other": 1, "critical": 3}):
        crowd.leave("other")
        crowd.until(**has)
    crowd.leave("critical")
    crowd.until(other=1, critical=3)
    for _ in range(7):
        crowd.leave("other")
        crowd.leave("critical")
    for _ in range(2):
        crowd.leave("other")
        crowd.leave("critical")
    crowd.until()


def test_a_compile_that_breaks_gives_its_slot_back() -> None:
    turns = Turns(1)
    with pytest.raises(OSError), turns.turn("a"):
        raise OSError
    with turns.turn("b"):
        pass


def test_all_are_taken_as_long_as_the_last_one_is() -> None:
    turns = Turns(2)
    with turns.turn("a"):
        assert not turns.all_taken
        with turns.turn("b"):
            assert turns.all_taken
        assert not turns.all_taken
