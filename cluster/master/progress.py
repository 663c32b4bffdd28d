"""What a run tells whoever watches it."""

from __future__ import annotations

from typing import Protocol

from cluster.master.schedule.state import State
from cluster.model import Job, Outcome, Plan


class Progress(Protocol):
    """What a run tells while it goes on; `entered` may be called from any thread."""

    def dispatched(self, job: Job, node: str) -> None:
        """A job was given to a node."""
        ...

    def entered(self, node: str, phase: str) -> None:
        """The job of `node` is in a new phase."""
        ...

    def ended(self, outcome: Outcome) -> None:
        """A package ended, in whatever way."""
        ...

    def tick(self) -> None:
        """About a second has passed."""
        ...

    def warn(self, text: str) -> None:
        """Something a person should know, which stops nothing."""
        ...


class Teller(Protocol):
    """Tells a person what goes on; from any thread."""

    def step(self, text: str) -> None:
        """Something else begins, which may take a while."""
        ...

    def tell(self, text: str) -> None:
        """Something came out that is worth seeing before the end."""
        ...


class Reporter(Progress, Teller, Protocol):
    """The same of a run."""

    def start(self, plan: Plan) -> None:
        """The jobs of `plan` begin."""
        ...

    def expect(self, end: float) -> None:
        """The jobs are expected to be done then, in seconds since the epoch."""
        ...


class Watcher(Protocol):
    """Is shown what the scheduler of a run knows."""

    def saw(self, state: State, now: float) -> None:
        """Where the run stands at `now`, seconds since its start; after each step, and about once a second."""
        ...

    def entered(self, node: str, phase: str) -> None:
        """The job of `node` is in a new phase; from any thread."""
        ...
