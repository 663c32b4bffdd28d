"""Buckets of the server of `amazon`, and a server that refuses."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest

from cluster.master.s3 import Bucket, Place

SECRET = "a-secret-that-nobody-is-to-see"


def credentials(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """The environment's are for the server at `endpoint`, and a test's own."""
    values = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "AKIATEST",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_SESSION_TOKEN": f"token-{SECRET}",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name in ("AWS_PROFILE", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def made(test: str, prefix: str) -> Bucket:
    """A new bucket for the test called so, and the objects below `prefix` in it."""
    name = f"bucket-{zlib.crc32(test.encode()):x}"
    boto3.client("s3").create_bucket(Bucket=name)
    return Bucket(Place(name, prefix))


@contextmanager
def refusing(status: int, code: str) -> Iterator[str]:
    """The URL of a server that answers everything with an error."""
    body = f"<Error><Code>{code}</Code><Message>no: {code}</Message></Error>".encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_PUT(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
