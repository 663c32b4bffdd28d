"""A host that has no nodes: its processors compile for the nodes of others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from cluster import paths
from cluster.errors import MachineError
from cluster.host import kit as kits
from cluster.host.pool import Offer, Pool
from cluster.host.runs import Run


@dataclass(frozen=True, slots=True)
class Smithing:
    """What a host compiles, and for which pool: what makes a `Forge` there."""

    kit: kits.Kit
    """The master's; a host's cache takes the place of the one that it names."""
    membership: kits.Membership

    @property
    def is_early(self) -> bool:
        """No job will ever ask for it."""
        return True

    def bench(self, directory: Path) -> Forge:
        """The forge of this host, whose own files are below `directory`. Raises MachineError."""
        with ExitStack() as stack:
            mine = replace(self.kit, cache=paths.directories().cache)
            live = stack.enter_context(Run(directory / "state"))
            offer = kits.offer_of(mine, live, stack, kits.Logged(), self.membership)
            return Forge(offer, stack.pop_all())


@dataclass(frozen=True, slots=True)
class Forge:
    """A distccd for others, and no nodes."""

    offer: Offer
    """What it has for a pool."""
    stack: ExitStack = field(repr=False)
    """What ends with it."""

    def build(self, parcel: Any, node: str, entered: Callable[[str], None]) -> NoReturn:
        """Raises MachineError: packages are built elsewhere."""
        raise MachineError(f"there is no {node}: this host compiles only")

    def abandon(self, node: str) -> None:
        """As `Bench.abandon`: nothing is being built."""

    def share(self, slots: Mapping[str, int]) -> None:
        """As `Bench.share`: there are no nodes to have any."""

    def pool(self, pool: Pool) -> None:
        """As `Bench.pool`: there are no nodes to use it."""

    def stop(self) -> None:
        """End its distccd."""
        self.stack.close()
