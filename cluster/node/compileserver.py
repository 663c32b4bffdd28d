"""The compile server: does on the host, in a sandbox that looks like the node, what a node's compiler is asked.

One server serves all nodes of a run, each job by a token of its own. For a request it learns
from the client which files of the build tree the compiler could read, looks the whole up in the
cache, else runs the host's cross compiler, and has the client write the result. It refuses what
it does not fully understand; the client then goes on to the next compiler in its PATH.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import socket
import struct
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from random import Random
from typing import Self

from cluster.errors import ClusterError
from cluster.node import wire
from cluster.node.buildtree import BuildTree, Unusable, View, absolute, lay_out, leftovers
from cluster.node.commandline import ENVIRONMENT_PASSED, Refusal, parse
from cluster.node.compilecache import CompileCache, Compiled, Product, key
from cluster.node.compileinputs import Inputs, Needs, Sealed, inputs
from cluster.node.halves import Away, halves, is_portable
from cluster.node.sandbox import Unfinished
from cluster.node.sysroot import Root
from cluster.node.turns import Turns

log = logging.getLogger(__name__)

_COMPILE_S = 240.0
_PREPROCESS_S = 30.0
_CLIENT_S = 60.0
"""How long a client may take for an answer; an audit may take as long as a compile."""
_BACKLOG = 64
_ROUNDS = 40
"""Of questions for one request: more would be a loop."""
_OWN_ENVIRONMENT = {"TMPDIR": "/tmp"}
_TEMPORARY = re.compile(rb"\S*/cc[A-Za-z0-9]{6}(?=\.)")
"""A name that gcc made up, in messages of the linker."""
_ASSEMBLER = b"Assembler messages:"
_NO_LIBRARY = b"needed by"
"""ld's warning about a library of a library that it did not find."""


@dataclass(slots=True)
class Tally:
    """What the server did for one job."""

    compiled: int = 0
    cached: int = 0
    away: int = 0
    """Of those compiled, which another host did."""
    seconds: float = 0.0
    """Of its compilers, added up; on a full machine that is more than the CPU time that they had."""
    refused: Counter[str] = field(default_factory=Counter)
    """By reason."""
    received: int = 0
    """Bytes from the node."""
    sent: int = 0
    audited: int = 0
    differing: list[str] = field(default_factory=list)
    """Command lines whose result was not the node's own."""


