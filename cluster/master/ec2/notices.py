"""Rented hosts are told that their master lives, and asked whether Amazon takes them back."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import ClusterError, MachineError
from cluster.master.ec2.userdata import ALIVE, NOTICE
from cluster.master.hosts import link
from cluster.master.hosts.registry import Machine
from cluster.node.ssh import Connection

EVERY_S = 5.0
"""Amazon tells two minutes ahead, and the instance hears of it within five seconds."""
_ANSWER_S = 20.0
_MISSED = 6
"""Questions without an answer after which a host counts as gone."""
_AT_ONCE = 64
_ASK = f"cat /proc/uptime >{ALIVE}; cat {NOTICE} 2>/dev/null || true"


@dataclass(frozen=True, slots=True)
class Draining:
    """A host is to be given no more work, as Amazon takes it back."""

    name: str
    at: str
    """When, as Amazon says it; "" if it does not."""


@dataclass(frozen=True, slots=True)
class Went:
    """A host does not answer any more: what it had in work is lost, not failed."""

    name: str


News = Draining | Went


class Host:
    """One that is asked again and again over one connection, which is opened anew when it breaks."""

    def __init__(self, machine: Machine, identity: Path) -> None:
        self.machine = machine
        self._identity = identity
        self._connection: Connection | None = None
        self._missed = 0
        self._told: set[News] = set()

    def ask(self) -> News | None:
        """What is new of it. It hears by the question that its master lives."""
        news: News | None
        try:
            news = notice(self.machine.name, self._answer())
            self._missed = 0
        except MachineError:
            self.close()
            self._missed += 1
            news = Went(self.machine.name) if self._missed >= _MISSED else None
        if news is None or news in self._told:
            return None
        self._told.add(news)
        return news

    def _answer(self) -> str:
        if self._connection is None:
            self._connection = link.connect(self.machine, self._identity, deadline_s=_ANSWER_S)
        return link.command(self.machine, self._connection, _ASK, deadline_s=_ANSWER_S)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def notice(name: str, said: str) -> Draining | None:
    """What the host `name` said of an interruption, None for nothing."""
    if not said.strip():
        return None
    try:
        word: Mapping[str, object] = json.loads(said)
        return Draining(name, str(word["time"]))
    except (ValueError, KeyError, TypeError):
        return Draining(name, "")


class Notices:
    """Asks all rented ones of the machines that there are at the time, with the private key `identity`."""

    def __init__(self, machines: Callable[[], Iterable[Machine]], identity: Path) -> None:
        self._machines, self._identity = machines, identity
        self._hosts: dict[str, Host] = {}
        """By the id of the instance."""
        self._pool = ThreadPoolExecutor(_AT_ONCE)

    def poll(self) -> Iterator[News]:
        """Ask each once, all together; gives what is new. Raises what finding the machines raises."""
        there = {machine.rented: machine for machine in self._machines() if machine.rented}
        for id_ in self._hosts.keys() - there.keys():
            self._hosts.pop(id_).close()
        for id_ in there.keys() - self._hosts.keys():
            self._hosts[id_] = Host(there[id_], self._identity)
        yield from (news for news in self._pool.map(Host.ask, self._hosts.values()) if news is not None)

    def close(self) -> None:
        """Close the connections."""
        self._pool.shutdown()
        for host in self._hosts.values():
            host.close()


@contextmanager
def watching(
    machines: Callable[[], Iterable[Machine]],
    identity: Path,
    hear: Callable[[News], object],
    *,
    every_s: float = EVERY_S,
) -> Iterator[None]:
    """As long as this lasts the rented ones of `machines` know that their master lives, and `hear` is told of news.

    Both are called from another thread, and `machines` each time anew.
    """
    notices = Notices(machines, identity)
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            with suppress(ClusterError):  # half a registry: look again
                for news in notices.poll():
                    hear(news)
            over.wait(every_s)

    thread = threading.Thread(target=watch, name="notices", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        notices.close()
