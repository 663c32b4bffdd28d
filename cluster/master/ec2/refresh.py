"""AWS asked for what its instance types are and cost today. Reads only: see `ACTIONS`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from statistics import median
from typing import TYPE_CHECKING, Any

from cluster import lazy
from cluster.errors import InputError, MachineError
from cluster.master.ec2.catalogue import Catalogue, Type

if TYPE_CHECKING:
    import boto3
    from botocore import config as botocore_config
    from botocore import exceptions
else:
    boto3 = lazy.module("boto3")
    botocore_config = lazy.module("botocore.config")
    exceptions = lazy.module("botocore.exceptions")

ACTIONS = ("ec2:DescribeInstanceTypes", "ec2:DescribeSpotPriceHistory", "pricing:GetProducts")
"""All that is called here."""
_PRICING_REGION = "us-east-1"  # has the one endpoint of the pricing API that knows every region
_SPOT = timedelta(days=1)
_ONCE = 100  # types in one question
_MIB = 1024
_FILTERS = {
    "operatingSystem": "Linux",
    "preInstalledSw": "NA",
    "tenancy": "Shared",
    "capacitystatus": "Used",
    "marketoption": "OnDemand",
}
Warn = Callable[[str], object]


@contextmanager
def told() -> Iterator[None]:
    """What boto3 raises becomes one line: InputError for credentials, else MachineError."""
    try:
        yield
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.ProfileNotFound) as error:
        mend = "set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; plans need none without --refresh"
        raise InputError("there are no AWS credentials", mend) from error
    except (exceptions.BotoCoreError, exceptions.ClientError) as error:
        raise MachineError("AWS does not answer", str(error)) from error


@dataclass(frozen=True, slots=True)
class Clients:
    """boto3's, of the services that are asked."""

    ec2: Any
    pricing: Any


def clients(region: str) -> Clients:
    """Those for `region`."""
    with told():
        return Clients(_client("ec2", region), _client("pricing", _PRICING_REGION))


def _client(service: str, region: str) -> Any:
    """One that gives up within a minute. AWS_ENDPOINT_URL names another endpoint than Amazon's."""
    settings = botocore_config.Config(connect_timeout=10, read_timeout=20, retries={"total_max_attempts": 3})
    return boto3.Session().client(service, region_name=region, config=settings)


def refreshed(catalogue: Catalogue, aws: Clients, today: date, warn: Warn) -> Catalogue:
    """`catalogue` with what AWS says of its types in its region; types that are not there are left out.

    Where AWS does not say a price the old one stays, and `warn` is told. Raises InputError and MachineError.
    """
    with told():
        described = _described(aws.ec2, list(catalogue.types))
        spot = _spot(aws.ec2, list(described))
    missing = sorted(set(catalogue.types) - set(described))
    if missing:
        warn(f"{catalogue.region} has no {', '.join(missing)}: left out")
    listed = _on_demand(aws.pricing, catalogue.region, list(described), warn)
    for prices, what in ((spot, "spot"), (listed, "on-demand")):
        if unpriced := [name for name in described if name not in prices]:
            warn(f"no {what} price of {', '.join(unpriced)}: the one of {catalogue.dated} stays")
    types = {
        name: _type(one, described[name], listed.get(name), spot.get(name))
        for name, one in catalogue.types.items()
        if name in described
    }
    if not types:
        raise InputError(f"{catalogue.region} has none of the catalogue's types", "name another --region")
    return catalogue.model_copy(update={"dated": today, "types": types})


def _type(before: Type, described: dict[str, Any], usd_h: float | None, spot_usd_h: float | None) -> Type:
    cards = described.get("NetworkInfo", {}).get("NetworkCards", [])
    gbps = sum(card.get("PeakBandwidthInGbps", 0.0) for card in cards)
    return Type(
        vcpus=described["VCpuInfo"]["DefaultVCpus"],
        memory_gib=described["MemoryInfo"]["SizeInMiB"] / _MIB,
        network_gbps=gbps or before.network_gbps,
        usd_h=usd_h or before.usd_h,
        spot_usd_h=spot_usd_h or before.spot_usd_h,
    )


def _described(ec2: Any, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A filter, as a type that is named and is not there would be an error."""
    pages = ec2.get_paginator("describe_instance_types")
    found = (
        one
        for some in _some(names)
        for page in pages.paginate(Filters=[{"Name": "instance-type", "Values": some}])
        for one in page["InstanceTypes"]
    )
    by_type = {one["InstanceType"]: one for one in found}
    return {name: by_type[name] for name in names if name in by_type}


def _spot(ec2: Any, names: Sequence[str]) -> dict[str, float]:
    """The median of a day's prices in all zones."""
    pages = ec2.get_paginator("describe_spot_price_history")
    since = datetime.now(UTC) - _SPOT
    prices: dict[str, list[float]] = {}
    for some in _some(names):
        for page in pages.paginate(InstanceTypes=some, ProductDescriptions=["Linux/UNIX"], StartTime=since):
            for row in page["SpotPriceHistory"]:
                prices.setdefault(row["InstanceType"], []).append(float(row["SpotPrice"]))
    return {name: median(found) for name, found in prices.items()}


def _on_demand(pricing: Any, region: str, names: Iterable[str], warn: Warn) -> dict[str, float]:
    """As far as it may be asked: the right to the pricing API is often not given with that to EC2."""
    found: dict[str, float] = {}
    try:
        for name in names:
            price = _listed(pricing, region, name)
            if price is not None:
                found[name] = price
    except (exceptions.BotoCoreError, exceptions.ClientError) as error:
        warn(f"the pricing API does not answer: {error}")
    return found


def _listed(pricing: Any, region: str, name: str) -> float | None:
    """USD an hour of one type, as the price list has it; None if it does not."""
    wanted = {**_FILTERS, "regionCode": region, "instanceType": name}
    filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in wanted.items()]
    answer = pricing.get_products(ServiceCode="AmazonEC2", Filters=filters)
    prices = (
        float(dimension["pricePerUnit"]["USD"])
        for product in map(json.loads, answer["PriceList"])
        for term in product["terms"].get("OnDemand", {}).values()
        for dimension in term["priceDimensions"].values()
        if dimension["unit"] == "Hrs" and "USD" in dimension["pricePerUnit"]
    )
    return next((price for price in prices if price), None)


def _some(names: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(names), _ONCE):
        yield list(names[start : start + _ONCE])
