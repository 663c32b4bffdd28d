"""What every engine promises: hosts that come and go, and jobs that run on their nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from cluster.host.builder import Entered
from cluster.master.schedule.hosts import Host
from cluster.model import Job, Outcome


@dataclass(frozen=True, slots=True)
class Came:
    """A host is there. One that comes back comes as a new one, after it Went."""

    host: Host


@dataclass(frozen=True, slots=True)
class Went:
    """A host is gone, and what it was building is lost. What comes of that after all may still be told."""

    host: str
    reason: str


@dataclass(frozen=True, slots=True)
class Draining:
    """A host is to be given nothing new; what it is building ends as ever."""

    host: str
    reason: str


@dataclass(frozen=True, slots=True)
class Resumed:
    """A host that was drained, by whomever, is to be given packages again."""

    host: str


Change = Came | Went | Draining | Resumed
Ended = Callable[[Outcome | BaseException], None]
"""Is told how a job ended; an exception is a defect of ours, which ends the run."""


class Engine(Protocol):
    """Runs one job at a time on each node of its hosts. It is called from one thread, and calls back from any."""

    def attend(self, hear: Callable[[Change], None]) -> tuple[Host, ...]:
        """The hosts that there are; `hear` is told of what changes from now on. Called once, before all else."""
        ...

    def expects(self) -> bool:
        """Whether hosts may come that are not there, or be resumed. It is told what came before this turns false."""
        ...

    def start(self, job: Job, node: str, entered: Entered, ended: Ended) -> None:
        """Begin `job` on `node`, which is free, and return at once.

        `entered` is told of each phase, and then `ended` once, unless the node's host Went: then it may be told or not.
        """
        ...

    def abandon(self, node: str) -> None:
        """End what runs on `node`, if anything does: `ended` is told soon, that it is lost if it was in time."""
        ...

    def share(self, slots: Mapping[str, int]) -> None:
        """How many of its host's compile slots each node has from now on, where all want more than there are.

        Of a host that is named all nodes that build are; on others it is as it was.
        """
        ...

    def quarantine(self, host: str, reason: str) -> None:
        """The run gives `host` nothing more until it is Resumed, in a line why; for whatever outlives the run."""
        ...

    def stop(self) -> None:
        """End all that runs, so that all is told soon; nothing is started after that."""
        ...
