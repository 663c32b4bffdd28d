"""What is of ours in the `dask worker` of a host.

    DASK_CONFIG=dask.yaml dask worker SCHEDULER --no-nanny --nthreads NODES+1 --resources node-arm64=NODES \\
        --preload cluster.host.worker --host-name NAME --speed 1.5 --directory DIR

What it has to say to the master it says in events of the topic `TOPIC`, not in results of Dask's, for which the
master would have to ask: {"job": N, "phase": NAME} and, at the end, {"job": N, "came": what, pickled}; and
{"host": NAME, "offer": what it has for a pool of distccds, pickled} or {"host": NAME, "refused": why it has none}.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import pickle
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
from distributed import get_worker

from cluster import paths
from cluster.errors import ClusterError
from cluster.host import relay
from cluster.host.bench import Benches, Equipment
from cluster.host.pool import Member, Pool
from cluster.host.relay import Measured
from cluster.node import qemu

log = logging.getLogger(__name__)

TOPIC = "portage-cluster"
ANNOUNCED = "portage-cluster"
"""The key of what a worker says of itself as it registers."""

_LOOK_S = 5.0
_SILENT_S = 30.0
"""A master that does not answer for so long is gone."""


@dataclass(frozen=True, slots=True)
class Errand:
    """A job as it goes to a host."""

    job: int
    node: str
    equipment: Equipment
    parcel: Any
    slots: Mapping[str, int]
    """Compile slots of this host's nodes from now on; empty for no change."""


def versions() -> dict[str, str]:
    """What has to be the same on master and hosts."""
    return {name: importlib.metadata.version(name) for name in ("portage-cluster", "distributed")}


def announced(host: str, speed: float, directory: Path) -> dict[str, Any]:
    """What a worker says of the host that it is on."""
    room = {"memory_mib": qemu.available_mib(), "disk_mib": paths.free_mib(directory)}
    return {"host": host, "speed": speed, "versions": versions(), **room}


def perform(packed: bytes) -> None:
    """Do the pickled errand in this worker; what comes of it goes to the master by events."""
    worker = get_worker()
    carry_out(pickle.loads(packed), worker.benches, worker.log_event)


def carry_out(errand: Errand, benches: Benches, log_event: Callable[[str, dict[str, Any]], None]) -> None:
    """Do an errand; `log_event` is Dask's, by which it is told of."""
    say = partial(log_event, TOPIC)
    if errand.slots:
        benches.share(errand.slots)
    if errand.equipment.is_early and not benches.has(errand.equipment):
        say({"job": errand.job, "phase": "the host's set-up"})
    try:
        bench = benches.of(errand.equipment)
        came = bench.build(errand.parcel, errand.node, lambda phase: say({"job": errand.job, "phase": phase}))
    except ClusterError as error:
        came = error
    say({"job": errand.job, "came": pickle.dumps(came)})


def abandon(node: str, dask_worker: Any) -> None:
    """End what is being built in `node`."""
    dask_worker.benches.abandon(node)


def share(slots: dict[str, int], dask_worker: Any) -> None:
    """How many compile slots each node of this host has."""
    dask_worker.benches.share(slots)


def pool(pool: Pool, dask_worker: Any) -> None:
    """Which distccds the nodes of this host may use."""
    dask_worker.benches.pool(pool)


async def equip(packed: bytes, dask_worker: Any) -> None:
    """Make the bench of the pickled equipment before the first job asks for it."""
    dask_worker.loop.run_in_executor(None, _equipped, dask_worker, packed)


def _equipped(worker: Any, packed: bytes) -> None:
    try:
        worker.benches.of(pickle.loads(packed))
    except ClusterError as error:
        worker.log_event(TOPIC, {"host": worker.host_name, "refused": str(error)})


async def measure(member: Member, compiler: str) -> Measured | str:
    """How the way from this host to a distccd is; why there is none in one line."""
    try:
        return await asyncio.to_thread(relay.measure, member, compiler)
    except relay.Unserved as error:
        return str(error)


@click.command()
@click.option("--host-name", required=True)
@click.option("--speed", type=float, default=1.0)
@click.option("--directory", type=click.Path(path_type=Path), required=True)
def dask_setup(worker: Any, host_name: str, speed: float, directory: Path) -> None:
    """Called by Dask before the worker registers (`--preload`)."""
    worker.host_name = host_name
    worker.benches = Benches(
        directory, lambda offer: worker.log_event(TOPIC, {"host": host_name, "offer": pickle.dumps(offer)})
    )

    worker.startup_information[ANNOUNCED] = lambda worker: announced(host_name, speed, directory)
    worker.loop.add_callback(_watch, worker)


async def dask_teardown(worker: Any) -> None:
    """Called by Dask as the worker closes, for whatever reason: its nodes end."""
    await asyncio.to_thread(worker.benches.stop)


async def _watch(worker: Any) -> None:
    """Close the worker when the master is silent: a tunnel may stand where nobody is at its other end any more.

    The scheduler answers a heartbeat at least every 6 seconds, of 1,000 workers; each answer changes the delay.
    """
    heard, delay = time.monotonic(), None
    while worker.status.name in ("init", "running", "paused"):
        await asyncio.sleep(_LOOK_S)
        if worker.scheduler_delay != delay:
            heard, delay = time.monotonic(), worker.scheduler_delay
        elif time.monotonic() - heard > _SILENT_S:
            log.warning("the master is gone")
            await worker.close(reason="the master is gone")
