"""The installed database of a stage that no Portage has filled."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from cluster.errors import InputError
from cluster.master import portagelib
from cluster.model import Package, main_slot

_EAPI = "8"
_BUILD_TIME = "1"
"""Seconds since 1970. Not the clock's, so that the same recipe gives the same bytes."""


def write_installed(provides: Iterable[str], root: Path, arch: str) -> Path:
    """Write `root`/var/db/pkg, the database of what `provides` names, and return it.

    An entry is CATEGORY/NAME-VERSION[:SLOT[/SUBSLOT]]; the slot is 0 by default. Portage
    takes each for installed: without dependencies, without files, without an ebuild. `arch`
    becomes its keyword. Raises InputError for an entry that is none.
    """
    database = root / "var/db/pkg"
    database.mkdir(parents=True, exist_ok=True)
    for counter, entry in enumerate(provides, start=1):
        cpv, _, slot = entry.partition(":")
        if not portagelib.valid_cpv(cpv) or (":" in entry and not slot):
            raise InputError(f"{entry!r} is not CATEGORY/NAME-VERSION[:SLOT]", "mend `provides` in the stage's recipe")
        _write_entry(database / cpv, {"SLOT": slot or "0", "KEYWORDS": arch, "USE": arch, "COUNTER": str(counter)})
    return database


def with_built(database: Path, packages: Iterable[Package], root: Path, arch: str) -> Path:
    """Write `root`/var/db/pkg, which is `database` after `packages` were merged into it, and return it.

    Of the two only links are made; Portage takes the packages for installed, with the USE they are built with.
    """
    result = root / "var/db/pkg"
    shutil.rmtree(result, ignore_errors=True)
    result.mkdir(parents=True)
    built = tuple(packages)
    replaced = {package.place for package in built}
    for entry in sorted(database.glob("*/*")):
        slot = main_slot((entry / "SLOT").read_text().strip()) if (entry / "SLOT").is_file() else ""
        cpv = f"{entry.parent.name}/{entry.name}"
        if portagelib.valid_cpv(cpv) and (portagelib.name(cpv), slot) not in replaced:
            (result / cpv).parent.mkdir(exist_ok=True)
            (result / cpv).symlink_to(entry)
    for counter, package in enumerate(built, start=1_000_000):
        values = {
            "SLOT": package.slot,
            "KEYWORDS": arch,
            "USE": " ".join((*package.use, arch)),
            "IUSE": " ".join(package.iuse),
            "COUNTER": str(counter),
            "repository": package.repository,
        }
        _write_entry(result / package.cpv, values)
    return result


def _write_entry(directory: Path, own: Mapping[str, str]) -> None:
    """One package's directory. Portage wants all of these, and reads an absent dependency as none."""
    values = {
        "CATEGORY": directory.parent.name,
        "PF": directory.name,
        "EAPI": _EAPI,
        "repository": "stage",
        "IUSE": "",
        "DEFINED_PHASES": "-",
        "DESCRIPTION": "part of the stage",
        "BUILD_TIME": _BUILD_TIME,
        "SIZE": "0",
        **own,
    }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "CONTENTS").write_text("")
    for name, value in values.items():
        (directory / name).write_text(f"{value}\n")
