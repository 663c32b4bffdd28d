"""What every engine promises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from cluster.host.builder import Entered
from cluster.model import Job, Outcome


class Engine(Protocol):
    """Runs one job at a time on each of its nodes; may be called from several threads."""

    def run(self, job: Job, node: str, entered: Entered) -> Outcome:
        """Run `job` on `node` to its outcome, telling `entered` of each phase."""
        ...

    def share(self, slots: Mapping[str, int]) -> None:
        """How many of the compile slots each node has from now on, where all want more than there are."""
        ...

    def stop(self) -> None:
        """End all that runs, so that `run` returns soon."""
        ...
