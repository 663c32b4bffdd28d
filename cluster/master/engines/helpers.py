"""The hosts without nodes: they build none of a run's packages, and are in its pool of distccds."""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.master.engines.engine import Came, Change, Draining, Resumed, Went


@dataclass(frozen=True, slots=True)
class Helpers:
    """Those that are there; may be used from several threads."""

    _there: dict[str, bool] = field(default_factory=dict)
    """By name, whether it is to compile."""

    def heard(self, change: Change) -> bool:
        """Whether the `change` was one of a host without nodes, and the run is not to hear of it."""
        match change:
            case Came(host):
                if not host.nodes:
                    self._there[host.name] = True
                return not host.nodes
            case Went(name):
                return self._there.pop(name, None) is not None
            case Draining(name) | Resumed(name):
                if known := name in self._there:
                    self._there[name] = isinstance(change, Resumed)
                return known

    def ready(self) -> frozenset[str]:
        """The names of those that compile for others now."""
        return frozenset(name for name, compiles in tuple(self._there.items()) if compiles)
