"""What is left of rentals in a region: found by its tag, and removed in an order that works, however often."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cluster.errors import MachineError
from cluster.master.ec2.client import Cloud, Refused
from cluster.master.ec2.rental import TAG

_REMOVE_S = 600.0
"""By when all is to be gone: an instance takes a minute or two to shut down."""
_WAIT_S = 5.0
_LATER = frozenset({"DependencyViolation", "VolumeInUse", "IncorrectState", "InvalidGroup.InUse", "ResourceInUse"})
"""Codes that say that something else has to go first."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that has the tag of a rental."""

    kind: str
    """As tags call it: instance, volume ..."""
    id: str
    run: str
    ending: bool = False
    """It is on its way out and needs only be waited for."""

    def __str__(self) -> str:
        return f"{self.kind} {self.id} of {self.run}"


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one kind is found and removed: names of boto3."""

    name: str
    describe: str
    listed: str
    id: str
    remove: str
    removed: str
    """The parameter of `remove` that names it."""
    many: bool = False
    """Whether that takes a list."""
    state: Callable[[Mapping[str, Any]], str] = lambda one: ""
    alive: frozenset[str] = frozenset({""})
    ending: frozenset[str] = frozenset()


_SPOT_REQUEST = _Kind(
    "spot-instances-request",
    "describe_spot_instance_requests",
    "SpotInstanceRequests",
    "SpotInstanceRequestId",
    "cancel_spot_instance_requests",
    "SpotInstanceRequestIds",
    many=True,
    state=lambda one: one["State"],
    alive=frozenset({"open", "active", "disabled"}),
)
_INSTANCE = _Kind(
    "instance",
    "describe_instances",
    "Reservations",
    "InstanceId",
    "terminate_instances",
    "InstanceIds",
    many=True,
    state=lambda one: one["State"]["Name"],
    alive=frozenset({"pending", "running", "stopping", "stopped"}),
    ending=frozenset({"shutting-down"}),
)
_VOLUME = _Kind(
    "volume",
    "describe_volumes",
    "Volumes",
    "VolumeId",
    "delete_volume",
    "VolumeId",
    state=lambda one: one["State"],
    alive=frozenset({"available", "error"}),
    ending=frozenset({"creating", "in-use", "deleting"}),
)
_TEMPLATE = _Kind(
    "launch-template",
    "describe_launch_templates",
    "LaunchTemplates",
    "LaunchTemplateId",
    "delete_launch_template",
    "LaunchTemplateId",
)
_GROUP = _Kind(
    "security-group", "describe_security_groups", "SecurityGroups", "GroupId", "delete_security_group", "GroupId"
)
_KEY_PAIR = _Kind("key-pair", "describe_key_pairs", "KeyPairs", "KeyName", "delete_key_pair", "KeyName")
_KINDS = (_SPOT_REQUEST, _INSTANCE, _VOLUME, _TEMPLATE, _GROUP, _KEY_PAIR)
"""In the order in which they are removed, after fleets: a spot request would start its instance again."""


def found(cloud: Cloud) -> tuple[Leftover, ...]:
    """All that is there of any rental, in the order in which it is to be removed."""
    fleets = tuple(_fleets(cloud))
    return (*fleets, *(one for kind in _KINDS for one in _of(cloud, kind)))


def _fleets(cloud: Cloud) -> Iterator[Leftover]:
    """Instant fleets are described to those only who know their ids; their tags are told to all who ask for tags."""
    asked = [{"Name": "key", "Values": [TAG]}, {"Name": "resource-type", "Values": ["fleet"]}]
    runs = {one["ResourceId"]: one["Value"] for one in cloud.each("describe_tags", "Tags", Filters=asked)}
    if runs:
        for one in cloud.each("describe_fleets", "Fleets", FleetIds=list(runs)):
            if not one["FleetState"].startswith("deleted"):
                yield Leftover("fleet", one["FleetId"], runs[one["FleetId"]])


def _of(cloud: Cloud, kind: _Kind) -> Iterator[Leftover]:
    listed = cloud.each(kind.describe, kind.listed, Filters=[{"Name": "tag-key", "Values": [TAG]}])
    for one in _flat(listed) if kind is _INSTANCE else listed:
        state = kind.state(one)
        if state in kind.alive or state in kind.ending:
            tags = {tag["Key"]: tag["Value"] for tag in one["Tags"]}
            yield Leftover(kind.name, one[kind.id], tags[TAG], ending=state in kind.ending)


def instances(cloud: Cloud) -> tuple[Leftover, ...]:
    """The instances of any rental that have not ended."""
    return tuple(_of(cloud, _INSTANCE))


def _flat(reservations: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for one in reservations:
        yield from one["Instances"]


def remove(cloud: Cloud, runs: Collection[str]) -> tuple[Leftover, ...]:
    """Remove what `found` finds of `runs` until it finds nothing; returns what that was.

    Raises MachineError if something is still there after ten minutes.
    """
    gone: dict[str, Leftover] = {}
    end = time.monotonic() + _REMOVE_S
    while left := [one for one in found(cloud) if one.run in runs]:
        if time.monotonic() > end:
            what = f"{cloud.region} still has {', '.join(map(str, left))}"
            raise MachineError(what, "`cluster ec2 reap --yes` tries again; see the console of AWS")
        if gone:  # it takes its time, or another thing had to go first
            time.sleep(_WAIT_S)
        for one in left:
            gone[one.id] = one
            _remove(cloud, one)
    return tuple(gone.values())


def _remove(cloud: Cloud, one: Leftover) -> None:
    """Remove it, unless it ends by itself, is gone already, or something else has to go first."""
    if one.ending:
        return
    try:
        if one.kind == "fleet":
            cloud.call("delete_fleets", FleetIds=[one.id], TerminateInstances=True)
        else:
            kind = next(kind for kind in _KINDS if kind.name == one.kind)
            named: dict[str, Any] = {kind.removed: [one.id] if kind.many else one.id}
            cloud.call(kind.remove, **named)
    except Refused as error:
        if error.code not in _LATER and "NotFound" not in error.code:
            raise


def terminate(cloud: Cloud, ids: Iterable[str]) -> None:
    """End these instances, by their ids, which are known before their tags are found; does not wait."""
    for one in ids:
        _remove(cloud, Leftover(_INSTANCE.name, one, ""))
