"""Rented instances as hosts: of the registry, with the one host key that their rental was made with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from cluster.master.ec2 import userdata
from cluster.master.ec2.joining import Welcome
from cluster.master.ec2.rental import Instance, Rental, Rentals
from cluster.master.hosts import link
from cluster.master.hosts.registry import Machine, Registry

_SSH = 22
_BOOTED_S = 600.0
_BOOTED = f"if command -v cloud-init >/dev/null; then cloud-init status --wait; fi; test -e {userdata.ALIVE}"
"""Until the first boot is over apt is locked, and nothing ends the instance when its master is silent."""

Prepare = Callable[[Machine], Machine]
"""Sets a host up and returns it as it is then; raises ClusterError if it is not fit."""


def machine(instance: Instance, host_key: str, nodes: Mapping[str, int], drivers: Mapping[str, str]) -> Machine:
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
    rental: Rental, host_key: str, registry: Registry, identity: Path, drivers: Mapping[str, str], prepare: Prepare
) -> Welcome:
    """What takes the instances of `rental` into `registry`, with nodes for the targets that `drivers` names.

    Each has to answer with `host_key`, to let `identity` in, to have its first boot over, and to be fit.
    """

    def take(instance: Instance, deadline_s: float) -> None:
        host = machine(instance, host_key, dict.fromkeys(drivers, 0), drivers)
        with link.connect(host, identity, deadline_s=deadline_s) as connection:
            link.command(host, connection, _BOOTED, deadline_s=_BOOTED_S)
        registry.save(prepare(host))

    return take


def forget(registry: Registry, rentals: Rentals, run: str) -> None:
    """Take the instances of a rental out of the registry."""
    ids = {one.id for one in rentals.get(run).instances}
    for one in registry.all():
        if one.rented in ids:
            registry.remove(one.name)
