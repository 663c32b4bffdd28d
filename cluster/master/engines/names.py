"""What the nodes of other hosts are called: `HOST:2` in a run, `node-2` on the host itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class NodeName:
    """A node of another host."""

    host: str
    number: int
    """From 1, among the host's."""

    @classmethod
    def of(cls, node: str) -> Self:
        """What a run calls `HOST:2`, read."""
        host, _, number = node.rpartition(":")
        return cls(host, int(number))

    @property
    def there(self) -> str:
        """What its host calls it."""
        return f"node-{self.number}"

    def __str__(self) -> str:
        return f"{self.host}:{self.number}"
