"""Distfiles: real HTTP servers on loopback, real files, and one real source package."""

from __future__ import annotations

import hashlib
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cluster.apt import machine_mirror
from cluster.errors import InputError, MachineError
from cluster.master import distfiles
from cluster.master.distfiles import DebianSource, Distribution, FetchFailed, Patience, PreferredMirror, Upstream, Web
from cluster.model import Distfile

CONTENT = b"upstream's own bytes\n" * 5000
HASTY = Patience(connect_s=1, silence_s=0.5, total_s=3, tries=2, unreachable_s=1)


def described(content: bytes = CONTENT, name: str = "foo-1.tar.gz", uris: tuple[str, ...] = ()) -> Distfile:
    digests = (
        ("BLAKE2B", hashlib.blake2b(content).hexdigest()),
        ("SHA512", hashlib.sha512(content).hexdigest()),
    )
    return Distfile(name, len(content), digests, uris)


@dataclass
class Server:
    """A web server that misbehaves as the first part of the path says, and remembers what it was asked."""

    url: str = ""
    asked: list[str] = field(default_factory=list)
    fail_first: int = 0
    gone: threading.Event = field(default_factory=threading.Event)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(request.path)
        kind, _, name = request.path[1:].partition("/")
        if kind == "404" or (kind == "hashed" and "/" not in name):
            request.send_error(404)
        elif kind == "busy" and len(self.asked) <= self.fail_first:
            request.send_error(503)
        elif kind == "redirect":
            request.send_response(302)
            request.send_header("Location", f"/good/{name}")
            request.end_headers()
        else:
            self.send(request, kind)

    def send(self, request: BaseHTTPRequestHandler, kind: str) -> None:
        body = {"wrong": CONTENT[::-1], "short": CONTENT[:100], "long": CONTENT * 2}.get(kind, CONTENT)
        request.send_response(200)
        if kind != "short":
            request.send_header("Content-Length", str(len(body)))
        if kind == "encoded":
            request.send_header("Content-Encoding", "gzip")
        request.end_headers()
        if kind == "truncated":
            request.wfile.write(body[:1000])
        elif kind == "silent":
            request.wfile.write(body[:1000])
            self.gone.wait(5)
        elif kind == "trickle":
            for byte in body[:100]:
                request.wfile.write(bytes([byte]))
                if self.gone.wait(0.1):
                    break
        else:
            request.wfile.write(body)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(ConnectionError):
                state.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.url = f"http://127.0.0.1:{http.server_address[1]}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield state
        state.gone.set()
        http.shutdown()
        thread.join()


def upstream(patience: Patience = HASTY) -> Upstream:
    return Upstream(Web(patience))


def leftovers(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("kind", ["good", "redirect", "encoded"])
def test_fetches_and_keeps_under_its_name(server: Server, tmp_path: Path, kind: str) -> None:
    distfile = described(uris=(f"{server.url}/{kind}/foo-1.tar.gz",))
    path = distfiles.fetch(distfile, tmp_path / "new", [upstream()])
    assert path == tmp_path / "new" / "foo-1.tar.gz"
    assert path.read_bytes() == CONTENT
    assert leftovers(path.parent) == ["foo-1.tar.gz"]


def test_cache_is_used_without_asking_anyone(server: Server, tmp_path: Path) -> None:
    distfile = described(uris=(f"{server.url}/good/foo-1.tar.gz",))
    first = distfiles.fetch(distfile, tmp_path, [upstream()])
    assert distfiles.fetch(distfile, tmp_path, []) == first
    assert len(server.asked) == 1


@pytest.mark.parametrize("stale", [CONTENT[:-1], CONTENT[::-1], b""])
def test_corrupt_cache_is_moved_aside_and_fetched_again(
    server: Server, tmp_path: Path, stale: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "foo-1.tar.gz").write_bytes(stale)
    distfile = described(uris=(f"{server.url}/good/foo-1.tar.gz",))
    with caplog.at_level(logging.WARNING):
        assert distfiles.fetch(distfile, tmp_path, [upstream()]).read_bytes() == CONTENT
    assert (tmp_path / "foo-1.tar.gz.corrupt").read_bytes() == stale
    assert "foo-1.tar.gz is corrupt" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("404", "404 Not Found"),
        ("wrong", "its BLAKE2B and SHA512 differ from the Manifest's"),
        ("short", f"it has 100 bytes, the Manifest says {len(CONTENT)}"),
        ("long", f"it sends more than the Manifest's {len(CONTENT)} bytes"),
        ("truncated", "the transfer broke off"),
        ("silent", "silent for 2 s"),
        ("trickle", "too slow"),
    ],
)
def test_bad_download_leaves_nothing_and_says_why(server: Server, tmp_path: Path, kind: str, reason: str) -> None:
    distfile = described(uris=(f"{server.url}/{kind}/foo-1.tar.gz",))
    with pytest.raises(FetchFailed) as caught:
        distfiles.fetch(distfile, tmp_path, [upstream(Patience(10, 2, 6, 2, 10))])
    message = str(caught.value)
    assert reason in message
    assert message.startswith("cannot fetch foo-1.tar.gz (upstream: ")
    assert message.endswith(f"put the file into {tmp_path} or set PREFERRED_MIRROR")
    assert "\n" not in message
    assert leftovers(tmp_path) == []


