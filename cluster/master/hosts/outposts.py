"""The workers that serve a run on other hosts: started over ssh, started anew when the link broke, ended with it.

All that a host and the master have to say to each other goes through that one ssh connection, so the host is reached
where its sshd is, and needs to reach nobody: ports of its loopback lead to the master's scheduler and files, ports
here to its worker and its files. What other hosts may fetch from it they fetch from its own address, unless it is one
for a tunnel.
"""

from __future__ import annotations

import json
import shlex
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from cluster.errors import ClusterError, MachineError, NodeLost
from cluster.host.tls import Authority, Identity
from cluster.host.workshop import Gate
from cluster.master.engines.courier import Courier, Route
from cluster.master.engines.engine import Change, Draining, Resumed
from cluster.master.hosts import launch, link, setup
from cluster.master.hosts.registry import Machine, Registry, State
from cluster.node import drivers
from cluster.node.ssh import Connection
from cluster.process import tail

_CONNECT_S = 20.0
_SETTLE_S = 60.0
_FOREVER_S = 1e9
_PAUSES_S = (2.0, 5.0, 15.0, 30.0, 60.0)
"""Between tries to have a host back; one that worked for a while has them all again."""
_WORKED_S = 60.0
_LOOK_S = 2.0
_END_S = 15.0
_LOOPBACK = "127.0.0.1"
# Directories of runs whose worker had no time to remove them go after two days.
_SETTLE = """umask 077; work="$HOME/{home}/work"; mkdir -p "$work"
find "$work" -mindepth 1 -maxdepth 1 -mtime +2 -exec rm -rf {{}} +
directory=$(mktemp -d "$work/XXXXXX"); mkdir "$directory/identity"; echo "$directory"
{python} -c {script}"""
_SCRIPT = """
import json, pathlib, socket, cluster.host
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
ports = [each.getsockname()[1] for each in sockets]
print(json.dumps([*ports, str(pathlib.Path(cluster.host.__file__).with_name("dask.yaml"))]))
"""


@dataclass(frozen=True, slots=True)
class Headquarters:
    """What hosts serve."""

    target: str
    scheduler: int
    """The port of the Dask scheduler on the master's loopback."""
    files: int
    """That of the master's files."""
    courier: Courier
    authority: Authority
    identity: Path
    """The private key for ssh."""


