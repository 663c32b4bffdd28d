"""What of a configuration has a part in what a build produces: pure decisions over buildconfig.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cluster.master.fingerprint import digest

FILE = "env/"
"""What the name of a file begins with that Portage sources for a package alone."""


@dataclass(frozen=True, slots=True)
class _Facts:
    named: tuple[str, ...]
    ignored: frozenset[str]
    ignored_prefixes: tuple[str, ...]
    features: frozenset[str]
    tools: frozenset[str]


@cache
def _facts() -> _Facts:
    values = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
    return _Facts(
        named=tuple(values["named"]),
        ignored=frozenset(values["ignored"]),
        ignored_prefixes=tuple(values["ignored_prefixes"]),
        features=frozenset(values["features"]),
        tools=frozenset(values["tools"]),
    )


def tools() -> frozenset[str]:
    """The packages that are the compiler, CATEGORY/NAME."""
    return _facts().tools


def relevant(variables: Mapping[str, str], use_expand: Collection[str]) -> dict[str, str]:
    """Those of `variables` that count, white space made single; unset and empty are the same.

    The variables of `use_expand` are USE flags by another name, and judged as these.
    """
    facts = _facts()
    found = {}
    for name in sorted(variables):
        if name in facts.ignored or name in use_expand or name.startswith(facts.ignored_prefixes):
            continue
        words = variables[name].split()
        if name == "FEATURES":
            words = sorted(facts.features.intersection(words))
        if words:
            found[name] = " ".join(words)
    return found


def _short(*values: str) -> str:
    """48 bits: to notice a change, of which an index of packages holds thousands."""
    return digest(*values)[:12]


def part(variables: Mapping[str, str]) -> str:
    """`variables`, all of which count, for a fingerprint: NAME:HASH for those with a name, one `other` for the rest."""
    names = (*_facts().named, *(name for name in sorted(variables) if name.startswith(FILE)))
    pairs = [f"{name}:{_short(variables[name])}" for name in names if name in variables]
    rest = [f"{name}={value}" for name, value in sorted(variables.items()) if name not in names]
    return ",".join([*pairs, *([f"other:{_short(*rest)}"] if rest else [])])
