"""Files over real HTTPS on loopback, with both sides' certificates."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.errors import MachineError, NodeLost
from cluster.host import blobs
from cluster.host.blobs import Client, Patience, serving
from cluster.host.store import Blob, Store, TransferFailed, blob_of
from cluster.host.tls import Authority, Identity

pytestmark = pytest.mark.slow

CONTENT = bytes(range(256)) * 8192
HASTY = Patience(connect_s=2, silence_s=1.0, grace_s=5, slowest=1e6)


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return Authority(tmp_path_factory.mktemp("authority")).issue("host")


@pytest.fixture
def client(identity: Identity) -> Iterator[Client]:
    with Client(identity, HASTY) as client:
        yield client


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "content").write_bytes(CONTENT)
    return tmp_path / "content"


@pytest.fixture
def blob(file: Path) -> Blob:
    return blob_of(file)


def sent(server: str, blob: Blob, part: Path, client: Client) -> bytes:
    client.download(server, blob, part)
    return part.read_bytes()


def test_a_file_comes_over_https(identity: Identity, client: Client, file: Path, blob: Blob, tmp_path: Path) -> None:
    with serving({blob.sha256: file}.get, identity) as server:
        assert server.url.startswith("https://127.0.0.1:")
        assert sent(server.url, blob, tmp_path / "part", client) == CONTENT
        (tmp_path / "part").write_bytes(CONTENT[:1234])
        assert sent(server.url, blob, tmp_path / "part", client) == CONTENT
        (tmp_path / "part").write_bytes(CONTENT * 2)
        assert sent(server.url, blob, tmp_path / "part", client) == CONTENT


def test_an_empty_file_needs_no_transfer(client: Client, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    store = Store(tmp_path / "store")
    assert store.fetch(blob_of(tmp_path / "empty"), ["https://127.0.0.1:1"], client).read_bytes() == b""


@pytest.mark.parametrize(
    ("path", "headers", "status", "content"),
    [
        ("SHA", {}, 200, CONTENT),
        ("SHA", {"Range": "bytes=5-"}, 206, CONTENT[5:]),
        ("SHA", {"Range": f"bytes={len(CONTENT)}-"}, 416, None),
        ("SHA", {"Range": "bytes=0-5,7-9"}, 200, CONTENT),  # RFC 9110, 14.2: what is not understood is ignored
        ("gone", {}, 404, None),
        ("../content", {}, 404, None),
        ("", {}, 404, None),
    ],
)
def test_what_the_server_answers(
    identity: Identity, file: Path, path: str, headers: dict[str, str], status: int, content: bytes | None
) -> None:
    found = {"SHA": file, "gone": file.with_name("gone")}
    with (
        serving(found.get, identity) as server,
        httpx.Client(verify=identity.client_context(), trust_env=False) as plain,
    ):
        answer = plain.get(f"{server.url}/{path}", headers=headers)
    assert answer.status_code == status
    if content is not None:
        assert answer.content == content
    if status == 206:
        assert answer.headers["Content-Range"] == f"bytes 5-{len(CONTENT) - 1}/{len(CONTENT)}"


def test_one_of_another_authority_is_refused(
    identity: Identity, client: Client, file: Path, blob: Blob, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "other").issue("host")
    with (
        serving({blob.sha256: file}.get, identity) as ours,
        serving({blob.sha256: file}.get, stranger) as theirs,
        Client(stranger, HASTY) as strange,
    ):
        with pytest.raises(TransferFailed, match="certificate verify failed"):
            client.download(theirs.url, blob, tmp_path / "part")
        with pytest.raises(TransferFailed):
            strange.download(ours.url, blob, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == b""


def test_one_without_a_certificate_is_refused(identity: Identity, file: Path) -> None:
    nobody = ssl.create_default_context(cafile=str(identity.authority))
    nobody.check_hostname = False
    with (
        serving({"x": file}.get, identity) as server,
        httpx.Client(verify=nobody, trust_env=False) as plain,
        pytest.raises(httpx.HTTPError, match="certificate required"),
    ):
        plain.get(f"{server.url}/x")


def test_who_does_not_shake_hands_delays_nobody(
    identity: Identity, client: Client, file: Path, blob: Blob, tmp_path: Path
) -> None:
    with serving({blob.sha256: file}.get, identity) as server, ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(socket.create_connection((server.host, server.port)))
        assert sent(server.url, blob, tmp_path / "part", client) == CONTENT


class Relay:
    """Passes connections on to a server; the first ones are cut when so many bytes have come back."""

    def __init__(self, server: blobs.Server, cuts: int, after: int) -> None:
        self._server, self._cuts, self._after = server, cuts, after
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                here, _ = self._listener.accept()
                self.connections += 1
                there = socket.create_connection((self._server.host, self._server.port))
                back = self._after if self.connections <= self._cuts else 1 << 40
                for ends in ((here, there, 1 << 40), (there, here, back)):
                    self._threads.append(threading.Thread(target=self._pass, args=ends))
                    self._threads[-1].start()

    def _pass(self, source: socket.socket, sink: socket.socket, left: int) -> None:
        with suppress(OSError):
            while left > 0 and (data := source.recv(min(left, 65536))):
                sink.sendall(data)
                left -= len(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for thread in self._threads:
            thread.join()
        self._listener.close()


def test_a_connection_that_is_cut_is_taken_up_again(
    identity: Identity, client: Client, file: Path, blob: Blob, tmp_path: Path
) -> None:
    asked: list[str] = []

    def find(sha256: str) -> Path:
        asked.append(sha256)
        return file

    store = Store(tmp_path / "store")
    with serving(find, identity) as server, Relay(server, cuts=2, after=700_000) as relay:
        assert store.fetch(blob, [relay.url], client).read_bytes() == CONTENT
        client.__exit__(None, None, None)
    assert relay.connections == len(asked) == 3


def test_a_source_that_is_silent_is_given_up(
    identity: Identity, client: Client, file: Path, blob: Blob, tmp_path: Path
) -> None:
    stop = threading.Event()

    def find(sha256: str) -> None:
        stop.wait(30)

    store = Store(tmp_path / "store")
    with serving(find, identity) as silent, serving({blob.sha256: file}.get, identity) as server:
        assert store.fetch(blob, [silent.url, server.url], client).read_bytes() == CONTENT
        with pytest.raises(TransferFailed, match=r"silent for 1 s"):
            client.download(silent.url, blob, tmp_path / "part")
        stop.set()


def test_many_hosts_fetch_at_once_and_a_source_that_lies_is_passed_by(
    identity: Identity, client: Client, file: Path, blob: Blob, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "wrong").write_bytes(CONTENT[::-1])
    asked: list[str] = []

    def find(sha256: str) -> Path:
        asked.append(sha256)
        return file

    with serving({blob.sha256: tmp_path / "wrong"}.get, identity) as liar, serving(find, identity) as server:

        def fetch(number: int) -> bytes:
            store = Store(tmp_path / f"store-{number % 2}")
            return store.fetch(blob, [liar.url, server.url], client).read_bytes()

        with ThreadPoolExecutor(6) as pool:
            assert set(pool.map(fetch, range(6))) == {CONTENT}
    assert len(asked) == 2  # once for each store
    assert f"{liar.url} gave something else for {blob.sha256}" in caplog.text


def test_a_source_that_cannot_be_connected_to_comes_last_from_then_on(
    identity: Identity, client: Client, file: Path, blob: Blob, tmp_path: Path
) -> None:
    with serving({}.get, identity) as gone:
        pass
    sources = [gone.url, "https://127.0.0.1:2", "https://127.0.0.1:3"]
    assert client.best(sources) == sources
    with pytest.raises(NodeLost, match="cannot connect"):
        Store(tmp_path / "store").fetch(blob, sources[:1], client)
    assert client.best(sources) == [*sources[1:], gone.url]


def test_a_transfer_under_way_ends_with_the_server(
    identity: Identity, client: Client, blob: Blob, tmp_path: Path
) -> None:
    (tmp_path / "large").touch()
    (tmp_path / "large").open("r+b").truncate(1 << 33)
    with serving({blob.sha256: tmp_path / "large"}.get, identity) as server:
        raw = socket.create_connection((server.host, server.port))
        secure = identity.client_context().wrap_socket(raw)
        secure.sendall(f"GET /{blob.sha256} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert secure.recv(12) == b"HTTP/1.1 200"
    assert not [thread for thread in threading.enumerate() if "process_request_thread" in thread.name]
    secure.close()


def test_a_port_in_use_is_named(identity: Identity) -> None:
    with (
        serving({}.get, identity) as server,
        pytest.raises(MachineError, match=f"port {server.port}"),
        serving({}.get, identity, port=server.port),
    ):
        pass
