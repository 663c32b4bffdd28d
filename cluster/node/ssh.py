"""Commands and files in a node, over ssh with a pinned host key. The one module that imports paramiko."""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Self

from cluster import lazy
from cluster.errors import NodeLost
from cluster.node.shell import Patience

if TYPE_CHECKING:
    import paramiko
else:
    paramiko = lazy.module("paramiko")

_CONNECT_S = 20.0
_POLL_S = 0.5
_CHUNK = 65536


class Connection:
    """An ssh connection to `user` of the machine at `address` and `port`, by default root of a node on loopback.

    `host_key` is the public key file that it must answer with, `identity` the private
    key that opens it. Raises NodeLost if it does not open within `deadline_s` seconds.
    """

    def __init__(
        self,
        port: int,
        *,
        host_key: Path,
        identity: Path,
        deadline_s: float,
        address: str = "127.0.0.1",
        user: str = "root",
    ) -> None:
        self._transport = self._connect((address, port), user, host_key, identity, deadline_s)

    @staticmethod
    def _connect(
        address: tuple[str, int], user: str, host_key: Path, identity: Path, deadline_s: float
    ) -> paramiko.Transport:
        pinned = paramiko.Ed25519Key(data=_public_blob(host_key))
        key = paramiko.Ed25519Key.from_private_key_file(str(identity))
        end = time.monotonic() + deadline_s
        while True:
            transport: paramiko.Transport | None = None
            try:
                connection = socket.create_connection(address, timeout=_CONNECT_S)
                transport = paramiko.Transport(connection)
                transport.banner_timeout = _CONNECT_S
                transport.auth_timeout = _CONNECT_S
                transport.connect(hostkey=pinned, username=user, pkey=key)
                return transport
            except (OSError, EOFError, paramiko.SSHException) as error:
                if transport is not None:
                    transport.close()
                if isinstance(error, paramiko.AuthenticationException) or "Bad host key" in str(error):
                    raise NodeLost("the node's ssh keys are not the stage's", str(error)) from error
                if time.monotonic() > end:
                    raise NodeLost("the node does not answer on ssh", str(error)) from error
                time.sleep(0.1)  # sshd may be a moment behind the console's ready line

    def run(
        self,
        command: str,
        *,
        total_s: float,
        silence_s: float,
        output: Callable[[bytes], object],
    ) -> int:
        """Run a shell command; as in `Shell`."""
        patience = Patience(total_s, silence_s)
        try:
            channel = self._transport.open_session(timeout=_CONNECT_S)
            channel.set_combine_stderr(True)
            channel.settimeout(_POLL_S)
            channel.exec_command(f"({command}\n)\nexit $?")  # sshd sends no status for a command that a signal ends
            while True:
                patience.check()
                try:
                    data = channel.recv(_CHUNK)
                except TimeoutError:
                    if not self._transport.is_active():
                        raise NodeLost("the connection to the node broke") from None
                    continue
                if not data:  # its output is closed, but it may run on
                    if channel.exit_status_ready() or not self._transport.is_active():
                        break
                    channel.status_event.wait(_POLL_S)
                    continue
                patience.heard()
                output(data)
            status = channel.recv_exit_status() if channel.exit_status_ready() or self._transport.is_active() else -1
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise NodeLost("the connection to the node broke", str(error)) from error
        if status < 0:
            raise NodeLost("the connection to the node broke")
        return status

    def fetch(self, remote: PurePosixPath, local: Path, *, deadline_s: float) -> None:
        """Copy a file of the node; as in `Shell`."""
        part = local.with_name(local.name + ".part")
        try:
            with paramiko.SFTPClient.from_transport(self._transport) as client:  # type: ignore[union-attr]
                channel = client.get_channel()
                if channel is not None:
                    channel.settimeout(deadline_s)
                client.get(str(remote), str(part))
        except (OSError, EOFError, paramiko.SSHException) as error:
            part.unlink(missing_ok=True)
            raise NodeLost(f"cannot fetch {remote} from the node", str(error)) from error
        part.rename(local)

    def put(self, local: Path, remote: PurePosixPath, *, deadline_s: float) -> None:
        """Copy `local` to a file of the node, whole or not at all. Raises NodeLost."""
        part = f"{remote}.part"
        try:
            with paramiko.SFTPClient.from_transport(self._transport) as client:  # type: ignore[union-attr]
                channel = client.get_channel()
                if channel is not None:
                    channel.settimeout(deadline_s)
                client.put(str(local), part)
                client.posix_rename(part, str(remote))
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise NodeLost(f"cannot put {remote} into the node", str(error)) from error

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _public_blob(path: Path) -> bytes:
    return base64.b64decode(path.read_text().split()[1])
