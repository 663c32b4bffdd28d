"""Rented instances as hosts: of the registry, with the one host key that their rental was made with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from cluster.master.ec2 import notices, userdata
from cluster.master.ec2.joining import Welcome
from cluster.master.ec2.rental import Instance, Rentals
from cluster.master.hosts import link
from cluster.master.hosts.registry import Machine, Registry
from cluster.node.drivers import Kind

_SSH = 22
_BOOTED_S = 600.0
_BOOTED = f"if command -v cloud-init >/dev/null; then cloud-init status --wait; fi; test -e {userdata.ALIVE}"
"""Until the first boot is over apt is locked, and nothing ends the instance when its master is silent."""

Prepare = Callable[[Machine], Machine]
"""Sets a host up and returns it as it is then; raises ClusterError if it is not fit."""


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
        tunnel=True,
    )


def welcome(
    host_key: str,
    registry: Registry,
    identity: Path,
    drivers: Callable[[str], Mapping[str, Kind]],
    prepare: Prepare,
) -> Welcome:
    """What takes instances into `registry`, with nodes for the targets that `drivers` says of their types.

    Each has to answer with `host_key`, to let `identity` in, to have its first boot over, and to be fit.
    """

    def take(instance: Instance, deadline_s: float) -> None:
        driven = drivers(instance.type)
        host = machine(instance, host_key, dict.fromkeys(driven, 0), driven)
        with link.connect(host, identity, deadline_s=deadline_s) as connection:
            link.command(host, connection, _BOOTED, deadline_s=_BOOTED_S)
        with notices.watching((host,), identity, _heed_not):  # setting up may take longer than it bears silence
            registry.save(prepare(host))

    return take


def _heed_not(news: notices.News) -> None:
    """An instance that is taken back before it has worked fails to be set up, which is said then."""


def tidy(registry: Registry, rentals: Rentals) -> None:
    """Take out of the registry what was rented and is not there any more."""
    living = {instance.id for rental in rentals.all() for instance in rental.living}
    for one in registry.all():
        if one.rented and one.rented not in living:
            registry.remove(one.name)
