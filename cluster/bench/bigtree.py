"""An ebuild repository of any size, as real ones are: layers, a few hubs that most packages need, flags, slots.

Its md5-cache is written with it, so that no bash sources an ebuild.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.model import Repository

EDGES = 10
"""Dependencies of a package, where there are so many before it."""
SET = "all"
"""The set that has every package."""

_NAME = "big"
_CATEGORIES = 50
_HUBS = 100  # one package of so many is one
_NEAR = 200  # what is no hub is needed by packages not much further up
_SLOTTED = 20  # one package of so many has a subslot
_TWICE = 10  # one package of so many has an older version too
_PROFILE = """\
ARCH="arm64"
ACCEPT_KEYWORDS="arm64"
ACCEPT_LICENSE="*"
CHOST="aarch64-linux-gnu"
ELIBC="glibc"
KERNEL="linux"
USE="nls"
USE_EXPAND="ELIBC KERNEL"
USE_EXPAND_IMPLICIT="ELIBC KERNEL"
USE_EXPAND_VALUES_ELIBC="glibc"
USE_EXPAND_VALUES_KERNEL="linux"
"""


@dataclass(frozen=True, slots=True)
class _Ebuild:
    cpv: str
    variables: dict[str, str]


def write(root: Path, packages: int) -> Repository:
    """Write a repository of `packages` packages with EDGES times as many dependencies; the same for the same number.

    Its profile is profiles/arm64, its set SET. None of its packages needs one of a higher number, so that there are
    no circles.
    """
    texts = {
        "metadata/layout.conf": "masters =\nthin-manifests = true\ncache-formats = md5-dict\n",
        "profiles/repo_name": f"{_NAME}\n",
        "profiles/eapi": "8\n",
        "profiles/arch.list": "arm64\n",
        "profiles/categories": "".join(f"{_category(number)}\n" for number in range(_CATEGORIES)),
        "profiles/arm64/eapi": "8\n",
        "profiles/arm64/make.defaults": _PROFILE,
        f"sets/{SET}": "".join(f"{_name(number)}\n" for number in range(packages)),
        "sets.conf": "[big sets]\nclass = portage.sets.files.StaticFileSet\nmultiset = true\n"
        "directory = ${repository:big}/sets\n",
    }
    for path, text in texts.items():
        _put(root / path, text)
    for ebuild in _ebuilds(packages):
        _write_ebuild(root, ebuild)
    return Repository(_NAME, root)


def _category(number: int) -> str:
    return f"cat-{number % _CATEGORIES}"


def _name(number: int) -> str:
    return f"{_category(number)}/pkg{number}"


def _ebuilds(packages: int) -> Iterator[_Ebuild]:
    chance = random.Random(packages)
    hubs = max(EDGES, packages // _HUBS)
    for number in range(packages):
        variables = _variables(number, _needs(chance, number, hubs))
        yield _Ebuild(f"{_name(number)}-2", variables)
        if number % _TWICE == 0:
            yield _Ebuild(f"{_name(number)}-1", variables)


def _needs(chance: random.Random, number: int, hubs: int) -> list[int]:
    """What the package needs: hubs, those of a low number more often than others, and a few that are near."""
    if number <= EDGES:
        return list(range(number))
    found: set[int] = set()
    while len(found) < EDGES:
        near = chance.random() < 0.3
        low = max(0, number - _NEAR) if near else 0
        high = number if near else min(hubs, number)
        found.add(low + int((high - low) * (chance.random() if near else chance.random() ** 2)))
    return chance.sample(sorted(found), EDGES)


def _variables(number: int, needs: list[int]) -> dict[str, str]:
    """Of ten dependencies four are libraries, one of them under a flag that is on, three programs, three to run."""
    atoms = [_name(other) for other in needs]
    libraries = [f"{atom}:=" for atom in atoms[:3]] + [f"nls? ( {atom} )" for atom in atoms[3:4]]
    return {
        "DEPEND": " ".join(libraries),
        "RDEPEND": " ".join([*libraries, *atoms[7:]]),
        "BDEPEND": " ".join(atoms[4:7]),
        "DEFINED_PHASES": "-",
        "DESCRIPTION": "one of many",
        "EAPI": "8",
        "IUSE": "nls doc +ssl",
        "KEYWORDS": "arm64",
        "LICENSE": "MIT",
        "SLOT": "0/2" if number % _SLOTTED == 0 else "0",
    }


def _write_ebuild(root: Path, ebuild: _Ebuild) -> None:
    category, _, pf = ebuild.cpv.partition("/")
    text = "".join(f'{key}="{value}"\n' for key, value in ebuild.variables.items() if key != "DEFINED_PHASES")
    _put(root / category / pf.rpartition("-")[0] / f"{pf}.ebuild", text)
    entry = {**ebuild.variables, "_md5_": hashlib.md5(text.encode()).hexdigest()}
    lines = (f"{key}={value}\n" for key, value in sorted(entry.items()) if value)
    _put(root / "metadata/md5-cache" / ebuild.cpv, "".join(lines))


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
