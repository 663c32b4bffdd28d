"""Rented instances as hosts: of the registry, with the one host key that their rental was made with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from cluster import paths
from cluster.master.ec2 import catalogue, notices, speeds, userdata
from cluster.master.ec2.catalogue import Catalogue
from cluster.master.ec2.joining import Welcome
from cluster.master.ec2.rental import Instance, Rental, Rentals
from cluster.master.hosts import link, outposts, setup
from cluster.master.hosts.registry import Machine, Registry
from cluster.master.progress import Teller
from cluster.node.drivers import Kind

_SSH = 22
_BOOTED_S = 600.0
_BOOTED = f"if command -v cloud-init >/dev/null; then cloud-init status --wait; fi; test -e {userdata.ALIVE}"
"""Until the first boot is over apt is locked, and nothing ends the instance when its master is silent."""

Prepare = Callable[[Machine], Machine]
"""Sets a host up and returns it as it is then; raises ClusterError if it is not fit."""
Drivers = Callable[[str], Mapping[str, Kind]]
"""How the nodes on an instance of a type are made, by target."""


def machine(instance: Instance, host_key: str, nodes: Mapping[str, int], drivers: Mapping[str, Kind]) -> Machine:
    """The host that an instance is, before it is set up; what goes between it and the master goes through ssh."""
    return Machine(
        name=instance.name,
        user=userdata.USER,
        address=instance.address,
        port=_SSH,
        host_key=host_key,
        nodes=nodes,
        drivers=drivers,
        rented=instance.id,
        compiles_only=instance.compiles_only,
        tunnel=True,
    )


def welcome(
    host_key: str,
    registry: Registry,
    identity: Path,
    drivers: Drivers,
    prepare: Prepare,
    measured: Callable[[str, Machine], object],
) -> Welcome:
    """What takes instances into `registry`, with nodes for the targets that `drivers` says of their types.

    Each has to answer with `host_key`, to let `identity` in, to have its first boot over, and to be fit. `measured` is
    told of its type, and what it was found to be.
    """

    def take(instance: Instance, deadline_s: float) -> None:
        driven = drivers(instance.type)
        host = machine(instance, host_key, dict.fromkeys(driven, 0), driven)
        with link.connect(host, identity, deadline_s=deadline_s) as connection:
            link.command(host, connection, _BOOTED, deadline_s=_BOOTED_S)
        with notices.watching(lambda: (host,), identity, _heed_not):  # setting up may take longer than it bears silence
            ready = prepare(host)
        registry.save(ready)
        measured(instance.type, ready)

    return take


def _heed_not(news: notices.News) -> None:
    """An instance that is taken back before it has worked fails to be set up, which is said then."""


def reception(
    directories: paths.Directories, known: Catalogue, teller: Teller, memory_mib: int
) -> Callable[[Rental], Welcome]:
    """What takes the instances of a rental among the hosts, for its targets, with nodes of `memory_mib` MiB.

    Nodes are chroots where the target is the instance's own architecture, and QEMU's elsewhere.
    """
    rentals, registry = Rentals(directories.rentals), Registry(directories.hosts)
    identity = link.identity(directories.hosts)

    def prepare(machine: Machine) -> Machine:
        return setup.prepare(machine, directories, teller, memory_mib=memory_mib)

    def measured(type_: str, machine: Machine) -> None:
        for target in machine.nodes if machine.facts else ():
            speeds.note(speeds.file(directories), type_, target, outposts.node_speed(machine, target))

    def of(rental: Rental) -> Welcome:
        host_key = (rentals.place(rental.run) / "host_key.pub").read_text().strip()
        return welcome(host_key, registry, identity, drivers_of(known, rental.targets), prepare, measured)

    return of


def drivers_of(known: Catalogue, targets: tuple[str, ...]) -> Drivers:
    """How nodes for `targets` are made on each type of a catalogue."""

    def drivers(type_: str) -> Mapping[str, Kind]:
        native = known.families[catalogue.family(type_)].targets
        return {name: "chroot" if name in native else "qemu" for name in targets}

    return drivers


def tidy(registry: Registry, rentals: Rentals) -> None:
    """Take out of the registry what was rented and is not there any more."""
    living = {instance.id for rental in rentals.all() for instance in rental.living}
    for one in registry.all():
        if one.rented and one.rented not in living:
            registry.remove(one.name)
