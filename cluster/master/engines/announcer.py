"""What is of ours in the `dask scheduler`: it tells the master which workers come and go, and which jobs Dask gave up.

In events of the topic of `cluster.host.worker`: {"came": ADDRESS, "resources": {NAME: COUNT}, "said": what the worker
says of itself}, {"went": ADDRESS, "reason": WHY} and {"job": N, "erred": WHY}.
"""

from __future__ import annotations

from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin

from cluster.host.worker import ANNOUNCED, TOPIC

_NAME = "portage-cluster"
_REASONS = {
    "check-worker-ttl": "nothing was heard of it",
    "handle-worker-cleanup": "its connection broke",
}
"""By the beginning of what Dask calls the stimulus."""


class Announcer(SchedulerPlugin):  # type: ignore[misc]
    """Publishes events as workers come and go."""

    name = _NAME

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler

    def add_worker(self, scheduler: Any, worker: str) -> None:
        """A worker has registered."""
        state = scheduler.workers[worker]
        said = state.extra.get(ANNOUNCED, {})
        scheduler.log_event(TOPIC, {"came": worker, "resources": dict(state.resources), "said": said})

    def remove_worker(self, scheduler: Any, worker: str, *, stimulus_id: str, **unused: Any) -> None:
        """A worker is gone."""
        reasons = (reason for stimulus, reason in _REASONS.items() if stimulus_id.startswith(stimulus))
        scheduler.log_event(TOPIC, {"went": worker, "reason": next(reasons, "it left")})

    def transition(self, key: Any, start: str, finish: str, *unused: Any, **details: Any) -> None:
        """A job has ended without a word of ours; those of a worker that is gone are not told of."""
        if finish == "erred" and details.get("worker") in self._scheduler.workers:
            why = details.get("exception_text") or "Dask does not say why"
            self._scheduler.log_event(TOPIC, {"job": key[1], "erred": why})


def call_roll(client: str, dask_scheduler: Any) -> None:
    """Run in the scheduler for `client`: tell it of the workers that are there, and from then on of the others."""
    dask_scheduler.subscribe_topic(TOPIC, client)
    for worker in dask_scheduler.workers:
        dask_scheduler.plugins[_NAME].add_worker(dask_scheduler, worker)


def dask_setup(scheduler: Any) -> None:
    """Called by Dask as the scheduler starts (`--preload`)."""
    scheduler.add_plugin(Announcer(scheduler), name=_NAME)
