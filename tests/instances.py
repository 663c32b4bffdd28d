"""Machines to reach over ssh, made of namespaces of this one: they start in a moment, can be killed and cut off.

An instance has its own network (an address on a bridge), processes, host name, sshd and host key. Of files it has
this machine's; what it writes there this machine does not see, and is gone when it ends. /root, /home, /tmp, /var/tmp
and /run are its own and are kept, as a disk is, if it is killed and started again.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cluster.errors import CommandFailed
from cluster.process import Child, run

_PREFIX = "pcinst"
_PLACE = Path("/run/portage-cluster-instances")
_NETWORKS = range(1, 255)
_OWN = ("root", "home", "tmp", "var/tmp", "run")
_DEADLINE_S = 30.0
_UID = 1213
USER = "builder"
"""A user of every instance beside root, who may not become root."""

missing = (
    ""
    if os.geteuid() == 0 and all(shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") for name in ("sshd", "ip"))
    else "needs root, sshd and ip"
)

# $1 directory, $2 host name, $3 address, the rest: directories that are shared as they are, read-only.
_SCRIPT = f"""
directory=$1 name=$2 address=$3
shift 3
mount -t tmpfs layer "$directory/layer"
mkdir "$directory/layer/upper" "$directory/layer/work" "$directory/layer/root"
root=$directory/layer/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$directory/layer/upper,workdir=$directory/layer/work" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
for own in {" ".join(_OWN)}; do mount --bind "$directory/$own" "$root/$own"; done
mount --bind "$directory/ssh" "$root/etc/ssh"
for shared; do
	mkdir -p "$root$shared"
	mount --bind "$shared" "$root$shared"
	mount -o remount,bind,ro "$root$shared"
