"""Portage's own `emerge`, asked what `cluster plan` is asked: what a plan is measured against."""

from __future__ import annotations

import os
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.master.portagelib import Place
from cluster.master.resolver import Request

_PROGRAM = "lib/portage/bin/emerge"  # below the prefix of the Python that Portage is installed for
_SHARED = ("share/portage", "lib/portage")


@dataclass(frozen=True, slots=True)
class Prefix:
    """A Python environment of its own for emerge, which takes `sys.prefix` for its own root.

    With the target's configuration in the same place the target is its own build root, as it is in a native node.
    """

    root: Path

    @classmethod
    def create(cls, root: Path) -> Prefix:
        """Make it in the directory `root`, with the Portage that runs here."""
        venv.create(root, symlinks=True)
        for shared in _SHARED:
            (root / shared).parent.mkdir(parents=True, exist_ok=True)
            (root / shared).symlink_to(Path(sys.prefix) / shared)
        return cls(root)

    @property
    def python(self) -> Path:
        """Its Python."""
        return self.root / "bin/python"

    @property
    def program(self) -> Path:
        """emerge."""
        return self.root / _PROGRAM

    def configure(self, request: Request) -> dict[str, str]:
        """Write the configuration of `request` in the place of the last one; returns emerge's whole environment."""
        place = Place(
            root=self.root,
            repositories=request.repositories,
            profile=request.profile,
            installed=request.installed,
            make_conf=request.make_conf,
            test=request.test,
            user=request.user,
        )
        place.write()
        return {
            **place.environment,
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path.endswith("-packages")),
            "ROOT": "/",
            "SYSROOT": "/",
            "EPREFIX": str(self.root),
        }


def options(request: Request) -> tuple[str, ...]:
    """The words after `emerge` that ask for the plan of `request`."""
    return ("--pretend", "--verbose", "--with-bdeps=y", *(["--emptytree"] if request.emptytree else []), *request.atoms)


def command(prefix: Prefix, words: Sequence[str]) -> list[str | Path]:
    """The argument vector that runs emerge in `prefix`."""
    return [prefix.python, prefix.program, *words]