def test_one_wrong_digest_is_enough(tmp_path: Path) -> None:
    good = described()
    (tmp_path / "file").write_bytes(CONTENT)
    digests = (good.digests[0], ("SHA512", "0" * 128))
    assert distfiles.check(good, tmp_path / "file") == ""
    told = distfiles.check(Distfile("foo", good.size, digests, ()), tmp_path / "file")
    assert told == "its SHA512 differ from the Manifest's"
    assert "no digest" in distfiles.check(Distfile("foo", good.size, (("WHIRLPOOL", "1"),), ()), tmp_path / "file")


def test_next_uri_after_a_bad_one(server: Server, tmp_path: Path) -> None:
    uris = tuple(f"{server.url}/{kind}/foo-1.tar.gz" for kind in ("404", "wrong", "good"))
    assert distfiles.fetch(described(uris=uris), tmp_path, [upstream()]).read_bytes() == CONTENT
    assert leftovers(tmp_path) == ["foo-1.tar.gz"]


def test_passing_trouble_is_tried_again(server: Server, tmp_path: Path) -> None:
    server.fail_first = 1
    distfile = described(uris=(f"{server.url}/busy/foo-1.tar.gz",))
    distfiles.fetch(distfile, tmp_path, [upstream()])
    assert server.asked == ["/busy/foo-1.tar.gz"] * 2


def test_lasting_trouble_is_not(server: Server, tmp_path: Path) -> None:
    with pytest.raises(FetchFailed):
        distfiles.fetch(described(uris=(f"{server.url}/404/foo",)), tmp_path, [upstream()])
    assert len(server.asked) == 1


