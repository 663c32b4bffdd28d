"""`cluster host`: other machines to build on."""

from __future__ import annotations

import getpass
import ipaddress
import sys
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from cyclopts import Parameter

from cluster import config, hosttable, paths, report, target
from cluster.errors import ClusterError, InputError
from cluster.master.hosts import link, registry, setup
from cluster.master.hosts.registry import Machine, Registry, State
from cluster.node import ssh
from cluster.node.drivers import Kind
from cluster.options import Common, at_least_one, console_for, print_json

_SSH = 22


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Wanted:
    """How a host is to be used."""

    port: Annotated[int, Parameter(help="Where its sshd listens.")] = _SSH
    name: Annotated[str, Parameter(help="What to call it; else its own name up to the first dot.")] = ""
    nodes: Annotated[int | None, Parameter(help="Nodes at once; else as many as its processors and memory bear.")] = (
        None
    )
    target: Annotated[
        list[str], Parameter(negative="", help="A target to build for there; may be repeated; else that of the config.")
    ] = field(default_factory=list)
    compiles_only: Annotated[
        bool, Parameter(negative="", help="No nodes: all its processors are for what the nodes of others compile.")
    ] = False
    driver: Annotated[
        Literal["qemu", "chroot"] | None,
        Parameter(help="What a node is there; else a chroot where the host runs the target's programs, or in QEMU."),
    ] = None
    host_key: Annotated[str, Parameter(help="Its public key, a line of OpenSSH, if you know it beforehand.")] = ""
    tunnel: Annotated[
        bool, Parameter(negative="", help="Let all go through ssh, for a host that cannot reach this machine.")
    ] = False


def host_add(place: str, /, *, wanted: Wanted | None = None, common: Common | None = None) -> int:
    """Set up the machine PLACE, USER@ADDRESS, to build on; again to bring it up to date."""
    wanted, common = wanted or Wanted(), common or Common()
    settings, directories = config.load(common.config), paths.directories(common.state)
    hosts = Registry(directories.hosts)
    machine = _machine(place, wanted, settings, hosts)
    with report.Reporter(console_for(common)) as reporter:
        reporter.step(f"connecting to {machine}")
        link.admit(machine, link.identity(directories.hosts))
        try:
            ready = setup.prepare(machine, directories, reporter, memory_mib=settings.node.memory_mib)
        except ClusterError as error:
            hosts.save(setup.unfit(machine, error))
            raise
    hosts.renew(machine, ready)
    return _show((hosts.get(machine.name),), common)


def _machine(place: str, wanted: Wanted, settings: config.Config, hosts: Registry) -> Machine:
    """The machine that is asked for: as it is known, if it is, with what is wanted of it now."""
    user, address = _parse(place)
    if wanted.nodes is not None:
        at_least_one(wanted.nodes, "--nodes")
    if wanted.compiles_only and (wanted.nodes is not None or wanted.driver is not None):
        raise InputError("--compiles-only is for a host without nodes", "leave --nodes and --driver away, or it")
    names = tuple(dict.fromkeys(target.load(name).name for name in wanted.target or [settings.build.target]))
    name = wanted.name or _short(address)
    known = _known(name, address, wanted.port, hosts)
    asked = wanted.host_key or (known.host_key if known else "")
    nodes = dict.fromkeys(names, wanted.nodes or 0)
    drivers: dict[str, Kind] = dict.fromkeys(names, wanted.driver) if wanted.driver else {}
    key = _pinned(asked) if asked else _trusted(address, wanted.port)
    before = known or Machine(name, user, address, wanted.port, key)
    use = replace(before, nodes=nodes, drivers=drivers, compiles_only=wanted.compiles_only)
    return replace(use, user=user, host_key=key, tunnel=wanted.tunnel)


def _known(name: str, address: str, port: int, hosts: Registry) -> Machine | None:
    """The machine as it was added before. Raises InputError if name or address is another's."""
    for machine in hosts.all():
        same = (machine.address, machine.port) == (address, port)
        if machine.name == name and not same:
            raise InputError(f"there is a host {name} already, at {machine.place}", "give this one another --name")
        if same and machine.name != name:
            raise InputError(f"{address} is host {machine.name} already", f"give --name {machine.name}, or remove that")
        if same:
            return machine
    return None


def _parse(place: str) -> tuple[str, str]:
    user, _, address = place.rpartition("@")
    address = address.strip("[]")
    if not address or any(character.isspace() or character == "/" for character in place):
        raise InputError(f"{place!r} is no machine", "write USER@ADDRESS")
    return user or getpass.getuser(), address