done
echo "{USER}:x:{_UID}:{_UID}::/home/{USER}:/bin/sh" >> "$root/etc/passwd"
echo "{USER}:x:{_UID}:" >> "$root/etc/group"
echo "{USER}:*:19000:0:99999:7:::" >> "$root/etc/shadow"
echo "$address $name" >> "$root/etc/hosts"
hostname "$name"
mkdir -p "$root/run/sshd" "$root/old"
cd "$root"
pivot_root . old
umount -l old
exec /usr/sbin/sshd -D -e
"""


@dataclass(slots=True)
class Instance:
    """A machine that runs, or did."""

    name: str
    address: str
    host_key: str
    """The public key it answers with, as a line of OpenSSH."""
    directory: Path
    """Its files: root/ (root's home), home/, tmp/, var/tmp/, run/."""
    namespace: str
    link: str
    """This machine's end of its cable."""
    child: Child | None = None
    """None before its first start."""
    clock: dict[str, str] = field(default_factory=dict)
    """The environment in which its processes see its clock."""
    host_keys: list[str] = field(default_factory=lambda: ["/etc/ssh/ssh_host_ed25519_key"])
    """Its private keys, where it has them; from its next start."""

    def admit(self, public: str, user: str = "root") -> None:
        """Let the owner of the key `public`, a line of OpenSSH, in as `user`."""
        home = self.directory / ("root" if user == "root" else f"home/{user}")
        (home / ".ssh").mkdir(mode=0o700, exist_ok=True)
        with (home / ".ssh/authorized_keys").open("a") as stream:
            stream.write(f"{public.strip()}\n")
        if user != "root":
            for path in (home / ".ssh", home / ".ssh/authorized_keys"):
                os.chown(path, _UID, _UID)

    def command(self, *argv: str) -> list[str]:
        """The words that run `argv` in it, as root."""
        assert self.child is not None
        first = Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children").read_text().split()[0]
        environment = [f"{name}={value}" for name, value in self.clock.items()]
        return ["nsenter", f"--target={first}", "--mount", "--net", "--pid", "--uts", "env", *environment, *argv]


class Network:
    """The machines of one network, 10.213.`number`.0/24, in which this machine has the address `master`."""

    def __init__(self, directory: Path, number: int, shared: Sequence[Path]) -> None:
        self.directory = directory
        self.master = f"10.213.{number}.1"
        self._number = number
        self._shared = [str(path) for path in shared]
        self._hosts = itertools.count(2)
        self._known: dict[str, Instance] = {}
        # A child dies with the thread that started it, which is not to be a caller's.
        self._starter = ThreadPoolExecutor(1)
        self._bridge = f"{_PREFIX}-{number}"
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("address", "add", f"{self.master}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")

    def start(self, name: str, *, clock_s: float = 0.0) -> Instance:
        """Start the machine `name`, whose clock is `clock_s` seconds ahead of this one's; returns it when sshd answers.

        One that was killed comes back with its address, host key and files.
        """
        instance = self._known.get(name) or self._new(name)
        instance.clock = _clock(clock_s)
        (instance.directory / "ssh/sshd_config").write_text(_sshd_config(instance))
        self._plug(instance)
        words = ["ip", "netns", "exec", instance.namespace, "unshare", "--mount", "--pid", "--uts", "--fork"]
        words += ["--kill-child", "--propagation=private", "sh", "-euc", _SCRIPT, "instance"]
        words += [str(instance.directory), name, instance.address, *self._shared]
        log = instance.directory / "log"
        instance.child = self._starter.submit(lambda: Child(words, log_path=log)).result()
        _wait_for_sshd(instance)
        return instance

    def _new(self, name: str) -> Instance:
        directory = self.directory / name
        host = next(self._hosts)
        prefix = f"{_PREFIX}-{self._number}"
        address = f"{self.master.rpartition('.')[0]}.{host}"
        made = Instance(name, address, _make_files(directory), directory, f"{prefix}-{name}", f"{prefix}-{host}")
        self._known[name] = made
        return made

    def _plug(self, instance: Instance) -> None:
        namespace = instance.namespace
        _ip("netns", "add", namespace)
        # A new card would not be found before its neighbours forget the old one.
        card = "02:00:" + ":".join(f"{int(part):02x}" for part in instance.address.split("."))
        peer = ["peer", "name", "eth0", "address", card, "netns", namespace]
        _ip("link", "add", instance.link, "type", "veth", *peer)
        _ip("link", "set", instance.link, "master", self._bridge, "up")
        _ip("-n", namespace, "link", "set", "lo", "up")
        _ip("-n", namespace, "address", "add", f"{instance.address}/24", "dev", "eth0")
        _ip("-n", namespace, "link", "set", "eth0", "up")

    def kill(self, name: str) -> None:
        """End the machine as if its power failed."""
        instance = self._known[name]
        _end(instance)
        _unplug(instance.namespace)

    def cut(self, name: str) -> None:
        """Pull its network cable: nothing comes through, and nobody is told."""
        _ip("link", "set", self._known[name].link, "down")

    def mend(self, name: str) -> None:
        """Put its network cable back."""
        _ip("link", "set", self._known[name].link, "up")

    def stop(self) -> None:
        """End all machines and the network."""
        for instance in self._known.values():
            _end(instance)
        self._starter.shutdown()
        _sweep(self._number)


@contextmanager
def network(directory: Path, *, shared: Sequence[Path] = ()) -> Iterator[Network]:
    """A network of machines whose files are below `directory`; needs root.

    This checkout and the running Python are `shared` with them, at the same paths and read-only, and so are the
    directories given. What a killed process left behind of another network is ended first.
    """
    _PLACE.mkdir(exist_ok=True)
    checkout = Path(__file__).resolve().parents[1]
    with ExitStack() as stack:
        number = _number(stack)
        made = Network(directory, number, [checkout, Path(sys.prefix), *shared])
        stack.callback(made.stop)
        yield made


def _number(stack: ExitStack) -> int:
    """A network's number that nobody has, held by `stack`; those that nobody has any more are swept."""
    found = 0
    for number in _NETWORKS:
        path = _PLACE / f"{number}.lock"
        if found and not path.exists():
            continue
        with ExitStack() as trial:
            stream = trial.enter_context(path.open("a"))
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            _sweep(number)
            if not found:
                found = number
                stack.enter_context(trial.pop_all())
    if not found:
        raise RuntimeError("all networks of instances are taken")
    return found


def _sweep(number: int) -> None:
    """End whatever is there of network `number`."""
    for line in _ip("netns", "list").splitlines():
        if line.startswith(f"{_PREFIX}-{number}-"):
            _unplug(line.split()[0])
    for link in Path("/sys/class/net").glob(f"{_PREFIX}-{number}"):
        _ip("link", "delete", link.name)


def _end(instance: Instance) -> None:
    if instance.child is not None:
        instance.child.kill()


def _unplug(namespace: str) -> None:
    """End what runs in `namespace`, its cable and itself."""
    for pid in _ip("netns", "pids", namespace).split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    # The cable goes with the namespace only when its last process is reaped.
    with suppress(CommandFailed):
        _ip("-n", namespace, "link", "delete", "eth0")
    _ip("netns", "delete", namespace)


def _ip(*words: str) -> str:
    return run(["ip", *words], deadline_s=_DEADLINE_S)


def _make_files(directory: Path) -> str:
    """The files of a new machine; returns its public key."""
    for name in (*_OWN, "ssh", "layer", f"home/{USER}"):
        (directory / name).mkdir(parents=True)
    for name in ("tmp", "var/tmp"):
        (directory / name).chmod(0o1777)
    (directory / "root").chmod(0o700)
    os.chown(directory / "home" / USER, _UID, _UID)
    key = directory / "ssh/ssh_host_ed25519_key"
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key)], deadline_s=_DEADLINE_S)
    return key.with_suffix(".pub").read_text().strip()


def _clock(ahead_s: float) -> dict[str, str]:
    if not ahead_s:
        return {}
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        pytest.skip("needs libfaketime")
    return {"LD_PRELOAD": str(library), "FAKETIME": f"{ahead_s:+g}", "DONT_FAKE_MONOTONIC": "1"}


def _sshd_config(instance: Instance) -> str:
    lines = [
        *(f"HostKey {key}" for key in instance.host_keys),
        "PidFile none",
        "UsePAM no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin prohibit-password",
        "MaxStartups 100",
        "Subsystem sftp internal-sftp",
    ]
    if instance.clock:
        lines.append(f"SetEnv {' '.join(f'{name}={value}' for name, value in instance.clock.items())}")
    return "\n".join(lines) + "\n"


def _wait_for_sshd(instance: Instance) -> None:
    end = time.monotonic() + _DEADLINE_S
    while True:
        try:
            socket.create_connection((instance.address, 22), timeout=1).close()
            return
        except OSError:
            assert instance.child is not None
            if instance.child.ended or time.monotonic() > end:
                raise RuntimeError(f"{instance.name} does not start: {instance.child.why()}") from None
            time.sleep(0.02)
