"""AWS asked for what its instance types are and cost today. Reads only: see `ACTIONS`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from cluster.errors import InputError
from cluster.master.ec2.catalogue import Catalogue, Type
from cluster.master.ec2.client import Cloud, Refused

ACTIONS = ("ec2:DescribeInstanceTypes", "ec2:DescribeSpotPriceHistory", "pricing:GetProducts")
"""All that is called here."""
_PRICING_REGION = "us-east-1"  # has an endpoint of the pricing API, as few have; it knows every region
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


def refreshed(catalogue: Catalogue, cloud: Cloud, now: datetime, warn: Warn) -> Catalogue:
    """`catalogue` with what AWS says of its types in the region of `cloud`; types that are not there are left out.

    Where AWS does not say a price the old one stays, and `warn` is told. Raises InputError and MachineError.
    """
    described = _described(cloud, list(catalogue.types))
    spot = _spot(cloud, list(described), now)
    missing = sorted(set(catalogue.types) - set(described))
    if missing:
        warn(f"{cloud.region} has no {', '.join(missing)}: left out")
    listed = _on_demand(Cloud(_PRICING_REGION), cloud.region, list(described), warn)
    for prices, what in ((spot, "spot"), (listed, "on-demand")):
        if unpriced := [name for name in described if name not in prices]:
            warn(f"no {what} price of {', '.join(unpriced)}: the one of {catalogue.dated} stays")
    types = {
        name: _type(catalogue.types[name], one, listed.get(name), spot.get(name)) for name, one in described.items()
    }
    if not types:
        raise InputError(f"{cloud.region} has none of the catalogue's types", "name another --region")
    return catalogue.model_copy(update={"dated": now.date(), "types": types})


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


def _described(cloud: Cloud, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A filter, as a type that is named and is not there would be an error."""
    found = {
        one["InstanceType"]: one
        for some in _some(names)
        for one in cloud.each(
            "describe_instance_types", "InstanceTypes", Filters=[{"Name": "instance-type", "Values": some}]
        )
    }
    return {name: found[name] for name in names if name in found}


def _spot(cloud: Cloud, names: Sequence[str], now: datetime) -> dict[str, float]:
    """The median of a day's prices in all zones."""
    linux = {"ProductDescriptions": ["Linux/UNIX"], "StartTime": now - _SPOT}
    prices: dict[str, list[float]] = {}
    for some in _some(names):
        for row in cloud.each("describe_spot_price_history", "SpotPriceHistory", InstanceTypes=some, **linux):
            prices.setdefault(row["InstanceType"], []).append(float(row["SpotPrice"]))
    return {name: median(found) for name, found in prices.items()}


def _on_demand(cloud: Cloud, region: str, names: Iterable[str], warn: Warn) -> dict[str, float]:
    """As far as it may be asked: the right to the pricing API is often not given with that to EC2."""
    found: dict[str, float] = {}
    try:
        for name in names:
            price = _listed(cloud, region, name)
            if price is not None:
                found[name] = price
    except Refused as error:
        warn(str(error))
    return found


def _listed(cloud: Cloud, region: str, name: str) -> float | None:
    """USD an hour of one type, as the price list has it; None if it does not."""
    wanted = {**_FILTERS, "regionCode": region, "instanceType": name}
    filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in wanted.items()]
    answer = cloud.call("get_products", service="pricing", ServiceCode="AmazonEC2", Filters=filters)
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
