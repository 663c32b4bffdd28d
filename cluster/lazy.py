"""Modules that are slow to import and that most commands do not need, imported when they are first used."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any


class _Lazy(ModuleType):
    """Stands for the module of its name. Threads may share it: the import system has locks of its own."""

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self.__name__), attribute)


def module(name: str) -> ModuleType:
    """What can be used like the module `name`. An ImportError comes at the first use."""
    return _Lazy(name)
