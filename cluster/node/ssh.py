"""Commands and files in a node, over ssh with a pinned host key. The one module that imports paramiko."""

from __future__ import annotations

import base64
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Self

from cluster import lazy
from cluster.errors import NodeLost
from cluster.node import tunnel
from cluster.node.shell import Patience
from cluster.process import tail

if TYPE_CHECKING:
    import paramiko
else:
    paramiko = lazy.module("paramiko")

_CONNECT_S = 20.0
_POLL_S = 0.5
_CHUNK = 65536
_SENT = 1 << 20
_SILENT_MS = 60_000  # of a peer that does not even acknowledge, before the connection counts as broken
_RSA = "ssh-rsa"
_RSA_SIGNATURES = ("rsa-sha2-512", "rsa-sha2-256")
_LOOPBACK = "127.0.0.1"


class WrongHostKey(NodeLost):
    """What answers does not have the key that is pinned."""


class NotAdmitted(NodeLost):
    """The machine lets none of our keys in."""


class Connection:
    """An ssh connection to `user` of the machine at `address` and `port`, by default root of a node on loopback.

    `host_key` is the public key that it must answer with, of any type: OpenSSH's line, or a file that has it.
    `identity` is the private key that opens it, None for any of this user's, in the agent or ~/.ssh. With
    `keepalive_s` the peer is spoken to that often, so that one that is gone breaks the connection within a minute more.
    Raises WrongHostKey, NotAdmitted, or NodeLost if it does not open within `deadline_s` seconds.
    """

    def __init__(
        self,
        port: int,
        *,
        host_key: Path | str,
        identity: Path | None,
        deadline_s: float,
        address: str = _LOOPBACK,
        user: str = "root",
        keepalive_s: int = 0,
    ) -> None:
        pinned = _public(host_key.read_text() if isinstance(host_key, Path) else host_key)
        keys = _own_keys() if identity is None else (paramiko.Ed25519Key.from_private_key_file(str(identity)),)
        self._transport = _connect((address, port), user, pinned, keys, deadline_s)
        self._reversed: dict[int, int] = {}
        if keepalive_s:
            self._transport.set_keepalive(keepalive_s)

    @property
    def alive(self) -> bool:
        """Whether it is open."""
        return bool(self._transport.is_active())

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

    def feed(self, command: str, source: IO[bytes], *, deadline_s: float, output: Callable[[bytes], object]) -> int:
        """Run a shell command that reads `source` to its end; returns its status. `output` gets both its streams.

        Raises NodeLost, also if it is not done within `deadline_s` seconds.
        """
        end = time.monotonic() + deadline_s
        try:
            channel = self._transport.open_session(timeout=_CONNECT_S)
            channel.set_combine_stderr(True)
            channel.exec_command(command)
            with suppress(OSError):  # it may end before it has read all, and says why
                while data := source.read(_SENT):
                    channel.settimeout(max(0.0, end - time.monotonic()))
                    channel.sendall(data)
                channel.shutdown_write()
            channel.settimeout(max(_POLL_S, end - time.monotonic()))
            while said := channel.recv(_CHUNK):
                output(said)
            if not channel.status_event.wait(max(_POLL_S, end - time.monotonic())):
                raise NodeLost(f"a command was not done after {deadline_s:g} s")
            return channel.recv_exit_status()
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise NodeLost("the connection to the node broke", str(error)) from error

    @contextmanager
    def holding(self, command: str, *, deadline_s: float) -> Iterator[None]:
        """Keep a shell command running, which prints a first line within `deadline_s` and then reads stdin to its end.

        The end comes with the context's, or the connection's; on leaving, the command has `deadline_s` to end as well.
        Raises NodeLost with what it prints if it does not begin.
        """
        try:
            channel = self._transport.open_session(timeout=_CONNECT_S)
            channel.set_combine_stderr(True)
            channel.settimeout(deadline_s)
            channel.exec_command(command)
            said = channel.recv(_CHUNK)
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise NodeLost("the connection to the node broke", str(error)) from error
        if channel.status_event.wait(0) or not said:
            raise NodeLost("a command does not begin", tail(said.decode(errors="replace")))
        try:
            yield
        finally:
            with suppress(OSError, EOFError, paramiko.SSHException):
                channel.shutdown_write()
                channel.status_event.wait(deadline_s)
                channel.close()

    @contextmanager
    def forward(self, port: int, address: str = _LOOPBACK) -> Iterator[int]:
        """A port of this machine's loopback that leads to `port` of `address` as the other machine sees them."""

        def opened(peer: tuple[str, int]) -> tunnel.Stream:
            try:
                return self._transport.open_channel("direct-tcpip", (address, port), peer, timeout=_CONNECT_S)
            except paramiko.SSHException as error:  # nobody listens there, or the connection is closed
                raise OSError(str(error)) from error

        with tunnel.listening(opened) as local:
            yield local

    @contextmanager
    def reverse(self, port: int, remote: int = 0) -> Iterator[int]:
        """A port of the other machine's loopback, `remote` or else any, that leads to `port` of this machine's.

        Raises NodeLost if the other machine has no such port to give.
        """
        try:
            bound = self._transport.request_port_forward(_LOOPBACK, remote, self._came)
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise NodeLost(f"the other machine lets nobody listen on its port {remote or 'of any number'}") from error
        self._reversed[bound] = port
        try:
            yield bound
        finally:
            del self._reversed[bound]
            with suppress(OSError, EOFError, paramiko.SSHException):
                self._transport.cancel_port_forward(_LOOPBACK, bound)

    def _came(self, channel: paramiko.Channel, origin: tuple[str, int], server: tuple[str, int]) -> None:
        # In the transport's own thread, which is not to wait.
        threading.Thread(target=self._lead, args=(channel, server[1]), daemon=True).start()

    def _lead(self, channel: paramiko.Channel, bound: int) -> None:
        port = self._reversed.get(bound)
        other = tunnel.reach(port) if port else None
        if other is None:
            channel.close()
        else:
            tunnel.join(channel, other)

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _connect(
    address: tuple[str, int], user: str, pinned: paramiko.PKey, keys: Iterable[paramiko.PKey], deadline_s: float
) -> paramiko.Transport:
    end = time.monotonic() + deadline_s
    while True:
        transport: paramiko.Transport | None = None
        try:
            transport = _transport(address)
            _start(transport, pinned)
            _authenticate(transport, user, keys)
            return transport
        except (OSError, EOFError, paramiko.SSHException, NodeLost) as error:
            if transport is not None:
                transport.close()
            if isinstance(error, NodeLost):
                raise
            if time.monotonic() > end:
                raise NodeLost("the node does not answer on ssh", str(error)) from error
            time.sleep(0.1)  # sshd may be a moment behind the console's ready line


