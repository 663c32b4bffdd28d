"""The hosts without nodes: they build none of a run's packages, and are in its pool of distccds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cluster.master.engines.engine import Came, Change, Draining, Resumed, Went


@dataclass(slots=True)
class Helpers:
    """Those that are there; may be used from several threads."""

    tell: Callable[[str], object] = lambda text: None
    """Is told which compile no more, and why."""
    _there: dict[str, bool] = field(default_factory=dict)
    """By name, whether it is to compile."""
    _over: bool = False

    def heard(self, change: Change) -> bool:
        """Whether the `change` was one of a host without nodes, and the run is not to hear of it."""
        match change:
            case Came(host):
                if not host.nodes:
                    self._there.setdefault(host.name, True)
                return not host.nodes
            case Went(name, reason):
                return self._lost(name, self._there.pop(name, None), reason)
            case Draining(name, reason):
                compiled = self._there.get(name)
                if compiled:
                    self._there[name] = False
                return self._lost(name, compiled, reason)
            case Resumed(name):
                if known := name in self._there:
                    self._there[name] = True
                return known

    def ready(self) -> frozenset[str]:
        """The names of those that compile for others now."""
        return frozenset(name for name, compiles in tuple(self._there.items()) if compiles)

    def close(self) -> None:
        """The run is over: that they leave is nothing to tell."""
        self._over = True

    def _lost(self, name: str, compiled: bool | None, reason: str) -> bool:
        if compiled and not self._over:
            self.tell(f"{name} compiles no more for the others: {reason}")
        return compiled is not None
