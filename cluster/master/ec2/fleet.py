"""Instances made to a quote: a key pair, a security group, a launch template for each architecture, and instant fleets.

Everything has its tag from the very call that makes it, so that a master killed at any moment leaves nothing that
`reaper` does not find.
"""

from __future__ import annotations

import base64
import ipaddress
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cluster.errors import MachineError
from cluster.master.ec2.client import Cloud, Refused
from cluster.master.ec2.quote import Kind, Quote
from cluster.master.ec2.rental import TAG, Instance, Market, Part, Rental

_SSH = 22
_SHORT = frozenset(
    {
        "InsufficientInstanceCapacity",
        "InsufficientHostCapacity",
        "InsufficientFreeAddressesInSubnet",
        "UnfulfillableCapacity",
        "SpotMaxPriceTooLow",
        "Unsupported",
    }
)
"""Codes after which another type or zone may do: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html"""

Save = Callable[[Rental], object]


@dataclass(frozen=True, slots=True)
class Keys:
    """What instances are given."""

    public: str
    """The public key that the key pair has, OpenSSH's line."""
    user_data: str


def rent(cloud: Cloud, quote: Quote, rental: Rental, keys: Keys, save: Save) -> Rental:
    """Make all that is wished for, or as much of it as AWS has; returns the rental with its instances.

    `save` is told of the rental whenever it has changed. Raises Refused; what was made until then is left as it is.
    """
    cloud.call(
        "import_key_pair",
        KeyName=name(rental.run),
        PublicKeyMaterial=keys.public.encode(),
        TagSpecifications=_tags(rental.run, "key-pair"),
    )
    group = _group(cloud, quote, rental)
    templates = {arch: _template(cloud, quote, rental, arch, group, keys.user_data) for arch in quote.images}
    return _filled(cloud, quote, rental, templates, save)


def add(cloud: Cloud, quote: Quote, rental: Rental, keys: Keys, save: Save) -> tuple[Rental, str]:
    """The same for more in a rental that is up, with its key pair and security group; says as well what is missing.

    Instances are made from templates of their own, as they end themselves after what is left of its hours.
    """
    tagged = [{"Name": f"tag:{TAG}", "Values": [rental.run]}]
    group = next(cloud.each("describe_security_groups", "SecurityGroups", Filters=tagged), None)
    if group is None:
        raise MachineError(f"the rental {rental.run} has no security group any more", "`cluster ec2 down` ends it")
    suffix = f"-{secrets.token_hex(4)}"
    templates = {
        arch: _template(cloud, quote, rental, arch, group["GroupId"], keys.user_data, suffix) for arch in quote.images
    }
    after = _filled(cloud, quote, rental, templates, save)
    whole = replace(after, missing=rental.missing)
    save(whole)
    return whole, "; ".join(after.missing[len(rental.missing) :])


def _filled(cloud: Cloud, quote: Quote, rental: Rental, templates: Mapping[str, str], save: Save) -> Rental:
    for part in quote.wish.parts:
        rental = _fill(cloud, quote, rental, templates[quote.kinds[part.type].arch], part, save)
    return rental


def name(run: str) -> str:
    """What things of a rental are called that have a name."""
    return f"{TAG}-{run}"


def _tags(run: str, *kinds: str) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": [{"Key": TAG, "Value": run}]} for kind in kinds]


def _group(cloud: Cloud, quote: Quote, rental: Rental) -> str:
    """A security group that lets nothing in but ssh from the master."""
    made = cloud.call(
        "create_security_group",
        GroupName=name(rental.run),
        Description=f"ssh from the master of the rental {rental.run}",
        VpcId=quote.vpc,
        TagSpecifications=_tags(rental.run, "security-group"),
    )
    group = str(made["GroupId"])
    if ipaddress.ip_network(rental.source).version == 4:
        source: dict[str, Any] = {"IpRanges": [{"CidrIp": rental.source}]}
    else:
        source = {"Ipv6Ranges": [{"CidrIpv6": rental.source}]}
    rule = {"IpProtocol": "tcp", "FromPort": _SSH, "ToPort": _SSH, **source}
    cloud.call("authorize_security_group_ingress", GroupId=group, IpPermissions=[rule])
    return group