def _transport(address: tuple[str, int]) -> paramiko.Transport:
    connection = socket.create_connection(address, timeout=_CONNECT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENT_MS)
    transport = paramiko.Transport(connection)
    transport.banner_timeout = _CONNECT_S
    transport.auth_timeout = _CONNECT_S
    return transport


def _start(transport: paramiko.Transport, pinned: paramiko.PKey) -> None:
    """Let the peer prove that it has the key `pinned`, and no other that it may have too."""
    kind = pinned.get_name()
    transport.get_security_options().key_types = _RSA_SIGNATURES if kind == _RSA else (kind,)
    try:
        transport.start_client(timeout=_CONNECT_S)
    except paramiko.ssh_exception.IncompatiblePeer as error:
        raise WrongHostKey("the node's ssh keys are not the stage's", str(error)) from error
    offered = transport.get_remote_server_key()
    if offered.asbytes() != pinned.asbytes():
        raise WrongHostKey("the node's ssh keys are not the stage's", f"it has {_fingerprint(offered)}")


def _authenticate(transport: paramiko.Transport, user: str, keys: Iterable[paramiko.PKey]) -> None:
    refusal = "there is no key to show"
    for key in keys:
        try:
            transport.auth_publickey(user, key)
            return
        except paramiko.AuthenticationException as error:
            refusal = str(error)
        if not transport.is_active():  # the server has seen enough keys
            break
    raise NotAdmitted("the node's ssh keys are not the stage's", refusal)


def _own_keys() -> Iterator[paramiko.PKey]:
    """The keys of this user: the agent's, then those in ~/.ssh that have no passphrase."""
    yield from paramiko.Agent().get_keys()
    for path in sorted((Path.home() / ".ssh").glob("id_*")):
        if path.suffix != ".pub":
            with suppress(OSError, ValueError, paramiko.SSHException, paramiko.pkey.UnknownKeyType):
                yield paramiko.PKey.from_path(path)


def offered_key(address: str, port: int) -> str:
    """The public key, OpenSSH's line, that the machine at `address` and `port` answers with. Raises NodeLost."""
    try:
        with _transport((address, port)) as transport:
            transport.start_client(timeout=_CONNECT_S)
            key = transport.get_remote_server_key()
            return f"{key.get_name()} {key.get_base64()}"
    except (OSError, EOFError, paramiko.SSHException) as error:
        raise NodeLost(f"nothing answers on ssh at {address} port {port}", str(error)) from error


def fingerprint(line: str) -> str:
    """The fingerprint of a public key, OpenSSH's line, as `ssh-keygen -l` shows it. Raises ValueError if it is none."""
    return _fingerprint(_public(line))


def _fingerprint(key: paramiko.PKey) -> str:
    return f"{key.get_name()} {key.fingerprint}"


def _public(line: str) -> paramiko.PKey:
    """The public key of OpenSSH's line `line`. Raises ValueError."""
    words = line.split()
    try:
        return paramiko.PKey.from_type_string(words[0], base64.b64decode(words[1], validate=True))
    except (IndexError, ValueError, paramiko.SSHException, paramiko.pkey.UnknownKeyType) as error:
        raise ValueError(f"{line.strip()!r} is not a public key of OpenSSH") from error
