"""The installed database of a stage that no Portage has filled."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cluster.errors import InputError
from cluster.master import portagelib

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
        _write_entry(database / cpv, slot or "0", arch, counter)
    return database


def _write_entry(directory: Path, slot: str, arch: str, counter: int) -> None:
    """One package's directory. Portage wants all of these, and reads an absent dependency as none."""
    values = {
        "CATEGORY": directory.parent.name,
        "PF": directory.name,
        "SLOT": slot,
        "EAPI": _EAPI,
        "KEYWORDS": arch,
        "repository": "stage",
        "USE": arch,
        "IUSE": "",
        "DEFINED_PHASES": "-",
        "DESCRIPTION": "part of the stage",
        "COUNTER": str(counter),
        "BUILD_TIME": _BUILD_TIME,
        "SIZE": "0",
    }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "CONTENTS").write_text("")
    for name, value in values.items():
        (directory / name).write_text(f"{value}\n")