class Link:
    """Frames over a connection to a client."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.received = 0
        self.sent = 0
        if connection.family == socket.AF_INET:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(_CLIENT_S)

    def receive(self, deadline_s: float = _CLIENT_S) -> bytes:
        """The next frame. Raises WireError and OSError."""
        self._connection.settimeout(deadline_s)
        (size,) = struct.unpack(">I", self._exactly(4))
        if size > wire.MAX_FRAME:
            raise wire.WireError("a frame is too long")
        self.received += size + 4
        return self._exactly(size)

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size:
            part = self._connection.recv(min(size, 1 << 20))
            if not part:
                raise wire.WireError("the client went away")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def send(self, *frames: bytes) -> None:
        """Send frames, together."""
        data = b"".join(struct.pack(">I", len(frame)) + frame for frame in frames)
        self.sent += len(data)
        self._connection.sendall(data)


class Job:
    """What the server keeps for one job: its root, its build tree, its tally."""

    def __init__(self, root: Root, directory: Path, *, name: str, audited: bool, away: Away | None = None) -> None:
        self.name = name
        self.away = away
        self.root = root
        self.directory = directory
        self.audited = audited
        self.tree = BuildTree(directory)
        self.tally = Tally()
        self.habits: dict[object, tuple[PurePosixPath, ...]] = {}
        """What requests with the same search directories needed, to be asked for at once."""
        self.lock = threading.Lock()


class CompileServer:
    """Listens on loopback, and on the socket `local` if one is named, as long as the context lasts."""

    def __init__(
        self, cache: CompileCache | None, *, slots: int, audit_percent: float = 0.0, local: Path | None = None
    ) -> None:
        self._cache = cache
        self._turns = Turns(slots)
        self._audit = audit_percent / 100
        self._random = Random(0)
        self._jobs: dict[str, Job] = {}
        self._sealed = Sealed()
        self._busy: dict[str, tuple[threading.Lock, int]] = {}
        self._listeners = [socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)]
        if local is not None:
            self._listeners.append(_listen(local))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._accept, args=(listener,), name="compile server", daemon=True)
            for listener in self._listeners
        ]

    @property
    def port(self) -> int:
        """The TCP port on loopback."""
        port: int = self._listeners[0].getsockname()[1]
        return port

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        # A thread in accept() does not notice that its socket is closed; it does notice this.
        for listener in self._listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self._lock:
            for connection in self._open:
                connection.close()
        for thread in self._threads:
            thread.join()

    def share(self, shares: Mapping[str, int]) -> None:
        """How many of the slots each job has, by name, where all want more than there are."""
        self._turns.share(shares)

    @contextmanager
    def job(
        self, root: Root, directory: Path, *, name: str = "", audited: bool = True, away: Away | None = None
    ) -> Iterator[tuple[str, Job]]:
        """Serve a node that has the token given, over `root`; files are kept in the new `directory`.

        Its turns are those of `name`; where there is none, its compiles may go `away`. A share of its compiles is
        audited unless it has no compiler of its own.
        """
        directory.mkdir()
        job = Job(root, directory, name=name, audited=audited, away=away)
        token = secrets.token_hex(16)
        self._jobs[token] = job
        try:
            yield token, job
        finally:
            del self._jobs[token]
            shutil.rmtree(directory, ignore_errors=True)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        """One client. Whatever it sends, it can at worst be told to go on by itself."""
        with self._lock:
            self._open.add(connection)
        try:
            with connection:
                self._answer(Link(connection))
        except (wire.WireError, OSError) as error:
            log.debug("compile client: %s", error)
        finally:
            with self._lock:
                self._open.discard(connection)

    def _answer(self, link: Link) -> None:
        request = wire.read_request(link.receive())
        job = self._jobs.get(request.token)
        if job is None:
            raise wire.WireError("no job has that token")
        try:
            self._compile(job, link, request)
        except (Unusable, ClusterError) as refusal:
            with job.lock:
                job.tally.refused[str(refusal)] += 1
            link.send(wire.fallback())
        finally:
            with job.lock:
                job.tally.received += link.received
                job.tally.sent += link.sent

    def _compile(self, job: Job, link: Link, request: wire.Request) -> None:
        cwd = absolute(request.cwd, PurePosixPath("/"))
        parsed = parse(request.argv, cwd, request.environment)
        if isinstance(parsed, Refusal):
            raise Unusable(parsed.reason)
        needs = Needs.of(parsed, job.root)
        view = View(job.tree)
        for word, state in request.unasked:
            view.told(absolute(word, cwd), state)
        found = _learn(job, link, needs, view, self._sealed)
        if found.volatile:  # of the node's clock, in the node's time zone
            raise Unusable("the time of day is part of it")
        compiled, cached = self._result(job, request, needs, view, found)
        with job.lock:
            job.tally.cached += cached
            job.tally.compiled += not cached
        if job.audited and self._audit and self._random.random() < self._audit:
            _audit(job, link, request, needs, compiled)
        else:
            _deliver(job, link, needs, compiled)

    def _result(
        self, job: Job, request: wire.Request, needs: Needs, view: View, found: Inputs
    ) -> tuple[Compiled, bool]:
        """What the compiler makes of it, and whether the cache had it."""
        if self._cache is None:
            return self._compiled(job, request, needs, view, found), False
        name = key(_facts(job.root, request, needs, view, found))
        with self._alone(name):
            kept = self._cache.get(name)
            if kept is not None:
                return kept, True
            compiled = self._compiled(job, request, needs, view, found)
            self._cache.put(name, compiled)
        return compiled, False

    def _compiled(self, job: Job, request: wire.Request, needs: Needs, view: View, found: Inputs) -> Compiled:
        """Run the compiler when it is the job's turn; another host's if all turns are taken and one can do it."""
        if job.away is not None and self._turns.all_taken:
            sent = _sent(job, job.away, request, needs, view, found)
            if sent is not None:
                with job.lock:
                    job.tally.away += 1
                return sent
        with self._turns.turn(job.name):
            start = time.monotonic()
            compiled = _run(job, request, needs, view, found)
            took = time.monotonic() - start
        with job.lock:
            job.tally.seconds += took
        return compiled

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """Nobody else compiles `name` meanwhile: who comes second finds it in the cache."""
        with self._lock:
            turn, users = self._busy.get(name, (threading.Lock(), 0))
            self._busy[name] = turn, users + 1
        try:
            with turn:
                yield
        finally:
            with self._lock:
                turn, users = self._busy.pop(name)
                if users > 1:
                    self._busy[name] = turn, users - 1


def _listen(path: Path) -> socket.socket:
    """A listening socket at `path`."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(_BACKLOG)
    return listener


