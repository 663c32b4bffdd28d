"""From where the master comes, as its instances see it: ssh is let in from there alone."""

from __future__ import annotations

import ipaddress
import socket

from cluster.errors import InputError

_ELSEWHERE = ("192.0.2.1", 9)  # RFC 5737: nobody; a datagram socket that is connected sends nothing
_WIDEST = 8  # bits of an IPv4 prefix


def network(given: str) -> str:
    """The network in CIDR notation: the one `given`, or the address of this machine's default route.

    Raises InputError if that is a private one: behind a translating router nobody here knows the public one.
    """
    if not given:
        return _own()
    try:
        found = ipaddress.ip_network(given, strict=False)
    except ValueError as error:
        raise InputError(f"--from {given!r} is not a network", "for example 198.51.100.7/32") from error
    if found.prefixlen < _WIDEST:
        raise InputError(f"--from {given} lets in half the world", "name this machine's address, or its network")
    return str(found)


def _own() -> str:
    mend = "say by --from from where instances see it, as 198.51.100.7/32; a private network if it is in Amazon's too"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ELSEWHERE)
        except OSError as error:
            raise InputError("this machine has no route to the internet", mend) from error
        address = ipaddress.ip_address(probe.getsockname()[0])
    if not address.is_global:
        raise InputError(f"this machine's address, {address}, is not what instances see", mend)
    return f"{address}/32"
