"""A host's relay to a pool: real distccds and clients on loopback, and servers that behave as a broken one does."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from processes import eventually

from cluster.host import distccprotocol
from cluster.host.distcc import count
from cluster.host.pool import Member, Pool
from cluster.host.relay import Relay, Timing, Unserved, measure
from cluster.model import Compiles
from cluster.process import Child, find_program

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("distcc") and shutil.which("distccd")), reason="needs distcc"),
]

QUICK = Timing(every_s=0.1, probe_s=5.0, again_s=0.1)
SOURCE = b"int f(void) { return 1; }\n"
REPLY = b"DONE00000001STAT00000000SERR00000000SOUT00000000DOTO00000004\x7fELF"
PACKAGE = "cat/p-1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def distccd(directory: Path, port: int, jobs: int = 4) -> Iterator[Child]:
    argv = [find_program("distccd", "distcc"), "--no-detach", "--daemon", "--log-stderr", "--enable-tcp-insecure"]
    argv += ["--listen", "127.0.0.1", "--allow", "127.0.0.1", "--port", str(port), "--jobs", str(jobs)]
    env = {"PATH": "/usr/bin:/bin", "TMPDIR": "/tmp"}
    with Child(argv, log_path=directory / f"{port}.log", env=env) as child:
        assert eventually(lambda: listens(port))
        yield child


class Fake:
    """A distccd that answers probes, and other requests with `answer`; counts what it has at once."""

    def __init__(self, answer: Callable[[], Coroutine[Any, Any, bytes]], *, is_dead: bool = False) -> None:
        self.most = self.now = self.compiles = 0
        self._answer = answer
        self._is_dead = is_dead
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await distccprotocol.read_request(reader)
            if self._is_dead:
                await reader.read()
            if b"int probe" not in request:
                self.compiles += 1
                self.now += 1
                self.most = max(self.most, self.now)
                writer.write(await self._answer())
                self.now -= 1
            else:
                writer.write(REPLY)
        except (EOFError, OSError):
            pass
        finally:
            writer.close()

    def __enter__(self) -> Fake:
        self._thread.start()
        starting = asyncio.start_server(self._serve, "127.0.0.1", 0)
        server = asyncio.run_coroutine_threadsafe(starting, self._loop).result(10)
        self.port = server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


async def at_once() -> bytes:
    return REPLY


async def after_a_while() -> bytes:
    await asyncio.sleep(0.02)
    return REPLY


async def slowly() -> bytes:
    await asyncio.sleep(0.3)
    return REPLY


async def cut() -> bytes:
    return REPLY[:-1]


async def killed() -> bytes:
    return REPLY.replace(b"STAT00000000", b"STAT00000009")


def member(name: str, port: int, slots: int = 4) -> Member:
    return Member(name, "127.0.0.1", port, slots)


def ask(port: int, source: bytes = SOURCE) -> bytes:
    """What the relay answers to one request; empty if it hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(distccprotocol.request(("gcc", "-c", "a.i", "-o", "a.o"), source))
        with connection.makefile("rb") as stream:
            return stream.read()


@pytest.fixture
def relay() -> Iterator[Relay]:
    with Relay("gcc", "here", QUICK) as relay:
        yield relay


def build(directory: Path, port: int, files: int, is_done: Callable[[int], object] = lambda number: None) -> Compiles:
    """Compile `files` sources with distcc, four at once, as make does; `is_done` is told of each."""
    (directory / "state").mkdir(exist_ok=True)
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "DISTCC_HOSTS": f"127.0.0.1:{port}/4",
        "DISTCC_DIR": str(directory / "state"),
        "DISTCC_LOG": str(directory / "log"),
        "DISTCC_BACKOFF_PERIOD": "1",
    }

    def one(number: int) -> int:
        (directory / f"{number}.c").write_text(f"#include <stdio.h>\nint f{number}(void) {{ return {number}; }}\n")
        argv = ["distcc", "gcc", "-c", f"{number}.c", "-o", f"{number}.o"]
        status = subprocess.run(argv, env=env, cwd=directory, capture_output=True, timeout=60, check=False).returncode
        is_done(number)
        return status

    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(one, range(files))) == {0}
    assert all((directory / f"{number}.o").read_bytes()[:4] == b"\x7fELF" for number in range(files))
    return count((directory / "log").read_text())


def test_compiles_go_to_all_members_and_are_counted(tmp_path: Path, relay: Relay) -> None:
    ports = [free_port(), free_port()]
    with ExitStack() as stack:
        for port in ports:
            stack.enter_context(distccd(tmp_path, port))
        relay.use(Pool((member("here", ports[0]), member("b", ports[1]))))
        with relay.job(PACKAGE, 4) as access:
            assert build(tmp_path, access.offload.port, 16) == Compiles(remote=16)
        served = {one.host: one for one in access.served()}
    assert sum(one.compiled for one in served.values()) == 16
    assert all(one.compiled and one.seconds and one.wire_bytes and not one.failed for one in served.values())
    assert set(served) == {"here", "b"}


