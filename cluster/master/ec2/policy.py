"""The rights that `cluster ec2` needs, as a policy of IAM: `ec2/iam-policy.json.j2`."""

from __future__ import annotations

import json
from typing import Any

import jinja2

from cluster import paths
from cluster.master.ec2.rental import TAG

IMPLIED = frozenset({"ec2:RunInstances", "ec2:CreateTags", "iam:CreateServiceLinkedRole"})
"""Rights that are needed and never called for by name: what an instant fleet does with its caller's rights.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-fleet-prerequisites.html
"""


def render(account: str = "*", region: str = "*") -> dict[str, Any]:
    """The policy for an account and a region, or for any."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(paths.data("ec2")), undefined=jinja2.StrictUndefined, autoescape=False
    )
    text = environment.get_template("iam-policy.json.j2").render(account=account, region=region, tag=TAG)
    policy: dict[str, Any] = json.loads(text)
    return policy


def rights(policy: dict[str, Any]) -> frozenset[str]:
    """All actions that it allows."""
    return frozenset(action for statement in policy["Statement"] for action in statement["Action"])
