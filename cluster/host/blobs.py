"""Files by their content, over HTTPS: GET /SHA256, with both sides' certificates and ranges (RFC 9110, 14)."""

from __future__ import annotations

import errno
import logging
import re
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from cluster.errors import MachineError
from cluster.host.store import Blob, TransferFailed
from cluster.host.tls import Identity

log = logging.getLogger(__name__)

Find = Callable[[str], Path | None]
"""The file of a SHA-256, if there is one."""

_PIECE = 1 << 18
_SILENCE_S = 30.0
"""For one read or write, on either side."""
_RANGE = re.compile(r"bytes=(\d+)-")


@dataclass(frozen=True, slots=True)
class Server:
    """Where files are served."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """With no slash at the end."""
        return f"https://{self.host}:{self.port}"


@contextmanager
def serving(find: Find, identity: Identity, address: str = "127.0.0.1", port: int = 0) -> Iterator[Server]:
    """Serve what `find` finds while the context lasts, to those whom the authority of `identity` has signed.

    Transfers that still go on at its end are cut. Raises MachineError for a port in use.
    """
    with _listening(find, identity, address, port) as server:
        thread = threading.Thread(
            target=server.serve_forever,
            kwargs={"poll_interval": 0.05},  # seconds until shutdown() is noticed
            name="blobs",
            daemon=True,
        )
        thread.start()
        try:
            host, bound = server.server_address[:2]
            yield Server(str(host), int(bound))
        finally:
            server.shutdown()
            server.cut()
            thread.join()


def _listening(find: Find, identity: Identity, address: str, port: int) -> _Https:
    try:
        return _Https((address, port), partial(_Handler, find), identity.server_context())
    except OSError as error:
        mend = "choose another" if error.errno == errno.EADDRINUSE else "choose an address of this machine"
        raise MachineError(f"cannot listen on port {port} of {address} ({error.strerror or error})", mend) from error


class _Https(ThreadingHTTPServer):
    """Each connection has its thread, in which hands are shaken too: who is slow delays no one else."""

    daemon_threads = False  # they are waited for, after `cut`
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: Any, context: ssl.SSLContext) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._ended = False
        super().__init__(address, handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(_SILENCE_S)
        shake = self._context.wrap_socket
        with request.dup() as handle, self._noted(handle), shake(request, server_side=True) as secure:
            super().finish_request(secure, client_address)

    @contextmanager
    def _noted(self, handle: socket.socket) -> Iterator[None]:
        """Let `cut` reach a connection, by a descriptor that nobody else closes."""
        with self._lock:
            if self._ended:
                raise ConnectionAbortedError
            self._open.add(handle)
        try:
            yield
        finally:
            with self._lock:
                self._open.remove(handle)

    def cut(self) -> None:
        """End all connections."""
        with self._lock:
            self._ended = True
            for handle in self._open:
                with suppress(OSError):
                    handle.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("%s: the connection broke off", client_address[0], exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, find: Find, *arguments: Any) -> None:
        self._find = find
        super().__init__(*arguments)

    def do_GET(self) -> None:
        path = self._find(self.path.removeprefix("/"))
        try:
            stream = path.open("rb") if path else None
        except FileNotFoundError:  # removed since
            stream = None
        if stream is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with stream:
            size = stream.seek(0, 2)
            asked = _RANGE.fullmatch(self.headers.get("Range", ""))
            first = int(asked[1]) if asked else 0
            if asked and first >= size:
                self.send_error(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
                return
            self.send_response(HTTPStatus.PARTIAL_CONTENT if asked else HTTPStatus.OK)
            if asked:
                self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
            self.send_header("Content-Length", str(size - first))
            self.end_headers()
            stream.seek(first)
            shutil.copyfileobj(stream, self.wfile, _PIECE)

    def log_message(self, format: str, *args: object) -> None:
        log.debug("%s %s", self.address_string(), format % args)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a source is waited for. Seconds."""

    connect_s: float = 10.0
    silence_s: float = _SILENCE_S
    """Between two pieces."""
    slowest: float = 10_000.0
    """Bytes a second below which a whole transfer is given up."""
    grace_s: float = 60.0
    """What a transfer may take besides."""
    shun_s: float = 60.0
    """For so long a source that could not be connected to comes last."""


class Client:
    """Gets files from other hosts' servers; may be used by several threads. A proxy of the environment is passed by."""

    def __init__(self, identity: Identity, patience: Patience | None = None) -> None:
        self._patience = patience or Patience()
        timeout = httpx.Timeout(self._patience.silence_s, connect=self._patience.connect_s)
        self._http = httpx.Client(verify=identity.client_context(), timeout=timeout, trust_env=False)
        self._shunned: dict[str, float] = {}
        """Until when, by time.monotonic()."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def best(self, sources: Sequence[str]) -> Sequence[str]:
        """The same sources, those last that lately could not be connected to."""
        now = time.monotonic()
        return sorted(sources, key=lambda source: self._shunned.get(source, now) > now)

    def download(self, source: str, blob: Blob, part: Path) -> None:
        """Add to the file `part` what it has not yet of `blob` at the URL `source`.

        Raises TransferFailed where the source cannot be connected to, refuses, breaks off, is silent or too slow;
        what has come is kept. What comes is not checked.
        """
        try:
            with part.open("ab") as stream:
                if stream.tell() > blob.size:
                    stream.seek(stream.truncate(0))
                if stream.tell() < blob.size:
                    self._append(f"{source}/{blob.sha256}", blob.size, stream)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            self._shunned[source] = time.monotonic() + self._patience.shun_s
            raise TransferFailed(f"cannot connect ({error})") from error
        except httpx.TimeoutException as error:
            raise TransferFailed(f"silent for {self._patience.silence_s:g} s") from error
        except httpx.HTTPError as error:
            raise TransferFailed(str(error) or type(error).__name__) from error

    def _append(self, url: str, size: int, stream: Any) -> None:
        start = stream.tell()
        end_s = time.monotonic() + self._patience.grace_s + (size - start) / self._patience.slowest
        headers = {"Range": f"bytes={start}-"} if start else {}
        with self._http.stream("GET", url, headers=headers) as answer:
            if answer.status_code != (HTTPStatus.PARTIAL_CONTENT if start else HTTPStatus.OK):
                raise TransferFailed(f"status {answer.status_code}")
            for piece in answer.iter_raw():
                stream.write(piece)
                if stream.tell() > size:
                    raise TransferFailed(f"more than the {size} bytes that there are")
                if time.monotonic() > end_s:
                    raise TransferFailed("too slow")
