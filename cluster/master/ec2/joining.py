"""Instances join: each is waited for, let in if it answers as itself, and ended if it does not."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from cluster.errors import ClusterError
from cluster.master.ec2 import reaper
from cluster.master.ec2.client import Cloud
from cluster.master.ec2.rental import Instance, Rental

JOIN_S = 420.0
"""An instance that does not answer so long after it was rented is ended: most do within a minute."""
POLL_S = 5.0
_COMING = frozenset({"pending", "running"})

Welcome = Callable[[Instance, float], None]
"""Takes an instance that has an address among the hosts, waiting up to so many seconds for its sshd.

Raises ClusterError if it is not to be had; is called from threads.
"""


def join(
    cloud: Cloud, rental: Rental, welcome: Welcome, save: Callable[[Rental], object], *, deadline_s: float = JOIN_S
) -> Rental:
    """Let the instances of `rental` in, all at once; returns it as it is then: those that did not join have ended.

    `save` is told of the rental whenever it has changed.
    """
    joining: dict[str, Future[None]] = {}
    for known in _addressed(cloud, rental, deadline_s):
        rental = known
        save(rental)
        for one in rental.living:
            if one.address and one.id not in joining:
                joining[one.id] = _welcomed(welcome, one, deadline_s)
    for one in rental.living:
        rental = _joined(cloud, rental, one, joining.get(one.id))
        save(rental)
    return rental


def _welcomed(welcome: Welcome, one: Instance, deadline_s: float) -> Future[None]:
    """What comes of it, in a thread that nobody waits for who is interrupted, and has ended the instance."""
    future: Future[None] = Future()

    def work() -> None:
        try:
            welcome(one, deadline_s)
            future.set_result(None)
        except BaseException as error:  # it is the waiting thread's to raise
            future.set_exception(error)

    threading.Thread(target=work, name=one.name, daemon=True).start()
    return future


def _addressed(cloud: Cloud, rental: Rental, deadline_s: float) -> Iterator[Rental]:
    """The rental each time that it was looked at, until all its instances have addresses or time is over."""
    end = time.monotonic() + deadline_s
    while True:
        rental = seen(cloud, rental)
        yield rental
        if all(one.address for one in rental.living) or time.monotonic() > end:
            return
        time.sleep(POLL_S)


def _joined(cloud: Cloud, rental: Rental, one: Instance, joining: Future[None] | None) -> Rental:
    """The rental after `one` has joined, or has been ended."""
    try:
        if joining is None:
            raise ClusterError("it was not running in time")
        joining.result()
        return rental.known(replace(one, joined=True))
    except ClusterError as error:
        reaper.terminate(cloud, [one.id])
        return rental.gone(frozenset({one.id}), time.time(), str(error))


def seen(cloud: Cloud, rental: Rental) -> Rental:
    """The rental as AWS sees it: instances have addresses, and those that are gone have an end."""
    asked = [{"Name": "instance-id", "Values": [one.id for one in rental.living]}]
    if not rental.living:
        return rental
    found = {
        one["InstanceId"]: one
        for some in cloud.each("describe_instances", "Reservations", Filters=asked)
        for one in some["Instances"]
    }
    inside = ipaddress.ip_network(rental.source).is_private
    for one in rental.living:
        there = found.get(one.id)
        if there is None:  # not told to all of Amazon yet
            continue
        if there["State"]["Name"] in _COMING:
            rental = rental.known(replace(one, address=_address(there, inside) or one.address))
        else:
            rental = rental.gone(frozenset({one.id}), time.time(), one.why or _reason(there))
    return rental


def _address(there: dict[str, Any], inside: bool) -> str:
    """Where the master reaches it: from `inside` its network, or over the internet."""
    if there["State"]["Name"] != "running":
        return ""
    private, public = str(there.get("PrivateIpAddress", "")), str(there.get("PublicIpAddress", ""))
    return private if inside else public


def _reason(there: dict[str, Any]) -> str:
    said = there.get("StateReason", {}).get("Message") or there.get("StateTransitionReason")
    return str(said or "it ended itself, or AWS took it back")
