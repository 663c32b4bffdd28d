"""A worker of Dask that is nothing but its conversation with the scheduler, so that a process has hundreds of them.

What it is told and what it says is what passes between scheduler and `dask worker --preload cluster.host.worker`, over
the same TLS: it registers, beats as often as it is asked to, does errands and says what comes of them, frees keys and
leaves. Left out are threads (an errand is to take no time, and an exception that is none of ours ends the worker),
Dask's state machine, data, the metrics of its machine, and offers for a pool. It listens at no port: it cannot be
called, as the master does to abandon a job or to change the slots of what is being built.

    python -m cluster.bench.lightworker SCHEDULER DIRECTORY TARGET NAME COUNT

is the workers of COUNT hosts `hNAME-0`... of one node each, with the master's certificate, which is in DIRECTORY.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from distributed.batched import BatchedSend
from distributed.comm import CommClosedError, connect
from distributed.core import send_recv
from distributed.protocol.pickle import dumps
from distributed.security import Security
from distributed.versions import get_versions

from cluster.host import worker
from cluster.host.bench import Benches
from cluster.host.tls import Identity
from cluster.master.engines.crew import resource

_AT_ONCE = 50
"""Workers that join together."""
_BATCH = "2ms"
"""As in Dask's worker."""
_THREAD_S = 0.001
"""How much later than by an errand's last word Dask's worker hears that the thread has ended which did it."""
_NONE = dumps(type(None))
"""The type of what an errand returns to Dask."""
_MOVED = {f"{way}_{what}": 0 for way in ("incoming", "outgoing") for what in ("bytes", "count", "count_total")}
_IDLE = {"read_bps": 0.0, "write_bps": 0.0}


class LightWorker:
    """The worker of the host `name`; its resources and what it says of itself are as `dask worker` would have them."""

    def __init__(
        self, scheduler: str, name: str, resources: Mapping[str, int], directory: Path, secure: Mapping[str, Any]
    ) -> None:
        self._scheduler, self._name, self._resources, self._secure = scheduler, name, resources, secure
        self._directory = directory
        self._benches = Benches(directory)
        self._stream = BatchedSend(_BATCH)
        self._address = ""
        self._beat_s = 0.0

    async def join(self) -> None:
        """Register. Raises OSError if the scheduler cannot be reached."""
        self._comm = await connect(self._scheduler, **self._secure)
        self._address = self._comm.local_address  # one of its own, as Dask wants it, at which nobody listens
        await self._comm.write(self._registration(), serializers=["msgpack"])
        self._beat_s = (await self._comm.read(deserializers=["msgpack"]))["heartbeat-interval"]
        self._stream.start(self._comm)
        self._send(op="worker-status-change", status="running", stimulus_id=_stimulus("worker-status-change"))
        self._beats = await connect(self._scheduler, **self._secure)  # Dask's do so at the first of them

    async def serve(self) -> None:
        """Do what the scheduler says until it ends the connection."""
        beats = asyncio.create_task(self._beat())
        try:
            with suppress(CommClosedError):
                while True:
                    for message in await self._comm.read():
                        if message["op"] in ("close", "close-stream"):
                            return
                        self._hear(message)
        finally:
            beats.cancel()
            self._benches.stop()
            self._comm.abort()

    def _registration(self) -> dict[str, Any]:
        return {
            "op": "register-worker",
            "reply": False,
            "address": self._address,
            "status": "init",
            "nthreads": sum(self._resources.values()) + 1,
            "name": self._address,
            "now": time.time(),
            "resources": dict(self._resources),
            "memory_limit": None,
            "local_directory": str(self._directory),
            "services": {},
            "nanny": None,
            "pid": os.getpid(),
            "versions": get_versions(),
            "metrics": _metrics(),
            "extra": {worker.ANNOUNCED: worker.announced(self._name, 1.0, self._directory)},
            "stimulus_id": _stimulus("worker-connect"),
            "server_id": f"Worker-{uuid.uuid4()}",
        }

    def _hear(self, message: dict[str, Any]) -> None:
        match message:
            case {"op": "compute-task", "run_spec": task}:
                start = time.time()
                worker.carry_out(pickle.loads(task.args[0]), self._benches, self._log)
                asyncio.get_running_loop().call_later(_THREAD_S, self._finish, message, start, time.time())
            case {"op": "free-keys", "keys": keys, "stimulus_id": stimulus}:
                for key in keys:
                    self._send(op="release-worker-data", key=key, stimulus_id=stimulus)

    def _finish(self, message: dict[str, Any], start: float, stop: float) -> None:
        self._send(
            op="task-finished",
            status="OK",
            key=message["key"],
            run_id=message["run_id"],
            nbytes=16,
            type=_NONE,
            typename="NoneType",
            metadata={},
            thread=0,
            startstops=[{"action": "compute", "start": start, "stop": stop}],
            stimulus_id=_stimulus("task-finished"),
        )

    def _log(self, topic: str, what: dict[str, Any]) -> None:
        self._send(op="log-event", topic=topic, msg=what)

    def _send(self, **message: Any) -> None:
        with suppress(CommClosedError):  # `serve` ends for it
            self._stream.send(message)

    async def _beat(self) -> None:
        beat = partial(send_recv, self._beats, op="heartbeat_worker", address=self._address, executing={})
        with suppress(OSError):
            while True:
                await asyncio.sleep(self._beat_s)
                heard = await beat(now=time.time(), metrics=_metrics(), extensions={"spans": {}, "shuffle": {}})
                self._beat_s = heard["heartbeat-interval"]


def _stimulus(what: str) -> str:
    return f"{what}-{time.time()}"


def _metrics() -> dict[str, Any]:
    """Of a worker that has done nothing, with the names that Dask's scheduler asks for."""
    return {
        "task_counts": {},
        "bandwidth": {"total": 100_000_000, "workers": {}, "types": {}},
        "digests_total_since_heartbeat": {},
        "managed_bytes": 0,
        "spilled_bytes": {"memory": 0, "disk": 0},
        "transfer": _MOVED,
        "event_loop_interval": 1.0,
        "cpu": 0.0,
        "memory": 100_000_000,
        "time": time.time(),
        "host_net_io": _IDLE,
        "host_disk_io": _IDLE,
        "num_fds": 8,
    }


async def serve(scheduler: str, directory: Path, target: str, name: str, count: int) -> None:
    """Be the workers of `count` hosts until the scheduler is gone."""
    identity = Identity.at(directory / "authority" / "master")
    security = Security(
        require_encryption=True,
        tls_ca_file=str(identity.authority),
        tls_worker_cert=str(identity.certificate),
        tls_worker_key=str(identity.key),
    )
    secure, nodes = security.get_connection_args("worker"), {resource(target): 1}
    workers = [LightWorker(scheduler, f"h{name}-{number}", nodes, directory, secure) for number in range(count)]
    for first in range(0, count, _AT_ONCE):
        await asyncio.gather(*(worker.join() for worker in workers[first : first + _AT_ONCE]))
    await asyncio.gather(*(worker.serve() for worker in workers))


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5])))