def _short(address: str) -> str:
    """What a machine at `address` is called: its first label, or all of a numeric address."""
    try:
        return str(ipaddress.ip_address(address)).replace(":", "-").strip("-")
    except ValueError:
        return address.partition(".")[0]


def _pinned(line: str) -> str:
    try:
        ssh.fingerprint(line)
    except ValueError as error:
        raise InputError(f"--host-key: {error}", "it is a line like those of /etc/ssh/ssh_host_*_key.pub") from error
    return " ".join(line.split()[:2])


def _trusted(address: str, port: int) -> str:
    """The key that the machine shows, if the user says that it is the machine's."""
    key = ssh.offered_key(address, port)
    fingerprint = ssh.fingerprint(key)
    if not sys.stdin.isatty():
        raise InputError(
            f"{address} is not known; it shows the key {fingerprint}", f"if that is its own, say so: --host-key '{key}'"
        )
    print(f"{address} is not known. It shows the key\n  {fingerprint}", file=sys.stderr)
    print("There, `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` shows its own.", file=sys.stderr)
    print("Is that the same? (yes/no) ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() != "yes":
        raise InputError(f"{address} was not added", "its key is not trusted")
    return key


def host_list(*, common: Common | None = None) -> int:
    """List the hosts: what each is, and why one gets no work."""
    common = common or Common()
    found = Registry(paths.directories(common.state).hosts).all()
    if not found and not common.json:
        print("There is no host but this machine: `cluster host add USER@ADDRESS` adds one.")
        return 0
    return _show(found, common)


def host_drain(name: str, /, *, common: Common | None = None) -> int:
    """Let no more packages start on host NAME; those that run there end. Works in a running build."""
    common = common or Common()
    hosts = Registry(paths.directories(common.state).hosts)
    machine = hosts.get(name)
    if machine.state is State.READY:
        machine = replace(machine, state=State.DRAINED, reason="drained by `cluster host drain`")
        hosts.save(machine)
    return _show((machine,), common)


def host_resume(name: str, /, *, common: Common | None = None) -> int:
    """Let packages start on host NAME again, which was drained or quarantined."""
    common = common or Common()
    hosts = Registry(paths.directories(common.state).hosts)
    machine = hosts.get(name)
    if machine.state is State.UNFIT:
        raise InputError(f"host {name} is unfit: {machine.reason}", f"mend that, and run: cluster host check {name}")
    machine = replace(machine, state=State.READY, reason="")
    hosts.save(machine)
    return _show((machine,), common)


def host_remove(name: str, /, *, common: Common | None = None) -> int:
    """Forget host NAME, and take away there what `cluster host add` put there, but for Debian packages."""
    common = common or Common()
    directories = paths.directories(common.state)
    hosts = Registry(directories.hosts)
    machine = hosts.get(name)
    hosts.save(replace(machine, state=State.DRAINED, reason="it is being removed"))  # no build is to miss it
    with report.Reporter(console_for(common)) as reporter:
        reporter.step(f"clearing {machine}")
        identity = link.identity(directories.hosts)
        try:
            with link.connect(machine, identity) as connection:
                setup.clear(machine, connection, identity)
        except ClusterError as error:
            reporter.fail(f"{setup.HOME} and this master's key in authorized_keys stay there: {error}")
    hosts.remove(name)
    if common.json:
        print_json(registry.dump(machine))
    return 0


def host_check(name: str = "", /, *, common: Common | None = None) -> int:
    """Measure and check host NAME, or all; one that fails gets no work until it passes. 2 if any fails."""
    common = common or Common()
    memory_mib = config.load(common.config).node.memory_mib
    directories = paths.directories(common.state)
    hosts = Registry(directories.hosts)
    found = (hosts.get(name),) if name else hosts.all()
    with report.Reporter(console_for(common)) as reporter:
        for machine in found:
            reporter.step(f"checking {machine}")
            hosts.renew(machine, _checked(machine, directories, memory_mib, reporter))
    found = tuple(hosts.get(machine.name) for machine in found)
    _show(found, common)
    return 2 if any(machine.state is State.UNFIT for machine in found) else 0


def _checked(machine: Machine, directories: paths.Directories, memory_mib: int, reporter: report.Reporter) -> Machine:
    try:
        with link.connect(machine, link.identity(directories.hosts)) as connection:
            return setup.checked(machine, connection, directories.cache, reporter.step, memory_mib=memory_mib)
    except ClusterError as error:
        reporter.fail(f"{machine.name} is unfit")
        return setup.unfit(machine, error)


def _show(found: tuple[Machine, ...], common: Common) -> int:
    if common.json:
        print_json([registry.dump(machine) for machine in found])
    else:
        hosttable.hosts(console_for(common), found)
    return 0
