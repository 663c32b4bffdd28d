"""What an instance is told at its first boot, and the switch that ends it."""

from __future__ import annotations

import email
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cluster import paths
from cluster.errors import MachineError
from cluster.master.ec2 import userdata
from cluster.master.ec2.userdata import LIMIT_BYTES, Words
from cluster.node import keypair

WORDS = Words("20260101-000000-abcd", "PRIVATE\nHOST\n", "ssh-ed25519 AAAA", ("ssh-ed25519 BBBB",), 2.0, 30)


def parts(text: str) -> dict[str, str]:
    return {one.get_content_subtype(): one.get_payload() for one in email.message_from_string(text).get_payload()}


def cloud_config(words: Words = WORDS) -> dict:
    first, _, rest = parts(userdata.render(words))["cloud-config"].partition("\n")
    assert first == "#cloud-config"
    return json.loads(rest)


def test_the_host_key_is_there_before_sshd_is_and_is_the_only_one() -> None:
    config = cloud_config()
    assert config["ssh_keys"] == {"ed25519_private": "PRIVATE\nHOST\n", "ed25519_public": "ssh-ed25519 AAAA"}
    assert config["ssh_deletekeys"]
    assert not config["ssh_genkeytypes"]
    assert config["users"][0]["ssh_authorized_keys"] == ["ssh-ed25519 BBBB"]
    assert config["ssh_pwauth"] is False


def test_real_keys_fit_into_what_aws_takes(tmp_path: Path) -> None:
    keypair.make(tmp_path / "key")
    public = (tmp_path / "key.pub").read_text()
    words = Words("r", (tmp_path / "key").read_text(), public, (public, public), 2.0, 30)
    assert len(userdata.render(words)) < LIMIT_BYTES / 1.5


def test_more_than_aws_takes_is_refused() -> None:
    with pytest.raises(MachineError, match="16384"):
        userdata.render(Words("r", "x" * LIMIT_BYTES, "", (), 2.0, 30))


def test_the_script_is_one_that_shells_take(tmp_path: Path) -> None:
    script = tmp_path / "user-data.sh"
    script.write_text(parts(userdata.render(WORDS))["x-shellscript"])
    subprocess.run(["sh", "-n", script], check=True)
    assert "shutdown -P +115 " in script.read_text()  # two hours, less what shutting down may take
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", script], check=True)


def test_the_switch_is_told_the_limits_by_its_unit() -> None:
    unit = next(one["content"] for one in cloud_config()["write_files"] if one["path"].endswith(".service"))
    assert "--silence-s 1800 --end-s 6900" in unit


class Metadata(BaseHTTPRequestHandler):
    """The instance metadata service, version 2: no token, no answer."""

    notice = ""

    def do_PUT(self) -> None:
        assert self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self._answer(200, "token")

    def do_GET(self) -> None:
        if self.headers["X-aws-ec2-metadata-token"] != "token":
            self._answer(401, "")
        else:
            self._answer(200 if self.notice else 404, self.notice)

    def _answer(self, code: int, text: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def metadata() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Metadata,), {}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def switch(directory: Path, server: ThreadingHTTPServer, silence_s: float, end_s: float) -> subprocess.Popen[bytes]:
    argv = [sys.executable, paths.data("ec2", "switch.py"), directory, "--service",
            f"http://127.0.0.1:{server.server_port}", "--uptime", directory / "uptime",
            "--poweroff", f"touch {directory}/off", "--silence-s", f"{silence_s}", "--end-s", f"{end_s}"]  # fmt: skip
    return subprocess.Popen(argv)


@pytest.mark.parametrize(
    ("uptime", "alive", "end_s"),
    [("2000.1 5", "199.5 9", 9e9), ("2000.1 5", "1999 9", 2000), ("2000.1 5", "5000 9", 9e9), ("2000.1 5", "", 9e9)],
)
def test_an_instance_ends_itself_after_silence_or_when_its_time_is_over(
    tmp_path: Path, metadata: ThreadingHTTPServer, uptime: str, alive: str, end_s: float
) -> None:
    (tmp_path / "uptime").write_text(uptime)
    (tmp_path / "alive").write_text(alive)
    assert switch(tmp_path, metadata, 1800, end_s).wait(30) == 0
    assert (tmp_path / "off").exists()


def test_an_interruption_is_left_where_the_master_looks(tmp_path: Path, metadata: ThreadingHTTPServer) -> None:
    said = '{"action": "terminate", "time": "2026-01-01T00:02:00Z"}'
    metadata.RequestHandlerClass.notice = said
    (tmp_path / "uptime").write_text("2000.1 5")
    (tmp_path / "alive").write_text("1999")
    running = switch(tmp_path, metadata, 1800, 9e9)
    try:
        end = time.monotonic() + 30
        while not (tmp_path / "notice").exists() and time.monotonic() < end:
            time.sleep(0.05)
        assert (tmp_path / "notice").read_text() == said
        assert running.poll() is None
    finally:
        running.kill()
        running.wait()
