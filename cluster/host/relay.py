"""The one distcc host that the nodes of a host see: a port on loopback for each job, and a pool of distccds behind it.

A request is taken in whole before it takes a slot, so that a node that preprocesses for seconds holds none, and is
given to another member if the first one breaks. A client that cannot be served is hung up on, and compiles in its node.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence, Set
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeVar

from cluster.errors import ClusterError
from cluster.host import distccprotocol, pool
from cluster.host.distcc import Offload
from cluster.host.pool import Load, Member, Pace, Pool, Standing
from cluster.model import Served

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_CLIENT_S = 300.0
"""How long a client waits for an answer (distcc's DISTCC_IO_TIMEOUT), and preprocesses at most."""
_CONNECT_S = 5.0
_CALL_S = 10.0
"""What a caller in another thread waits for the relay's."""
_AWAY_S = 60.0
"""What the compile server waits for another host: long compiles are rare, and those who ask it wait 300 s at most."""
_TRIES = 3
_CROWD = 4
"""Connections of a job for each of its slots: more are not distcc's."""
_PROBED = ("-c", "probe.i", "-o", "probe.o")
_PROBE = b"int probe(void) { return 42; }\n"
_BULK = b"\n" * (4 << 20)
_MEASURE_S = 60.0


@dataclass(frozen=True, slots=True)
class Timing:
    """When a member is looked at; the first two together are less than a minute."""

    every_s: float = 15.0
    """Between two probes of a member that has work."""
    probe_s: float = 20.0
    """What a probe may take: a compile of one line."""
    again_s: float = 5.0
    """From taking a member out to trying it again, the first time."""


class Unserved(ClusterError):
    """A member, or the whole pool, did not do a compile."""


_FAILURES = (Unserved, TimeoutError, CancelledError)
"""Of a call: there is nobody to serve it, in time, or the job or the relay has ended."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The way to a member, as distcc's own connections find it."""

    round_trip_s: float
    bytes_s: float
    """Towards the member."""


@dataclass(eq=False, slots=True)
class _Work:
    """A compile that a member has."""

    job: _Job
    since: float
    size: int


@dataclass(eq=False, slots=True)
class _Seat:
    """A member, with what is known of it and what it is doing."""

    member: Member
    standing: Standing
    doubted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a compile failed: it is given none until a probe has told what that meant."""
    working: dict[_Work, asyncio.Task[bytes]] = field(default_factory=dict)
    watch: asyncio.Task[None] | None = None

    @property
    def is_in(self) -> bool:
        return not self.standing.out and not self.doubted.is_set()

    def drop(self) -> None:
        """Give up what it is doing: others do it."""
        for task in self.working.values():
            task.cancel()

    def leave(self) -> None:
        """Have done with it."""
        self.drop()
        if self.watch is not None:
            self.watch.cancel()

    def pace(self, now: float) -> Pace:
        """With what it has not finished, as if it had now: what hangs counts too."""
        pace = self.standing.pace
        for work in self.working:
            pace = pace.after(now - work.since, work.size)
        return pace


@dataclass(eq=False, slots=True)
class _Job:
    """A package that is being built."""

    package: str
    most: int
    """Connections at once."""
    served: dict[str, Served] = field(default_factory=dict)
    connections: set[asyncio.Task[Any]] = field(default_factory=set)

    def own_this(self) -> None:
        """The running task ends with the job, if not before."""
        task = asyncio.current_task()
        assert task is not None
        self.connections.add(task)
        task.add_done_callback(self.connections.discard)

    def count(self, more: Served) -> None:
        self.served[more.host] = self.served.get(more.host, Served(more.host)) + more


@dataclass(frozen=True, slots=True)
class Access:
    """How a package's node reaches the pool, and what came of it."""

    offload: Offload
    served: Callable[[], tuple[Served, ...]]
    """By host; to be asked after the node is gone, too."""
    away: Elsewhere
    """For this host's compile server."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The other hosts of a pool, as a `cluster.node.halves.Away`."""

    _relay: Relay
    _job: _Job

    def room(self) -> bool:
        """As `Away.room`."""
        with suppress(*_FAILURES):
            return self._relay.has_slot_elsewhere(self._job)
        return False

    def compile(self, argv: Sequence[str], source: bytes) -> bytes | None:
        """As `Away.compile`."""
        with suppress(*_FAILURES):
            request = distccprotocol.request(argv, source)
            reply = distccprotocol.read_reply(self._relay.compile_elsewhere(self._job, request))
            return reply.object if reply.has_object and reply.is_silent else None
        return None


class Relay:
    """Serves the jobs of one host as long as the context lasts; its methods may be called from any thread.

    `compiler` is what probes run, by the name that the members' distccds know; `own` the name of this host.
    """

    def __init__(self, compiler: str, own: str, timing: Timing | None = None) -> None:
        self._compiler = compiler
        self._own = own
        self._timing = timing or Timing()
        self._pool = Pool()
        self._seats: dict[tuple[str, str, int], _Seat] = {}
        self._changed = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="distcc relay", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._call(self._end())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_CALL_S)
            self._loop.close()

    def use(self, wanted: Pool) -> None:
        """Go by `wanted` from now on; what is known of members that stay is kept."""
        self._call(self._use(wanted))

    def out(self) -> dict[str, str]:
        """The members that are given nothing now, and why."""
        return self._call(self._out())

    @contextmanager
    def job(self, package: str, slots: int) -> Iterator[Access]:
        """Serve the node that builds `package`, with up to `slots` compiles at once, on a port of its own.

        How many of them go on at once, and where, is as `use` last said.
        """
        job = _Job(package, most=slots * _CROWD)
        server = self._call(self._listen(job))
        try:
            offload = Offload(server.sockets[0].getsockname()[1], slots, self._pool.lzo)
            yield Access(offload, lambda: tuple(job.served.values()), Elsewhere(self, job))
        finally:
            self._call(_close(server, job))

    def has_slot_elsewhere(self, job: _Job) -> bool:
        """Whether another host would begin a compile of `job` at once."""
        return self._call(self._free_elsewhere(job)) is not None

    def compile_elsewhere(self, job: _Job, request: bytes) -> bytes:
        """The reply of another host. Raises Unserved, at once if none has a slot, TimeoutError and CancelledError."""
        return self._call(self._compiled_elsewhere(job, request), _AWAY_S)

    def _call(self, work: Coroutine[Any, Any, _T], deadline_s: float = _CALL_S) -> _T:
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError as error:
            work.close()
            raise Unserved("the relay has ended") from error
        try:
            return future.result(deadline_s)
        finally:
            future.cancel()

    async def _end(self) -> None:
        await _cancelled({task for task in asyncio.all_tasks() if task is not asyncio.current_task()})

    async def _out(self) -> dict[str, str]:
        return {seat.member.name: seat.standing.out for seat in self._seats.values() if seat.standing.out}

    async def _use(self, wanted: Pool) -> None:
        self._pool = wanted
        named = {(member.name, member.address, member.port): member for member in wanted.members}
        for key in self._seats.keys() - named.keys():
            self._seats.pop(key).leave()
        for key, member in named.items():
            if key in self._seats:
                self._seats[key].member = member
            else:
                seat = self._seats[key] = _Seat(member, Standing(since=time.monotonic()))
                seat.watch = asyncio.create_task(self._watch(seat))
        self._tell()

    async def _listen(self, job: _Job) -> asyncio.Server:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            job.own_this()
            await self._serve(job, reader, writer)

        return await asyncio.start_server(connected, pool.LOOPBACK, 0)

    # A client's connection.

    async def _serve(self, job: _Job, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, or hang up."""
        try:
            if len(job.connections) > job.most:
                return
            async with asyncio.timeout(_CLIENT_S):
                request = await distccprotocol.read_request(reader)
            async with asyncio.timeout(_CLIENT_S):
                writer.write(await self._compiled(job, request))
                await writer.drain()
        except (distccprotocol.Garbled, EOFError, OSError, Unserved) as error:  # TimeoutError is an OSError
            log.debug("distcc of %s is left to compile for itself: %s", job.package, error)
        finally:
            writer.close()

    async def _compiled(self, job: _Job, request: bytes) -> bytes:
        """The reply of the first member that gives one. Raises Unserved."""
        tried: set[str] = set()
        for _ in range(_TRIES):
            seat = await self._seat(job, tried)
            tried.add(seat.member.name)
            with suppress(Unserved):
                return await self._through(seat, job, request)
        raise Unserved(f"{len(tried)} members failed")

    async def _seat(self, job: _Job, tried: set[str]) -> _Seat:
        """Wait for a member that has a slot for `job`. Raises Unserved if there is none to wait for."""
        while True:
            loads = self._loads(job, tried)
            if not loads:
                raise Unserved("no member of the pool is to be had")
            if chosen := pool.choose(tuple(loads), self._own):
                return loads[chosen]
            await self._changed.wait()

    def _loads(self, job: _Job, but: Set[str]) -> dict[Load, _Seat]:
        """The members that may have compiles of `job`, those named `but` left out."""
        seats = [seat for seat in self._seats.values() if not seat.standing.out and seat.member.name not in but]
        loads = {_load(seat, job, self._pool): seat for seat in seats}
        return {load: seat for load, seat in loads.items() if load.allowed}

    async def _free_elsewhere(self, job: _Job) -> _Seat | None:
        loads = self._loads(job, {self._own})
        chosen = pool.choose(tuple(loads), self._own)
        return loads[chosen] if chosen else None

    async def _compiled_elsewhere(self, job: _Job, request: bytes) -> bytes:
        """One try: if it fails this host does it itself."""
        job.own_this()
        seat = await self._free_elsewhere(job)
        if seat is None:
            raise Unserved("no other host has a slot")
        return await self._through(seat, job, request)

    async def _through(self, seat: _Seat, job: _Job, request: bytes) -> bytes:
        """Have `seat` do one compile, and count it."""
        work = _Work(job, time.monotonic(), len(request))
        task = seat.working[work] = asyncio.create_task(_checked(seat.member, request))
        name = seat.member.name
        try:
            await asyncio.wait({task})
            reply = _result(task)
            spent = time.monotonic() - work.since
            seat.standing = replace(seat.standing, pace=seat.standing.pace.after(spent, len(request)))
            job.count(Served(name, 1, seconds=spent, wire_bytes=len(request) + len(reply)))
            return reply
        except Unserved:
            job.count(Served(name, failed=1))
            seat.doubted.set()
            raise
        finally:
            task.cancel()
            del seat.working[work]
            self._tell()

    def _tell(self) -> None:
        """Wake those who wait for a slot."""
        self._changed.set()
        self._changed = asyncio.Event()

    # How members stand.

    async def _watch(self, seat: _Seat) -> None:
        """Probe a member that has work or is out, now and then, and at once when a compile failed."""
        while True:
            if seat.standing.out:
                await asyncio.sleep(seat.standing.wait_s(self._timing.again_s))
            else:
                with suppress(TimeoutError):
                    await asyncio.wait_for(seat.doubted.wait(), self._timing.every_s)
            if seat.working or not seat.is_in:
                await self._look(seat)

    async def _look(self, seat: _Seat) -> None:
        before = seat.standing.out
        try:
            await probe(seat.member, self._compiler, self._timing.probe_s)
            seat.standing = self._judged(seat, time.monotonic())
        except Unserved as error:
            seat.standing = seat.standing.failed(str(error), time.monotonic())
            seat.drop()
        seat.doubted.clear()
        self._tell()
        if bool(before) != bool(seat.standing.out):
            log.info("distccd of %s is %s", seat.member.name, f"out: {seat.standing.out}" if not before else "in again")

    def _judged(self, seat: _Seat, now: float) -> Standing:
        """How one stands that has answered a probe; what it does is left to it even if it is slow."""
        others = [other.pace(now) for other in self._seats.values() if other is not seat and other.is_in]
        if not seat.standing.out and pool.is_slow(seat.pace(now), others):
            return seat.standing.failed("much slower than the others", now)
        return seat.standing.answered(now)


def _load(seat: _Seat, job: _Job, wanted: Pool) -> Load:
    used = sum(work.job is job for work in seat.working)
    allowed = wanted.allowed(job.package, seat.member)
    return Load(seat.member, allowed, used, len(seat.working), doubted=seat.doubted.is_set())


def _result(task: asyncio.Task[bytes]) -> bytes:
    """What the task came to; Unserved if it was cancelled, because its member was taken out."""
    if task.cancelled():
        raise Unserved("its member was taken out")
    return task.result()


async def _close(server: asyncio.Server, job: _Job) -> None:
    server.close()
    await _cancelled(set(job.connections))


async def _cancelled(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _checked(member: Member, request: bytes) -> bytes:
    """A whole reply of `member`. Raises Unserved."""
    try:
        reply = await _exchange(member, request)
        distccprotocol.read_reply(reply)
        return reply
    except (distccprotocol.Garbled, OSError) as error:
        raise Unserved(str(error) or "it did not answer in time") from error


async def _exchange(member: Member, request: bytes) -> bytes:
    async with asyncio.timeout(_CONNECT_S):
        reader, writer = await asyncio.open_connection(member.address, member.port)
    try:
        writer.write(request)
        await writer.drain()
        reply = bytearray()
        while part := await reader.read(1 << 16):
            reply += part
            if len(reply) > distccprotocol.MOST_REPLY:
                raise distccprotocol.Garbled("the reply does not end")
        return bytes(reply)
    finally:
        writer.close()


async def probe(member: Member, compiler: str, deadline_s: float, source: bytes = _PROBE) -> None:
    """Compile one line through `member`. Raises Unserved."""
    try:
        async with asyncio.timeout(deadline_s):
            reply = await _checked(member, distccprotocol.request((compiler, *_PROBED), source))
    except TimeoutError as error:
        raise Unserved(f"a line was not compiled within {deadline_s:g} s") from error
    if not distccprotocol.read_reply(reply).has_object:
        raise Unserved("it does not compile a line")


def measure(member: Member, compiler: str) -> Measured:
    """Measure the way to `member` by compiling a line, without and with 4 MiB of empty ones. Raises Unserved."""
    return asyncio.run(_measure(member, compiler))


async def _measure(member: Member, compiler: str) -> Measured:
    try:
        connect = await _timed(_reach(member))
    except OSError as error:
        raise Unserved(str(error) or f"no connection within {_CONNECT_S:g} s") from error
    short = await _timed(probe(member, compiler, _MEASURE_S))
    long = await _timed(probe(member, compiler, _MEASURE_S, _BULK + _PROBE))
    return Measured(connect, len(_BULK) / max(long - short, 1e-3))


async def _reach(member: Member) -> None:
    async with asyncio.timeout(_CONNECT_S):
        _, writer = await asyncio.open_connection(member.address, member.port)
    writer.close()


async def _timed(work: Coroutine[Any, Any, None]) -> float:
    begin = time.monotonic()
    await work
    return time.monotonic() - begin
