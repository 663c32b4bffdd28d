"""Plans and their parts, with only what a test is about spelled out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cluster.model import Action, Cpv, Package, Plan, Verdict

Requires = Mapping[str, tuple[str, ...]]
"""CATEGORY/NAME-VERSION to what must be in the node before its build."""


def package(cpv: str, *requires: str, **changes: Any) -> Package:
    """A package that needs `requires`."""
    values: dict[str, Any] = {
        "cpv": Cpv(cpv),
        "slot": "0",
        "use": (),
        "iuse": (),
        "repository": "test",
        "ebuild": Path("/nowhere") / f"{cpv}.ebuild",
        "requires": tuple(map(Cpv, requires)),
        "distfiles": (),
    }
    return Package(**{**values, **changes})


def plan(requires: Requires, *, skipped: Iterable[str] = ()) -> Plan:
    """A plan of the packages in `requires`, of which the binhost has `skipped`."""
    skipped = frozenset(skipped)
    packages = tuple(
        package(cpv, *needs, action=Action.SKIP if cpv in skipped else Action.BUILD, reason=f"why {cpv}")
        for cpv, needs in requires.items()
    )
    return Plan("arm64", "aarch64-linux-gnu", packages, (), Path("/nowhere/profile"))


VERDICTS = (Verdict.BUILT, Verdict.FAILED, Verdict.LOST)
"""How a job may end."""