def test_a_member_that_is_killed_costs_no_compile_and_comes_back(tmp_path: Path, relay: Relay) -> None:
    ports = [free_port(), free_port()]
    with ExitStack() as stack:
        stack.enter_context(distccd(tmp_path, ports[0]))
        victim = stack.enter_context(distccd(tmp_path, ports[1]))
        relay.use(Pool((member("here", ports[0]), member("b", ports[1]))))
        with relay.job(PACKAGE, 4) as access:
            port = access.offload.port
            done = build(tmp_path, port, 24, is_done=lambda number: victim.kill() if number == 6 else None)
            assert done == Compiles(remote=24)
            assert eventually(lambda: set(relay.out()) == {"b"})
            before = {one.host: one.compiled for one in access.served()}
            stack.enter_context(distccd(tmp_path, ports[1]))
            assert eventually(lambda: not relay.out())
            build(tmp_path, port, 8)
            after = {one.host: one for one in access.served()}
    assert after["b"].compiled > before["b"] > 0
    assert after["here"].failed == 0


def test_a_member_that_says_nothing_is_out_and_what_it_had_is_done_elsewhere(tmp_path: Path) -> None:
    timing = Timing(every_s=0.1, probe_s=0.5, again_s=60.0)
    with Fake(at_once, is_dead=True) as dead, Fake(at_once) as good, Relay("gcc", "dead", timing) as relay:
        relay.use(Pool((member("dead", dead.port), member("good", good.port))))
        with relay.job(PACKAGE, 4) as access:
            assert ask(access.offload.port) == REPLY
            assert relay.out() == {"dead": "a line was not compiled within 0.5 s"}
            assert {one.host: (one.compiled, one.failed) for one in access.served()} == {"dead": (0, 1), "good": (1, 0)}


def test_a_member_that_is_much_slower_than_the_others_is_out() -> None:
    timing = Timing(every_s=0.05, again_s=60.0)
    with Fake(slowly) as slow, Fake(at_once) as good, Relay("gcc", "here", timing) as relay, ExitStack() as stack:
        relay.use(Pool((member("slow", slow.port, 8), member("good", good.port, 8))))
        port = stack.enter_context(relay.job(PACKAGE, 16)).offload.port
        with ThreadPoolExecutor(16) as threads:
            assert eventually(lambda: set(threads.map(ask, [port] * 32)) == {REPLY} and bool(relay.out()))
        assert relay.out() == {"slow": "much slower than the others"}


@pytest.mark.parametrize("answer", [cut, killed])
def test_a_reply_that_is_cut_or_of_a_killed_compiler_is_asked_for_again(
    answer: Callable[[], Coroutine[Any, Any, bytes]], relay: Relay
) -> None:
    with Fake(answer) as broken, Fake(at_once) as good:
        relay.use(Pool((member("here", broken.port), member("good", good.port))))
        with relay.job(PACKAGE, 4) as access:
            assert ask(access.offload.port) == REPLY
        assert {one.host: (one.compiled, one.failed) for one in access.served()} == {"here": (0, 1), "good": (1, 0)}


def test_a_member_that_refuses_leaves_the_compile_to_the_node_if_there_is_no_other(relay: Relay) -> None:
    relay.use(Pool((member("here", free_port()),)))
    with relay.job(PACKAGE, 4) as access:
        assert ask(access.offload.port) == b""
        assert eventually(lambda: set(relay.out()) == {"here"})
        assert ask(access.offload.port) == b""


def test_slots_bound_what_a_package_and_the_host_have_at_once(relay: Relay) -> None:
    with Fake(after_a_while) as big, Fake(after_a_while) as small, ExitStack() as stack:
        parts = {PACKAGE: {"here": 8, "b": 2}, "q": {"here": 2}}
        relay.use(Pool((member("here", big.port, 3), member("b", small.port, 8)), parts))
        ports = [stack.enter_context(relay.job(package, 16)).offload.port for package in (PACKAGE, "q")]
        with ThreadPoolExecutor(24) as threads:
            assert set(threads.map(ask, ports * 30)) == {REPLY}
        assert (big.most, small.most) == (3, 2)
        assert big.compiles + small.compiles == 60


def test_a_package_without_slots_compiles_in_its_node(relay: Relay) -> None:
    with Fake(at_once) as fake:
        relay.use(Pool((member("here", fake.port),), {PACKAGE: {}}))
        with relay.job(PACKAGE, 4) as access:
            assert ask(access.offload.port) == b""
        assert not access.served()


def test_slots_that_are_handed_out_later_are_used(relay: Relay) -> None:
    with Fake(at_once) as fake, relay.job(PACKAGE, 4) as access:
        assert ask(access.offload.port) == b""
        relay.use(Pool((member("here", fake.port),)))
        assert ask(access.offload.port) == REPLY
        relay.use(Pool())
        assert ask(access.offload.port) == b""