@dataclass(slots=True)
class _Line:
    """The connection to a host, with the tunnels between its loopback and this machine's."""

    connection: Connection
    tunnels: ExitStack
    _doors: dict[int, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def door(self, port: int) -> int:
        """A port here that leads to `port` there."""
        with self._lock:
            if port not in self._doors:
                self._doors[port] = self.tunnels.enter_context(self.connection.forward(port))
            return self._doors[port]

    def lead(self, port: int) -> int:
        """A port there that leads to `port` here. Raises NodeLost."""
        with self._lock:
            return self.tunnels.enter_context(self.connection.reverse(port))


@dataclass(slots=True)
class Outposts:
    """The workers on hosts; each is kept by a thread."""

    base: Headquarters
    registry: Registry
    warn: Callable[[str], None]
    _over: threading.Event = field(default_factory=threading.Event)
    _keepers: dict[str, threading.Thread] = field(default_factory=dict)
    _served: dict[str, Machine] = field(default_factory=dict)
    _open: dict[str, _Line] = field(default_factory=dict)
    _states: dict[str, State] = field(default_factory=dict)
    """As they were last heard of, by the run as well."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        """Begin to start workers on all hosts that are ready, and on others when they are."""
        self.look(lambda change: None)

    def attend(self, hear: Callable[[Change], None]) -> None:
        """Tell `hear` of hosts that their user drains and resumes, from now on."""
        threading.Thread(target=self._watch, args=(hear,), name="registry", daemon=True).start()

    def expects(self) -> bool:
        """Whether a host with nodes may come that is not there, or be resumed."""
        kept = filter(self._is_kept, tuple(self._states))
        return not self._over.is_set() and not all(self._served[name].compiles_only for name in kept)

    def machine(self, name: str) -> Machine:
        """The host `name`, to which a worker was sent, as it was then."""
        return self._served[name]

    def way(self, here: str, there: str, port: int) -> int:
        """A port of `here`'s loopback that leads to `port` of `there`'s, as long as both are connected to this machine.

        Raises NodeLost if one of them is not.
        """
        mine, theirs = self._open.get(here), self._open.get(there)
        if mine is None or theirs is None:
            raise NodeLost(f"there is no way from {here} to {there}")
        return mine.lead(theirs.door(port))

    def look(self, hear: Callable[[Change], None]) -> None:
        """Deal with what has changed in the registry. Raises InputError for a broken one."""
        with self._lock:
            self._compare(hear)

    def quarantine(self, name: str, reason: str) -> None:
        """Write down that the run gives the host `name` nothing more; what its user wants of it stays as it is."""
        with self._lock:
            try:
                machine = self.registry.get(name)
                if machine.state is State.READY:
                    self.registry.save(replace(machine, state=State.QUARANTINED, reason=reason))
                    self._states[name] = State.QUARANTINED
            except (ClusterError, OSError) as error:
                self.warn(f"host {name} is given no more packages, and will be by the next build: {error}")

    def _compare(self, hear: Callable[[Change], None]) -> None:
        there = {machine.name: machine for machine in self.registry.all() if machine.serves(self.base.target)}
        before, self._states = self._states, {name: machine.state for name, machine in there.items()}
        for name in filter(self._is_kept, self._keepers):  # told each time: it may have come only now
            if name not in there:
                hear(Draining(name, "it was removed"))
            elif there[name].state is not State.READY:
                hear(Draining(name, there[name].reason))
        for name, machine in there.items():
            if machine.state is State.READY and before.get(name) is not State.READY:
                hear(Resumed(name))
                if not self._is_kept(name):
                    self._keep(machine)

    def stop(self) -> None:
        """Let workers that have been told to end do so, and close the connections."""
        self._over.set()
        for keeper in self._keepers.values():
            keeper.join(_END_S / max(1, len(self._keepers)))
        for line in list(self._open.values()):
            line.connection.close()

    def _is_kept(self, name: str) -> bool:
        return name in self._keepers and self._keepers[name].is_alive()

    def _watch(self, hear: Callable[[Change], None]) -> None:
        while not self._over.wait(_LOOK_S):
            with suppress(ClusterError):  # half a registry: look again
                self.look(hear)

    def _keep(self, machine: Machine) -> None:
        self._served[machine.name] = machine
        keeper = threading.Thread(target=self._kept, args=(machine,), name=machine.name, daemon=True)
        self._keepers[machine.name] = keeper
        keeper.start()

    def _kept(self, machine: Machine) -> None:
        """Serve until the run is over, or the host has failed too often in a row."""
        failed = 0
        while self._is_due(machine.name):
            began = time.monotonic()
            try:
                with (
                    link.connect(machine, self.base.identity, deadline_s=_CONNECT_S) as connection,
                    ExitStack() as tunnels,
                ):
                    self._open[machine.name] = _Line(connection, tunnels)
                    self._serve(machine, connection)
                    why = "its worker ended"
            except ClusterError as error:
                why = str(error)
            finally:
                self._open.pop(machine.name, None)
            failed = 0 if time.monotonic() - began > _WORKED_S else failed
            if self._over.is_set() or machine.name not in self._states:
                return
            if failed == len(_PAUSES_S):
                self.warn(f"host {machine.name} is given up: {why}")
                return
            self._over.wait(_PAUSES_S[failed])
            failed += 1

    def _is_due(self, name: str) -> bool:
        """Waits while a host is to get no packages; False when it has been removed, or the run is over."""
        while not self._over.is_set() and (state := self._states.get(name)) is not None:
            if state is State.READY:
                return True
            self._over.wait(_LOOK_S)
        return False

    def _serve(self, machine: Machine, connection: Connection) -> None:
        """Run a worker on the host until it ends. Raises ClusterError."""
        with ExitStack() as stack:
            scheduler = stack.enter_context(connection.reverse(self.base.scheduler))
            files = stack.enter_context(connection.reverse(self.base.files))
            camp = _settled(machine, connection, self.base.authority)
            contact = stack.enter_context(connection.forward(camp.worker))
            here = stack.enter_context(connection.forward(camp.files, camp.address))
            own = "" if machine.tunnel else f"https://{camp.address}:{camp.files}"
            route = Route(f"https://{_LOOPBACK}:{files}", f"https://{_LOOPBACK}:{here}", own)
            self.base.courier.reach(machine.name, route)
            stack.callback(self.base.courier.lose, machine.name)
            command = camp.command(machine, self.base.target, scheduler, contact)
            said: list[bytes] = []
            status = connection.run(command, total_s=_FOREVER_S, silence_s=_FOREVER_S, output=said.append)
            if status:
                raise MachineError(
                    f"the worker on {machine.name} ended with {status}", tail(b"".join(said).decode(errors="replace"))
                )


@dataclass(frozen=True, slots=True)
class Camp:
    """What is prepared on a host for one worker; paths and ports are the host's."""

    directory: PurePosixPath
    config: str
    """Dask's."""
    worker: int
    files: int
    address: str
    """Where the files are served."""

    def command(self, machine: Machine, target: str, scheduler: int, contact: int) -> str:
        """The shell's words that run the worker until it ends, and clear up.

        It finds the scheduler at the port `scheduler` of its loopback, and is found at `contact` of the master's.
        """
        post = launch.Post(
            name=machine.name,
            nodes={target: machine.nodes[target]},
            identity=Identity.at(Path(self.directory) / "identity"),
            directory=Path(self.directory),
            speed=node_speed(machine, target),
            listen=f"tls://{_LOOPBACK}:{self.worker}",
            contact=f"tls://{_LOOPBACK}:{contact}",
        )
        words = launch.arguments(f"tls://{_LOOPBACK}:{scheduler}", post)
        run = f"env DASK_CONFIG={shlex.quote(self.config)} {setup.python(machine.software)} {shlex.join(words)}"
        # The worker's output is its log, of which the master sees the end.
        log = shlex.quote(f"{self.directory}/worker.log")
        return (
            f"{run} > {log} 2>&1; status=$?; tail -n 5 {log}; rm -rf {shlex.quote(str(self.directory))}; exit $status"
        )


def node_speed(machine: Machine, target: str) -> float:
    """Of each of its nodes for `target`, beside one of this machine."""
    faster, arch = (machine.facts.speed, machine.facts.arch) if machine.facts else (1.0, "")
    return faster * drivers.expected_speed(machine.kind(target), target, arch)


def _settled(machine: Machine, connection: Connection, authority: Authority) -> Camp:
    """Make a directory on the host with a fresh certificate and what its worker is to know."""
    python = setup.python(machine.software)
    script = _SETTLE.format(home=setup.HOME, python=python, script=shlex.quote(_SCRIPT))
    lines = link.command(machine, connection, script, deadline_s=_SETTLE_S).splitlines()
    try:
        directory, (worker, files, config) = PurePosixPath(lines[-2]), json.loads(lines[-1])
    except (IndexError, ValueError) as error:
        raise MachineError(f"host {machine.name} does not answer as it should", "cluster host check") from error
    address = _LOOPBACK if machine.tunnel else machine.address
    identity = authority.issue(machine.name)
    for path in (identity.authority, identity.certificate, identity.key):
        connection.put(path, directory / "identity" / path.name, deadline_s=_SETTLE_S)
    with tempfile.TemporaryDirectory() as scratch:
        Gate(Path(directory / "identity"), address, files).save(Path(scratch))
        connection.put(Path(scratch) / "gate.json", directory / "gate.json", deadline_s=_SETTLE_S)
    return Camp(directory, config, worker, files, address)


@contextmanager
def kept(base: Headquarters, registry: Registry, warn: Callable[[str], None]) -> Iterator[Outposts]:
    """The outposts of all hosts of `registry` that serve the target, as long as the context lasts."""
    outposts = Outposts(base, registry, warn)
    try:
        outposts.start()
        yield outposts
    finally:
        outposts.stop()
