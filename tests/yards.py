"""Real workers of Dask for tests, on loopback."""

from __future__ import annotations

import os
import queue
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.host.tls import Authority
from cluster.master.engines.crew import Crew
from cluster.master.engines.scheduler import CONFIG, Scheduler
from cluster.master.hosts import launch
from cluster.process import Child

TARGET = "arm64"
PATIENCE_S = 30.0


@dataclass
class Yard:
    """A scheduler, the crew of its workers, and what was heard of hosts."""

    directory: Path
    authority: Authority
    scheduler: Scheduler
    crew: Crew
    heard: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)

    def worker(self, name: str, nodes: int = 2, **post: Any) -> Child:
        """Start the worker of a host; to be killed."""
        place = self.directory / name
        place.mkdir(exist_ok=True)
        there = launch.Post(name, {TARGET: nodes}, self.authority.issue(name), place, **post)
        paths = (Path(__file__).parent, Path(__file__).parents[1])  # of what tests send there
        env = {**os.environ, "DASK_CONFIG": str(CONFIG), "PYTHONPATH": ":".join(map(str, paths))}
        argv = launch.words(sys.executable, self.scheduler.address, there)
        return Child(argv, log_path=self.directory / f"{name}.log", env=env)

    def next(self) -> Any:
        """What is heard next of a host."""
        return self.heard.get(timeout=PATIENCE_S)
