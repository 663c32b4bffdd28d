"""ssh to a host: with the key that is pinned for it, and with the master's own."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from cluster import paths
from cluster.errors import BuildFailed, MachineError, NodeLost
from cluster.master.hosts.registry import Machine
from cluster.node import keypair, ssh
from cluster.process import tail

_KEEPALIVE_S = 15
_ADMIT_S = 60.0
# The line is there once, however often this runs.
_ADMIT = (
    "umask 077; mkdir -p .ssh && touch .ssh/authorized_keys && "
    "{{ grep -qxF {line} .ssh/authorized_keys || echo {line} >> .ssh/authorized_keys; }}"
)
_DISMISS = "test ! -e .ssh/authorized_keys || sed -i {expression} .ssh/authorized_keys"


class HostUnreachable(MachineError):
    """A host does not answer, or not as itself, or does not let us in."""


def identity(directory: Path) -> Path:
    """The master's own private key in `directory`, made if it is not there; the public one is beside it."""
    path = directory / "identity"
    with paths.locked(directory / "identity.lock"):
        if not path.exists():
            new = path.with_suffix(".new")  # its public key is identity.pub
            keypair.make(new)
            new.rename(path)
    return path


def _line(private: Path) -> str:
    return private.with_suffix(".pub").read_text().strip()


def connect(machine: Machine, identity: Path | None, *, deadline_s: float = 0.0) -> ssh.Connection:
    """A connection to `machine` by the private key `identity`, or by the user's own if None, to be closed.

    One that does not answer is tried again for `deadline_s` seconds, as one that boots would be. Raises
    HostUnreachable, which says which of the three it is: another key, no admission, no answer.
    """
    try:
        return ssh.Connection(
            machine.port,
            host_key=machine.host_key,
            identity=identity,
            deadline_s=deadline_s,
            address=machine.address,
            user=machine.user,
            keepalive_s=_KEEPALIVE_S,
        )
    except ssh.WrongHostKey as error:
        what = f"host {machine} answers with another key than {ssh.fingerprint(machine.host_key)}: {error.mend}"
        raise HostUnreachable(
            what, "trust it only if you know why; then `cluster host remove` it and add it again"
        ) from error
    except ssh.NotAdmitted as error:
        mend = f"let one of your keys into its authorized_keys: ssh-copy-id {machine.user}@{machine.address}"
        raise HostUnreachable(f"host {machine} lets nobody in with {_whose(identity)}", mend) from error
    except NodeLost as error:
        raise HostUnreachable(f"host {machine} does not answer on ssh", error.mend) from error


def _whose(identity: Path | None) -> str:
    return "the keys of your agent and ~/.ssh" if identity is None else "this master's key"


def admit(machine: Machine, identity: Path) -> None:
    """Let the master's key in at `machine`, with the user's own keys, unless it is. Raises HostUnreachable."""
    try:
        with connect(machine, identity):
            return
    except HostUnreachable as error:
        if not isinstance(error.__cause__, ssh.NotAdmitted):
            raise
    with connect(machine, None) as connection:
        command(machine, connection, _ADMIT.format(line=shlex.quote(_line(identity))), deadline_s=_ADMIT_S)


def dismiss(machine: Machine, connection: ssh.Connection, identity: Path) -> None:
    """Take the master's key out of the host's authorized_keys. Raises MachineError."""
    key = _line(identity).split()[1].replace("/", r"\/")
    expression = shlex.quote(f"/{key}/d")
    command(machine, connection, _DISMISS.format(expression=expression), deadline_s=_ADMIT_S)


def command(machine: Machine, connection: ssh.Connection, words: str | Sequence[str], *, deadline_s: float) -> str:
    """What a shell command, or the program with its `words`, prints on the host.

    Raises MachineError if it fails or is not done within `deadline_s` seconds, HostUnreachable if the connection
    breaks.
    """
    text = words if isinstance(words, str) else shlex.join(words)
    said: list[bytes] = []
    try:
        status = connection.run(text, total_s=deadline_s, silence_s=deadline_s, output=said.append)
    except BuildFailed as error:
        raise MachineError(f"host {machine.name} was not done within {deadline_s:g} s", text) from error
    except NodeLost as error:
        raise HostUnreachable(f"the connection to host {machine.name} broke", error.mend) from error
    answer = b"".join(said).decode(errors="replace")
    if status:
        raise MachineError(f"on host {machine.name} a command ended with {status}", tail(answer) or text)
    return answer


def feed(machine: Machine, connection: ssh.Connection, command: str, source: IO[bytes], *, deadline_s: float) -> None:
    """Let a shell command on the host read `source` to its end. Raises as `command` does."""
    said: list[bytes] = []
    try:
        status = connection.feed(command, source, deadline_s=deadline_s, output=said.append)
    except NodeLost as error:
        raise HostUnreachable(f"the connection to host {machine.name} broke", error.mend or str(error)) from error
    if status:
        answer = tail(b"".join(said).decode(errors="replace"))
        raise MachineError(f"on host {machine.name} a command ended with {status}", answer or command)
