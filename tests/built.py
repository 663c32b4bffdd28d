"""What Portage records of packages once they are built, from a plan alone: for an installed database and a PKGDIR.

The dependencies are what `evaluate_slot_operator_equal_deps` of Portage makes of them: USE conditionals are
decided, and := is bound to what the plan has.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import portage
from portage.dbapi.virtual import fakedbapi
from portage.dep._slot_operator import evaluate_slot_operator_equal_deps
from portage.versions import _pkg_str

from cluster.model import Package, Plan

_COPIED = ("DEFINED_PHASES", "DESCRIPTION", "EAPI", "IUSE", "KEYWORDS", "LICENSE", "RESTRICT", "SLOT", "PROPERTIES")
_TIME = "1"  # of every build

Records = Mapping[str, Mapping[str, str]]
"""CPV to Portage's keys and values."""


class _Trees(dict[str, Any]):
    """As much of Portage's trees as the evaluation asks for: one root, with what the plan has."""

    _running_eroot = _target_eroot = "/"


def records(plan: Plan, implicit: Collection[str]) -> Records:
    """What is recorded of each package of `plan`. `implicit` are flags that the profile turns on for every ebuild."""
    metadata = {package.cpv: _metadata(package, implicit) for package in plan.packages}
    known = frozenset(implicit).__contains__
    database = fakedbapi(SimpleNamespace(repositories={}, _iuse_effective_match=known, _iuse_implicit_match=known))
    for cpv, values in metadata.items():
        database.cpv_inject(_pkg_str(cpv, metadata=values, settings=database.settings), metadata=values)
    trees = _Trees({"/": {"vartree": SimpleNamespace(dbapi=database)}})
    return {cpv: {**values, **_dependencies(values, trees)} for cpv, values in metadata.items()}


def _metadata(package: Package, implicit: Iterable[str]) -> dict[str, str]:
    entry = dict(line.split("=", 1) for line in package.metadata.splitlines())
    use = " ".join(sorted({*package.use, *implicit}))
    own = {"USE": use, "repository": package.repository, "BUILD_TIME": _TIME, "CATEGORY": package.category}
    return {**dict.fromkeys(portage.auxdbkeys, ""), **entry, **own, "PF": package.pf}


def _dependencies(values: Mapping[str, str], trees: _Trees) -> dict[str, str]:
    settings = SimpleNamespace(configdict={"pkg": values})
    found: dict[str, str] = evaluate_slot_operator_equal_deps(settings, values["USE"].split(), trees)
    return found


def install(built: Records, root: Path, leave_out: Collection[str] = ()) -> Path:
    """Write `root`/var/db/pkg with everything in `built` but `leave_out`; returns it."""
    database = root / "var/db/pkg"
    database.mkdir(parents=True)
    for counter, (cpv, values) in enumerate(built.items(), start=1):
        if cpv not in leave_out:
            directory = database / cpv
            directory.mkdir(parents=True)
            for key, value in {**_kept(values), "COUNTER": str(counter), "SIZE": "0", "CONTENTS": ""}.items():
                (directory / key).write_text(f"{value}\n")
    return database


def _kept(values: Mapping[str, str]) -> dict[str, str]:
    kept = (*_COPIED, "USE", "repository", "BUILD_TIME", "CATEGORY", "PF")
    return {key: values[key] for key in (*kept, *_DEPENDENCIES) if values.get(key)}


_DEPENDENCIES = ("DEPEND", "BDEPEND", "RDEPEND", "IDEPEND", "PDEPEND")


def index(built: Records, chost: str, pkgdir: Path) -> None:
    """Write the `Packages` of a PKGDIR that would have everything in `built`.

    With FEATURES=pkgdir-index-trusted emerge reads nothing else of packages that it only pretends to install.
    """
    entries = [f"ARCH: any\nPACKAGES: {len(built)}\nTIMESTAMP: {_TIME}\nVERSION: 0\nCHOST: {chost}\n"]
    for cpv, values in built.items():
        lines = {**_kept(values), "CPV": cpv, "REPO": values["repository"], "SIZE": "1", "MTIME": _TIME}
        lines["PATH"] = f"{cpv}.gpkg.tar"
        for key in ("repository", "CATEGORY", "PF"):
            del lines[key]
        entries.append("".join(f"{key}: {value}\n" for key, value in sorted(lines.items())))
    pkgdir.mkdir(exist_ok=True)
    (pkgdir / "Packages").write_text("\n".join(entries) + "\n")