def _learn(job: Job, link: Link, needs: Needs, view: View, sealed: Sealed) -> Inputs:
    """Ask the client until everything that the compiler could read is known."""
    wanted: Sequence[PurePosixPath] = [path for path in job.habits.get(needs.habit, ()) if not view.has(path)]
    for _ in range(_ROUNDS):
        if wanted:
            link.send(wire.query((str(path), job.tree.stamp(path)) for path in wanted))
            for path, state in zip(wanted, wire.read_states(link.receive(), len(wanted)), strict=True):
                view.told(path, state)
        found = inputs(needs, view, job.root, sealed)
        if isinstance(found, Inputs):
            job.habits[needs.habit] = found.asked
            return found
        wanted = found.paths
    raise Unusable("no end of files")


def _facts(root: Root, request: wire.Request, needs: Needs, view: View, found: Inputs) -> Iterator[bytes]:
    """All that a compile depends on. Paths below the working directory count from there."""
    yield root.stage.encode()
    yield root.prerequisites.encode() if found.beyond_stage else b""
    yield "\0".join(request.argv).encode()
    for name, value in sorted(_environment(request).items()):
        yield f"{name}={value}".encode()
    if needs.request.debug:
        yield str(needs.cwd).encode()
    for path in sorted(found.files):
        known = view.file(path)
        if known is not None:
            place = path.relative_to(needs.cwd) if path.is_relative_to(needs.cwd) else path
            yield f"{place} {known.digest}".encode()


def _environment(request: wire.Request) -> dict[str, str]:
    passed = {name: request.environment[name] for name in ENVIRONMENT_PASSED if name in request.environment}
    return {"TZ": "UTC0", **passed, **_OWN_ENVIRONMENT}


@contextmanager
def _laid_out(job: Job, needs: Needs, view: View, found: Inputs) -> Iterator[Path]:
    """Exactly the files that a compiler may see, as a build tree."""
    # Its own processes cannot leave anything behind that outlives the job's directory.
    with tempfile.TemporaryDirectory(prefix="request-", dir=job.directory) as scratch:
        place = Path(scratch)
        writable = [path.parent for path in needs.outputs]
        lay_out(view, found.files, (*found.directories, needs.cwd, *writable), place)
        yield place


def _sent(job: Job, away: Away, request: wire.Request, needs: Needs, view: View, found: Inputs) -> Compiled | None:
    """Preprocess, and have another host compile; None if it has to be done here, whatever for."""
    parts = halves(request.argv[0], needs.request)
    if parts is None or found.unkept or not away.room():
        return None
    with _laid_out(job, needs, view, found) as place:
        try:
            ran = job.root.sandbox.run(
                parts.preprocess, cwd=needs.cwd, tree=place, environment=_environment(request), deadline_s=_PREPROCESS_S
            )
        except Unfinished:
            return None
        _, *notes = needs.outputs
        if ran.status or ran.stderr or leftovers(place, notes) or not is_portable(ran.stdout):
            return None
        products = [_product(place / path.relative_to("/")) for path in notes]
    made = None if None in products else away.compile(parts.compile, ran.stdout)
    return None if made is None else Compiled(0, b"", b"", (Product(made, False), *products))