def test_mirror_comes_before_upstream(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFERRED_MIRROR", f"{server.url}/404/ {server.url}/good")
    distfile = described(uris=(f"{server.url}/good/upstream/foo-1.tar.gz",))
    distfiles.fetch(distfile, tmp_path / "got", distfiles.providers([], tmp_path / "apt", patience=HASTY))
    assert server.asked[0] == "/404/foo-1.tar.gz"
    assert server.asked[-1] == "/good/foo-1.tar.gz"


def test_mirror_in_hashed_layout(server: Server, tmp_path: Path) -> None:
    mirror = PreferredMirror((f"{server.url}/hashed",), Web(HASTY))
    distfiles.fetch(described(), tmp_path, [mirror])
    folder = hashlib.blake2b(b"foo-1.tar.gz").hexdigest()[:2]
    assert server.asked == ["/hashed/foo-1.tar.gz", f"/hashed/{folder}/foo-1.tar.gz"]


@pytest.mark.parametrize("base", [str, lambda path: path.as_uri()], ids=["directory", "file-uri"])
def test_mirror_on_disk(tmp_path: Path, base: Callable[[Path], str]) -> None:
    mirror = tmp_path / "a mirror"
    mirror.mkdir()
    (mirror / "foo-1.tar.gz").write_bytes(CONTENT)
    provider = PreferredMirror((base(mirror),), Web(HASTY))
    path = distfiles.fetch(described(), tmp_path / "got", [provider])
    assert path.read_bytes() == CONTENT
    assert (mirror / "foo-1.tar.gz").exists()


def test_every_provider_is_named_in_the_error(server: Server, tmp_path: Path) -> None:
    distfile = described(uris=(*(f"{server.url}/404/{number}" for number in range(6)), "gopher://old/foo"))
    providers: list[distfiles.Provider] = [
        PreferredMirror((str(tmp_path / "absent"),), Web(HASTY)),
        upstream(),
        Distribution({}, tmp_path / "apt"),
    ]
    with pytest.raises(FetchFailed) as caught:
        distfiles.fetch(distfile, tmp_path / "got", providers)
    message = str(caught.value)
    assert "PREFERRED_MIRROR: No such file or directory" in message
    assert "upstream: 404 Not Found" in message
    assert "and 3 more" in message
    assert "gopher: is no scheme" in message


@pytest.fixture
def mute_port() -> Iterator[int]:
    """A port of loopback that neither accepts nor refuses: its queue is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port: int = listener.getsockname()[1]
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        yield port


@pytest.mark.slow
def test_without_a_network_other_hosts_are_not_tried(tmp_path: Path, mute_port: int) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        uris = (
            f"http://127.0.0.1:{closed.getsockname()[1]}/foo",
            "https://no-such-host.invalid/foo",
            "ftp://no-such-host.invalid/foo",
            *[f"http://127.0.0.1:{mute_port}/foo"] * 3,
            "http://never-asked.invalid/foo",
        )
        with pytest.raises(FetchFailed) as caught:
            distfiles.fetch(described(uris=uris), tmp_path, [upstream(Patience(0.5, 0.5, 2, 3, 0.5))])
    message = str(caught.value)
    assert "cannot connect: Connection refused" in message
    assert "cannot connect: timed out" in message
    assert "not tried, as other hosts could not be reached (http://never-asked.invalid/foo)" in message


def test_two_at_once_download_once(server: Server, tmp_path: Path) -> None:
    distfile = described(uris=(f"{server.url}/good/foo-1.tar.gz",))
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: distfiles.fetch(distfile, tmp_path, [upstream()]), range(8)))
    assert {path.read_bytes() for path in paths} == {CONTENT}
    assert len(server.asked) == 1
    assert leftovers(tmp_path) == ["foo-1.tar.gz"]


def test_the_rest_of_a_killed_fetch_is_no_trouble(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".foo-1.tar.gz.part").write_bytes(b"half")
    distfiles.fetch(described(uris=(f"{server.url}/good/foo-1.tar.gz",)), tmp_path, [upstream()])
    assert leftovers(tmp_path) == ["foo-1.tar.gz"]


def test_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match=r"cannot write foo-1\.tar\.gz in"):
        distfiles.fetch(described(), tmp_path / "file", [upstream()])


def test_source_package_table(tmp_path: Path) -> None:
    table = tmp_path / "metadata" / "debian-sources.toml"
    assert distfiles.debian_sources([tmp_path]) == {}
    table.parent.mkdir()
    table.write_text('["foo-1.tar.gz"]\nsource = "foo"\nversion = "1-1"\nfile = "foo_1.orig.tar.gz"\nsuite = "sid"\n')
    known = distfiles.debian_sources([tmp_path, tmp_path / "other"])
    assert known == {"foo-1.tar.gz": DebianSource(source="foo", version="1-1", file="foo_1.orig.tar.gz", suite="sid")}
    table.write_text('["foo-1.tar.gz"]\nsource = "foo"\n')
    with pytest.raises(InputError, match=r"foo-1\.tar\.gz\.file: Field required"):
        distfiles.debian_sources([tmp_path])
    table.write_text("[")
    with pytest.raises(InputError, match="is not TOML"):
        distfiles.debian_sources([tmp_path])


HELLO = Distfile(
    "hello-2.10.tar.gz",
    725946,
    (("SHA256", "31e066137a962676e89f69d1b65382de95a7ef7d914b8cb956f41ea72e0f516b"),),
    (),
)
"""GNU hello as upstream published it."""


@pytest.fixture(scope="module")
def apt_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For a private apt state; skips where the machine's apt has no lists to derive it from."""
    try:
        machine_mirror()
    except MachineError as error:
        pytest.skip(f"no source packages on this machine: {error}")
    return tmp_path_factory.mktemp("apt")


@pytest.mark.slow
@pytest.mark.parametrize("version", ["2.10-3", "0.1-replaced-long-ago"])
def test_distribution_source_package(apt_directory: Path, tmp_path: Path, version: str) -> None:
    source = DebianSource(
        source="hello", version=version, file="hello_2.10.orig.tar.gz", suite=machine_mirror().codename
    )
    provider = Distribution({HELLO.name: source}, apt_directory)
    path = distfiles.fetch(HELLO, tmp_path, [upstream(), provider])
    assert leftovers(tmp_path) == [HELLO.name]
    assert not distfiles.check(HELLO, path)


@pytest.mark.slow
def test_distribution_lacks_it(apt_directory: Path, tmp_path: Path) -> None:
    suite = machine_mirror().codename
    table = {
        "a": DebianSource(source="hello", file="hello_0.orig.tar.gz", suite=suite),
        "b": DebianSource(source="no-such-source", file="b", suite=suite),
        "c": DebianSource(source="hello", file="c", suite="no-such-suite"),
    }
    provider = Distribution(table, apt_directory)
    reasons = {}
    for name in table:
        with pytest.raises(FetchFailed) as caught:
            distfiles.fetch(described(name=name), tmp_path, [provider])
        reasons[name] = str(caught.value)
    assert f"no source package hello in {suite} has hello_0.orig.tar.gz" in reasons["a"]
    assert "no-such-source" in reasons["b"]
    assert "apt has no package lists of no-such-suite" in reasons["c"]
    assert leftovers(tmp_path) == []
