"""ssh to hosts: whom to trust, how to be let in, and tunnels."""

from __future__ import annotations

import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from instances import USER, Instance, Network

from cluster.errors import MachineError
from cluster.master.hosts import link
from cluster.master.hosts.registry import Machine
from cluster.node import keypair, ssh
from cluster.process import run

pytestmark = pytest.mark.slow


def machine_of(instance: Instance, user: str = "root") -> Machine:
    return Machine(instance.name, user, instance.address, 22, instance.host_key)


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    return link.identity(tmp_path / "hosts")


def test_the_masters_key_is_made_once_and_is_nobody_elses(tmp_path: Path) -> None:
    made = link.identity(tmp_path / "hosts")
    before = made.read_bytes()
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert link.identity(tmp_path / "hosts").read_bytes() == before
    assert made.with_suffix(".pub").read_text().startswith("ssh-ed25519 ")


@pytest.mark.parametrize("user", ["root", USER])
def test_the_users_key_lets_the_masters_in_and_is_not_needed_again(
    instances: Network, identity: Path, own_key: str, user: str
) -> None:
    instance = instances.start("one")
    instance.admit(own_key, user)
    machine = machine_of(instance, user)
    for _ in range(2):
        link.admit(machine, identity)
    (Path.home() / ".ssh/id_ed25519").unlink()
    with link.connect(machine, identity) as connection:
        assert link.command(machine, connection, ["id", "-un"], deadline_s=30) == f"{user}\n"
        assert len(link.command(machine, connection, "cat .ssh/authorized_keys", deadline_s=30).splitlines()) == 2
        link.dismiss(machine, connection, identity)
    with pytest.raises(link.HostUnreachable, match="lets nobody in with this master's key"):
        link.connect(machine, identity)


def test_who_is_not_let_in_is_told_how_to_be(instances: Network, identity: Path) -> None:
    machine = machine_of(instances.start("one"))
    with pytest.raises(link.HostUnreachable, match=r"host one \(root@.*agent and ~/\.ssh: .*ssh-copy-id root@"):
        link.admit(machine, identity)


def test_another_host_key_is_refused_and_both_are_named(instances: Network, identity: Path, tmp_path: Path) -> None:
    keypair.make(tmp_path / "other")
    instance = instances.start("one")
    pinned = (tmp_path / "other.pub").read_text()
    with pytest.raises(link.HostUnreachable) as caught:
        link.connect(replace(machine_of(instance), host_key=pinned), identity)
    for key in (pinned, instance.host_key):
        assert ssh.fingerprint(key) in str(caught.value)
    rsa = instance.directory / "rsa"
    run(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", rsa], deadline_s=60)
    with pytest.raises(link.HostUnreachable, match="answers with another key than ssh-rsa"):
        link.connect(replace(machine_of(instance), host_key=rsa.with_suffix(".pub").read_text()), identity)


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_a_pinned_key_of_any_type_is_asked_for(instances: Network, identity: Path, kind: str) -> None:
    instance = instances.start("one")
    instance.admit(identity.with_suffix(".pub").read_text())
    instances.kill("one")
    key = instance.directory / f"ssh/{kind}"
    run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", key], deadline_s=60)
    instance.host_keys.append(f"/etc/ssh/{kind}")
    machine = replace(machine_of(instances.start("one")), host_key=key.with_suffix(".pub").read_text())
    with link.connect(machine, identity) as connection:
        assert connection.alive


def test_nobody_there_is_said(identity: Path, instances: Network) -> None:
    nobody = Machine("gone", "me", instances.master, 9, "ssh-ed25519 " + "AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43)
    with pytest.raises(link.HostUnreachable, match=r"host gone \(me@.* port 9\) does not answer on ssh"):
        link.connect(nobody, identity)


def test_the_key_that_is_offered_is_the_hosts(instances: Network) -> None:
    instance = instances.start("one")
    assert ssh.offered_key(instance.address, 22) == instance.host_key
    said = run(["ssh-keygen", "-l", "-f", instance.directory / "ssh/ssh_host_ed25519_key.pub"], deadline_s=60)
    assert ssh.fingerprint(instance.host_key).split()[1] == said.split()[1]


def test_a_command_that_fails_says_why(instances: Network, identity: Path) -> None:
    instance = instances.start("one")
    instance.admit(identity.with_suffix(".pub").read_text())
    machine = machine_of(instance)
    with link.connect(machine, identity) as connection:
        with pytest.raises(MachineError, match=r"on host one a command ended with 3: no such thing"):
            link.command(machine, connection, "echo no such thing >&2; exit 3", deadline_s=30)
        with pytest.raises(MachineError, match=r"host one was not done within 0\.2 s: sleep 9"):
            link.command(machine, connection, ["sleep", "9"], deadline_s=0.2)


@contextmanager
def echoing() -> Iterator[int]:
    """A port of this machine's loopback that gives back what it was sent, in capitals, once its peer has ended."""

    def serve(server: socket.socket) -> None:
        with suppress(OSError):  # when it is closed
            while True:
                peer, _ = server.accept()
                with peer, peer.makefile("rb") as said:
                    peer.sendall(said.read().upper())

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def exchange(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as peer:
        threading.Thread(target=lambda: (peer.sendall(data), peer.shutdown(socket.SHUT_WR)), daemon=True).start()
        return b"".join(iter(lambda: peer.recv(65536), b""))


def test_tunnels_lead_there_and_back(instances: Network, identity: Path) -> None:
    # From a port here to a port of the host, which is a tunnel too, to a port here.
    instance = instances.start("one")
    instance.admit(identity.with_suffix(".pub").read_text())
    data = b"abc" * 300_000
    with echoing() as port, link.connect(machine_of(instance), identity) as connection:
        with connection.reverse(port) as there, connection.forward(there) as here:
            assert exchange(here, data) == data.upper()
            assert exchange(here, b"again") == b"AGAIN"
        with connection.forward(there) as here:
            assert exchange(here, b"") == b""  # nobody listens there any more


def test_what_goes_through_a_tunnel_ends_with_its_connection(instances: Network, identity: Path) -> None:
    instance = instances.start("one")
    instance.admit(identity.with_suffix(".pub").read_text())
    with link.connect(machine_of(instance), identity) as connection, connection.forward(22) as here:
        with socket.create_connection(("127.0.0.1", here), timeout=20) as peer:
            assert peer.recv(4) == b"SSH-"
            instances.kill("one")
            while peer.recv(65536):
                pass
        assert not connection.alive


def test_a_stream_is_fed_to_a_command(instances: Network, identity: Path, tmp_path: Path) -> None:
    instance = instances.start("one")
    instance.admit(identity.with_suffix(".pub").read_text())
    (tmp_path / "file").write_bytes(b"x" * 3_000_000)
    said: list[bytes] = []
    with link.connect(machine_of(instance), identity) as connection:
        with (tmp_path / "file").open("rb") as source:
            assert connection.feed("wc -c; exit 3", source, deadline_s=60, output=said.append) == 3
        assert b"".join(said) == b"3000000\n"
        with (tmp_path / "file").open("rb") as source:
            assert connection.feed("echo full; exit 1", source, deadline_s=60, output=said.append) == 1
        assert said[-1] == b"full\n"