def _run(job: Job, request: wire.Request, needs: Needs, view: View, found: Inputs) -> Compiled:
    """Run the compiler over exactly the files that it may see."""
    with _laid_out(job, needs, view, found) as place:
        # Compiler and assembler at once save a tenth; the object is the same.
        argv = (request.argv[0], "-pipe", *request.argv[1:])
        ran = job.root.sandbox.run(
            argv, cwd=needs.cwd, tree=place, environment=_environment(request), deadline_s=_COMPILE_S
        )
        if ran.stderr and found.unsure:
            raise Unusable("messages that quote a file of the node's own")
        if _NO_LIBRARY in ran.stderr:
            raise Unusable("a library's own libraries")
        if ran.status and _ASSEMBLER in ran.stderr:
            raise Unusable("assembly that fails")  # it may name a file in words that no scan finds
        if ran.status and needs.request.dependency_file:
            raise Unusable("a failed compile that notes dependencies")
        if leftovers(place, needs.outputs):
            raise Unusable("a compiler that writes more files")
        products = tuple(_product(place / path.relative_to("/")) for path in needs.outputs)
        if not ran.status and None in products:
            raise Unusable("an output that is missing")
    messages = ran.stderr.replace(job.root.linker.encode() + b": ", b"/usr/bin/ld: ")
    return Compiled(ran.status, ran.stdout, messages, products)


def _product(path: Path) -> Product | None:
    """What the compiler left at `path`, which it alone could write and which may be a link to anywhere."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with open(descriptor, "rb") as stream:
        return Product(stream.read(), bool(os.fstat(descriptor).st_mode & 0o111))


def _deliver(job: Job, link: Link, needs: Needs, compiled: Compiled) -> None:
    """Have the client write what was made, and end."""
    made = [
        (path, wire.Output(str(path), product.executable, product.content) if product else wire.Removal(str(path)))
        for path, product in zip(needs.outputs, compiled.products, strict=True)
    ]
    end = wire.end(compiled.status, compiled.stdout, compiled.stderr)
    if not made:
        link.send(end)
        return
    link.send(wire.write([output for _, output in made]), end)
    stamps = wire.read_stamps(link.receive(), len(made))
    for (path, output), stamp in zip(made, stamps, strict=True):
        if isinstance(output, wire.Output):
            job.tree.keep(path, stamp, output.content, output.executable)
        else:
            job.tree.forget(path)


def _audit(job: Job, link: Link, request: wire.Request, needs: Needs, compiled: Compiled) -> None:
    """Let the client use its own compiler, and compare."""
    link.send(wire.audit([str(path) for path in needs.outputs]))
    local = wire.read_local(link.receive(_COMPILE_S * 4), len(needs.outputs))
    difference = _difference(compiled, local)
    with job.lock:
        job.tally.audited += 1
        if difference:
            job.tally.differing.append(f"{difference}: cd {request.cwd} && {' '.join(request.argv)}")
    link.send(wire.end(0, b"", b""))


def _difference(compiled: Compiled, local: wire.Local) -> str:
    """In what a compile on the host is not what the node's own compiler did; "" if in nothing."""
    if compiled.status != local.status:
        return f"exit status {compiled.status}, not {local.status}"
    if compiled.stdout != local.stdout:
        return "standard output"
    if _TEMPORARY.sub(b"", compiled.stderr) != _TEMPORARY.sub(b"", local.stderr):
        return "messages"
    for product, state in zip(compiled.products, local.outputs, strict=True):
        theirs = Product(state.content, state.executable) if isinstance(state, wire.File) else None
        if product != theirs:
            return "an output"
    return ""
