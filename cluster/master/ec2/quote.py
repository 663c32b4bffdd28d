"""What a wish comes to: types, images, prices, room and limits, asked of AWS and checked before anything is started."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cluster.errors import InputError, MachineError
from cluster.master.ec2 import limits
from cluster.master.ec2.catalogue import Catalogue
from cluster.master.ec2.client import Cloud, Refused
from cluster.master.ec2.rental import Market, Wish

_IMAGE = "/aws/service/debian/release/12/latest/"  # https://wiki.debian.org/Cloud/AmazonEC2Image/Bookworm
_DEBIAN = {"x86_64": "amd64", "arm64": "arm64"}
"""Debian's names of AWS's architectures."""
_SPOT_ROOM = 1.25
"""A spot instance is kept while its price is up to so many times what it was when it was rented."""
_QUOTAS = {Market.ON_DEMAND: "L-1216C47A", Market.SPOT: "L-34B43A08"}
"""Of vCPUs of standard types: https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html"""
_STANDARD = frozenset("acdhimrtz")
"""The first letters of those types."""
_UNSAID = frozenset({"NoSuchResourceException", "AccessDeniedException"})


@dataclass(frozen=True, slots=True)
class Kind:
    """An instance type as the region has it."""

    name: str
    arch: str
    """As AWS calls it."""
    vcpus: int
    subnets: tuple[str, ...]
    """In the zones that have it."""
    bid: float
    """USD an hour at most for the instance alone."""
    usd_h: float
    """The same with its disk and address."""


@dataclass(frozen=True, slots=True)
class Image:
    """What an instance boots."""

    id: str
    arch: str
    device: str
    """The name of its root disk."""


@dataclass(frozen=True, slots=True)
class Quote:
    """All that is known before anything is started."""

    wish: Wish
    kinds: Mapping[str, Kind]
    """Those wished for, and those that may stand in for them."""
    images: Mapping[str, Image]
    """By architecture."""
    vpc: str
    hours: float
    disk_gib: int

    @property
    def usd_h(self) -> float:
        """Of all that is wished for, at most."""
        return limits.rate(self.wish.instances, {name: kind.usd_h for name, kind in self.kinds.items()})

    def instead(self, name: str) -> tuple[str, ...]:
        """The types that may stand in for `name`, the cheapest first: alike, and no dearer, so that limits are kept."""
        wanted = self.kinds[name]
        alike = [
            one
            for one in self.kinds.values()
            if one.name != name and (one.arch, one.vcpus) == (wanted.arch, wanted.vcpus) and one.usd_h <= wanted.usd_h
        ]
        return tuple(one.name for one in sorted(alike, key=lambda one: one.usd_h))


def quote(cloud: Cloud, wish: Wish, catalogue: Catalogue, hours: float | None = None) -> Quote:
    """What `wish` comes to, at the prices of `catalogue` and today's of the spot market.

    With `hours` it is for a rental that is up so long yet, and whose limits the caller keeps; else the wish's limits
    say for how long, and are checked. Reads only. Raises InputError for whatever of the wish cannot be had, Refused
    and MachineError if AWS does not answer.
    """
    limits.check(wish.limits)
    unknown = next((name for name in wish.instances if name not in catalogue.types), None)
    if unknown is not None:
        raise InputError(f"instance type {unknown} is not in the catalogue", f"types: {', '.join(catalogue.types)}")
    vpc, subnets = _subnets(cloud)
    kinds = _kinds(cloud, wish, catalogue, subnets)
    _check_room(cloud, wish, kinds)
    if hours is None:
        hours = limits.hours(wish.instances, {name: kind.usd_h for name, kind in kinds.items()}, wish.limits)
    architectures = {kinds[name].arch: name for name in wish.instances}
    images = {arch: _image(cloud, arch, name, wish.image) for arch, name in architectures.items()}
    return Quote(wish, kinds, images, vpc, hours, catalogue.billing.disk_gib)


def _subnets(cloud: Cloud) -> tuple[str, dict[str, str]]:
    """The region's default VPC, and its default subnet in each zone."""
    found = list(cloud.each("describe_subnets", "Subnets", Filters=_filters("default-for-az", ["true"])))
    if not found:
        raise InputError(f"region {cloud.region} has no default VPC with subnets", "`aws ec2 create-default-vpc`")
    return found[0]["VpcId"], {one["AvailabilityZone"]: one["SubnetId"] for one in found}