COMPILE = ("gcc", "-c", "a.i", "-o", "a.o")


def test_the_compile_server_is_given_other_hosts_only_and_never_waits_for_them(relay: Relay) -> None:
    with Fake(at_once) as own, Fake(slowly) as other, relay.job(PACKAGE, 4) as access:
        relay.use(Pool((member("here", own.port),)))
        assert not access.away.room()
        assert access.away.compile(COMPILE, SOURCE) is None
        relay.use(Pool((member("here", own.port), member("b", other.port, 1))))
        with ThreadPoolExecutor(1) as threads:
            first = threads.submit(access.away.compile, COMPILE, SOURCE)
            assert eventually(lambda: not access.away.room())
            assert access.away.compile(COMPILE, SOURCE) is None
            assert first.result() == b"\x7fELF"
        assert access.away.room()
    assert (own.compiles, other.compiles) == (0, 1)
    assert [(one.host, one.compiled) for one in access.served()] == [("b", 1)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"STAT00000000", b"STAT00000100"),
        (b"STAT00000000", b"STAT00000009"),
        (b"SERR00000000", b"SERR00000001w"),
        (b"SOUT00000000", b"SOUT00000001w"),
        (b"\x7fELF", b"text"),
        (b"DONE", b"DOES"),
    ],
)
def test_only_the_object_of_a_compiler_without_a_word_is_taken(relay: Relay, before: bytes, after: bytes) -> None:
    async def answer() -> bytes:
        return REPLY.replace(before, after)

    with Fake(answer) as fake, relay.job(PACKAGE, 4) as access:
        relay.use(Pool((member("b", fake.port),)))
        assert access.away.room()
        assert access.away.compile(COMPILE, SOURCE) is None


def test_what_goes_elsewhere_ends_with_its_job_and_there_is_nothing_behind_a_relay_that_ended() -> None:
    over = threading.Event()

    async def in_the_end() -> bytes:
        while not over.is_set():
            await asyncio.sleep(0.01)
        return REPLY

    with Fake(in_the_end) as fake, Relay("gcc", "here") as relay, ThreadPoolExecutor(1) as threads:
        relay.use(Pool((member("b", fake.port),)))
        with relay.job(PACKAGE, 4) as access:
            waiting = threads.submit(access.away.compile, COMPILE, SOURCE)
            assert eventually(lambda: fake.now == 1)
        assert waiting.result(10) is None
        over.set()
        assert eventually(lambda: fake.now == 0)
    assert not access.away.room()
    assert access.away.compile(COMPILE, SOURCE) is None


def test_a_client_that_talks_nonsense_is_hung_up_on(relay: Relay) -> None:
    with relay.job(PACKAGE, 4) as access:
        for nonsense in (b"GET / HTTP/1.0\r\n\r\n", b"DIST00000003", b"DIST00000001ARGCffffffff", b"DIST0000000x"):
            with socket.create_connection(("127.0.0.1", access.offload.port), timeout=30) as connection:
                connection.sendall(nonsense)
                with suppress(ConnectionResetError):  # if it has not read all
                    assert connection.recv(100) == b""


def test_a_jobs_port_is_closed_with_it(relay: Relay) -> None:
    with relay.job(PACKAGE, 4) as access:
        assert listens(access.offload.port)
    assert not listens(access.offload.port)


def test_nodes_are_told_to_compress_if_the_master_says_so(relay: Relay) -> None:
    relay.use(Pool(lzo=True))
    with relay.job(PACKAGE, 4) as access:
        assert access.offload.hosts == f"10.0.2.2:{access.offload.port}/4,lzo"


def test_a_compressed_request_is_relayed(tmp_path: Path, relay: Relay) -> None:
    port = free_port()
    with distccd(tmp_path, port), relay.job(PACKAGE, 4) as access:
        relay.use(Pool((member("here", port),)))
        (tmp_path / "a.c").write_bytes(SOURCE)
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DISTCC_FALLBACK": "0"}
        env |= {"DISTCC_HOSTS": f"127.0.0.1:{access.offload.port}/4,lzo", "DISTCC_DIR": str(tmp_path)}
        subprocess.run(["distcc", "gcc", "-c", "a.c"], env=env, cwd=tmp_path, check=True, timeout=60)
    assert [one.compiled for one in access.served()] == [1]
    assert (tmp_path / "a.o").read_bytes()[:4] == b"\x7fELF"


def test_the_way_to_a_member_is_measured_through_its_distccd(tmp_path: Path) -> None:
    port = free_port()
    with distccd(tmp_path, port):
        measured = measure(member("b", port), "gcc")
    assert 0 < measured.round_trip_s < 5
    assert measured.bytes_s > 0


def test_nothing_is_measured_where_nobody_listens() -> None:
    with pytest.raises(Unserved):
        measure(member("b", free_port()), "gcc")
