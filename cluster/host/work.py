"""What a host is given to build one package, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.model import Compiles, Cpv, Package, Served
from cluster.node.build import Built, Limits
from cluster.node.job import Settings


@dataclass(frozen=True, slots=True)
class Work:
    """All that a host is given to build one package; paths are of the machine where it is."""

    package: Package
    """Requires all that its node is to have, with what the first round has for it."""
    settings: Settings
    """With make's -j of this package; where distccd listens is the host's to say."""
    limits: Limits
    distfiles: Path
    """A directory that has the package's distfiles."""
    binpkgs: Mapping[Cpv, Path]
    """The file of each package that it requires."""
    index: str
    """`Packages` of exactly these."""
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Product:
    """What came of it."""

    built: Built
    """Its usage has the CPU time of the host's compiles; its binpkg is there until the node is given something else."""
    compiles: Compiles
    audited: int = 0
    """How many compiles were done in the node as well."""
    differing: tuple[str, ...] = ()
    """Those of them that came out different, a line each."""
    served: tuple[Served, ...] = ()
    """Which hosts of the distcc pool did those that went to distcc; empty without a pool."""

    @property
    def failure(self) -> str:
        """Why the package failed, in one line; "" if it is built."""
        if self.differing:
            wrong = f"{len(self.differing)} of {self.audited} compiles are not the node's own"
            return f"audit: {wrong}, as {self.differing[0]}"
        return self.built.failure