def _kinds(cloud: Cloud, wish: Wish, catalogue: Catalogue, subnets: Mapping[str, str]) -> dict[str, Kind]:
    vcpus = {catalogue.types[name].vcpus for name in wish.instances}
    named = [name for name, one in catalogue.types.items() if one.vcpus in vcpus]
    described = cloud.each("describe_instance_types", "InstanceTypes", Filters=_filters("instance-type", named))
    there = {one["InstanceType"]: one for one in described}
    missing = next((name for name in wish.instances if name not in there), None)
    if missing is not None:
        raise InputError(f"region {cloud.region} has no instance type {missing}", "choose another of either")
    zones = _zones(cloud, there)
    bids = _bids(cloud, wish.market, catalogue, there)
    beside = catalogue.billing.disk_usd_h + catalogue.billing.address_usd_h
    return {
        name: Kind(
            name=name,
            arch=next(arch for arch in one["ProcessorInfo"]["SupportedArchitectures"] if arch in _DEBIAN),
            vcpus=one["VCpuInfo"]["DefaultVCpus"],
            subnets=tuple(subnets[zone] for zone in zones.get(name, ()) if zone in subnets),
            bid=bids[name],
            usd_h=bids[name] + beside,
        )
        for name, one in there.items()
    }


def _zones(cloud: Cloud, names: Iterable[str]) -> dict[str, list[str]]:
    """The zones that have each type."""
    found: dict[str, list[str]] = {}
    for one in cloud.each(
        "describe_instance_type_offerings",
        "InstanceTypeOfferings",
        LocationType="availability-zone",
        Filters=_filters("instance-type", list(names)),
    ):
        found.setdefault(one["InstanceType"], []).append(one["Location"])
    return found


def _bids(cloud: Cloud, market: Market, catalogue: Catalogue, names: Iterable[str]) -> dict[str, float]:
    """USD an hour at most, by type: as listed, or somewhat more than on the spot market now, never more than listed."""
    listed = {name: catalogue.types[name].usd_h for name in names}
    if market is Market.ON_DEMAND:
        return listed
    spot = {name: catalogue.types[name].spot_usd_h for name in listed}
    now: dict[str, float] = {}
    for row in _spot_prices(cloud, listed):
        now[row["InstanceType"]] = max(now.get(row["InstanceType"], 0.0), float(row["SpotPrice"]))
    return {name: min(listed[name], now.get(name, spot[name]) * _SPOT_ROOM) for name in listed}


def _spot_prices(cloud: Cloud, names: Iterable[str]) -> Iterable[dict[str, Any]]:
    return cloud.each(
        "describe_spot_price_history",
        "SpotPriceHistory",
        InstanceTypes=list(names),
        ProductDescriptions=["Linux/UNIX"],
        StartTime=datetime.now(UTC),  # the prices that are valid now
    )


def _check_room(cloud: Cloud, wish: Wish, kinds: Mapping[str, Kind]) -> None:
    """Raise InputError if the account may not run so many vCPUs; what else it runs is AWS's to count."""
    wanted = sum(kinds[name].vcpus * count for name, count in wish.instances.items() if name[0] in _STANDARD)
    try:
        code = _QUOTAS[wish.market]
        said = cloud.call("get_service_quota", service="service-quotas", ServiceCode="ec2", QuotaCode=code)
    except Refused as error:
        if error.code in _UNSAID:
            return
        raise
    allowed = said["Quota"]["Value"]
    if wanted > allowed:
        what = (
            f"{wanted} vCPUs are more than the {allowed:g} that this account may have {wish.market} in {cloud.region}"
        )
        raise InputError(what, f"wish for fewer, or ask AWS for more: service quota {code}")


def _image(cloud: Cloud, arch: str, type_: str, given: str) -> Image:
    """The image for `type_`, which is of `arch`: the `given` one, or Debian 12."""
    image = given or _debian(cloud, arch)
    try:
        found = cloud.call("describe_images", ImageIds=[image])["Images"]
    except Refused as error:
        if error.code.startswith("InvalidAMIID"):
            raise InputError(f"region {cloud.region} has no image {image}", "mend --image") from error
        raise
    if not found:
        raise InputError(f"region {cloud.region} has no image {image}", "mend --image")
    if found[0]["Architecture"] != arch:
        what = f"image {image} is for {found[0]['Architecture']}, and {type_} is {arch}"
        raise InputError(what, "name another --image, or none for Debian 12")
    return Image(image, arch, found[0]["RootDeviceName"])


def _debian(cloud: Cloud, arch: str) -> str:
    name = f"{_IMAGE}{_DEBIAN[arch]}"
    try:
        return str(cloud.call("get_parameter", service="ssm", Name=name)["Parameter"]["Value"])
    except Refused as error:
        if error.code == "ParameterNotFound":
            raise MachineError(
                f"region {cloud.region} does not say its image of Debian 12", "name an --image"
            ) from error
        raise


def _filters(name: str, values: list[str]) -> list[dict[str, Any]]:
    return [{"Name": name, "Values": values}]