def _template(
    cloud: Cloud, quote: Quote, rental: Rental, arch: str, group: str, user_data: str, suffix: str = ""
) -> str:
    image = quote.images[arch]
    disk = {"VolumeType": "gp3", "VolumeSize": quote.disk_gib, "Encrypted": True, "DeleteOnTermination": True}
    tagged = ("instance", "volume", "network-interface")
    made = cloud.call(
        "create_launch_template",
        LaunchTemplateName=f"{name(rental.run)}-{arch}{suffix}",
        LaunchTemplateData={
            "ImageId": image.id,
            "KeyName": name(rental.run),
            "SecurityGroupIds": [group],
            "UserData": base64.b64encode(user_data.encode()).decode(),
            "BlockDeviceMappings": [{"DeviceName": image.device, "Ebs": disk}],
            "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1, "HttpEndpoint": "enabled"},
            "InstanceInitiatedShutdownBehavior": "terminate",
            "TagSpecifications": _tags(
                rental.run, *tagged, *(("spot-instances-request",) if rental.market is Market.SPOT else ())
            ),
        },
        TagSpecifications=_tags(rental.run, "launch-template"),
    )
    return str(made["LaunchTemplate"]["LaunchTemplateId"])


def _fill(cloud: Cloud, quote: Quote, rental: Rental, template: str, part: Part, save: Save) -> Rental:
    """The instances of `part`, those that AWS has not in the types that may stand in for its type."""
    missing, why = part.count, ""
    for type_ in (part.type, *quote.instead(part.type)):
        ids, said = _fleet(cloud, rental, template, quote.kinds[type_], missing)
        why = why or said
        for one in ids:
            made = Instance(one, type_, quote.kinds[type_].usd_h, time.time(), compiles_only=part.compiles_only)
            rental = rental.known(made)
        save(rental)
        missing -= len(ids)
        if not missing:
            return rental
    rental = replace(
        rental, missing=(*rental.missing, f"{missing} of {part.count} {part.type}: {why or 'no reason given'}")
    )
    save(rental)
    return rental


def _fleet(cloud: Cloud, rental: Rental, template: str, kind: Kind, count: int) -> tuple[tuple[str, ...], str]:
    """The ids of up to `count` instances of `kind`, in whichever of its zones has them, and why they are no more."""
    if not kind.subnets:
        return (), f"no zone of {rental.region} has {kind.name}"
    try:
        answer = cloud.call("create_fleet", **_request(rental, template, kind, count))
    except Refused as error:
        if error.code in _SHORT:
            return (), error.code
        raise
    ids = tuple(one for some in answer.get("Instances", ()) for one in some["InstanceIds"])
    errors = {error["ErrorCode"]: error.get("ErrorMessage", "") for error in answer.get("Errors", ())}
    fatal = next((code for code in errors if code not in _SHORT), None)
    if fatal is not None and not ids:
        raise Refused("create_fleet", fatal, errors[fatal])
    return ids, ", ".join(errors)


def _request(rental: Rental, template: str, kind: Kind, count: int) -> Mapping[str, Any]:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateFleet.html"""
    most = {"SingleInstanceType": False, "MaxTotalPrice": f"{kind.bid * count:.5f}"}
    overrides: list[dict[str, str]] = [{"InstanceType": kind.name, "SubnetId": subnet} for subnet in kind.subnets]
    if rental.market is Market.SPOT:
        overrides = [{**one, "MaxPrice": f"{kind.bid:.5f}"} for one in overrides]
        options = {
            "SpotOptions": {
                "AllocationStrategy": "price-capacity-optimized",
                "InstanceInterruptionBehavior": "terminate",
                **most,
            }
        }
    else:
        options = {"OnDemandOptions": {"AllocationStrategy": "lowest-price", **most}}
    return {
        "Type": "instant",
        "LaunchTemplateConfigs": [
            {
                "LaunchTemplateSpecification": {"LaunchTemplateId": template, "Version": "1"},
                "Overrides": overrides,
            }
        ],
        "TargetCapacitySpecification": {"TotalTargetCapacity": count, "DefaultTargetCapacityType": rental.market.value},
        "TagSpecifications": _tags(rental.run, "fleet"),
        **options,
    }
