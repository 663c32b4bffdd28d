"""The hosts that a user has added: one file each, which running builds watch.

state/hosts/
    NAME.json       a Machine
    identity        the private key that opens them all, identity.pub
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from pydantic import ConfigDict, TypeAdapter, ValidationError

from cluster import paths
from cluster.errors import InputError
from cluster.host.facts import Facts
from cluster.node.drivers import Kind

_SSH = 22
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class State(StrEnum):
    """Whether a host is given packages."""

    READY = "ready"
    DRAINED = "drained"
    """Its user wants none to start on it."""
    QUARANTINED = "quarantined"
    """Packages failed on it that others can build."""
    UNFIT = "unfit"
    """It failed a check."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A host as it was added, with what is known of it since."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str
    user: str
    address: str
    port: int
    host_key: str
    """The one public key that it is to answer with, OpenSSH's line."""
    nodes: Mapping[str, int] = field(default_factory=dict)
    """How many at once, by target; none where it compiles only."""
    drivers: Mapping[str, Kind] = field(default_factory=dict)
    """What they are, by target."""
    facts: Facts | None = None
    """None until it has been set up."""
    state: State = State.UNFIT
    reason: str = "it has not been set up"
    """Why it is not ready, in a line."""
    rented: str = ""
    """The id of the EC2 instance that it is."""
    tunnel: bool = False
    """Whether what goes between it and the master goes through ssh."""
    compiles_only: bool = False
    """Whether it has no nodes, and all its processors are for what the nodes of others compile."""
    software: str = ""
    """Identifies the portage-cluster that is installed there."""

    @property
    def place(self) -> str:
        """Where it is, as a person says it."""
        port = "" if self.port == _SSH else f" port {self.port}"
        return f"{self.user}@{self.address}{port}"

    def kind(self, target: str) -> Kind:
        """What its nodes for `target` are."""
        return self.drivers.get(target, "qemu")

    def serves(self, target: str) -> bool:
        """Whether it has a part in builds for `target`: by its nodes, or by compiles alone."""
        return target in self.nodes and (self.compiles_only or self.nodes[target] > 0)

    def __str__(self) -> str:
        return f"{self.name} ({self.place})"


_MACHINE: Final = TypeAdapter(Machine)


class Registry:
    """The machines of `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def all(self) -> tuple[Machine, ...]:
        """Every machine, by name. Raises InputError for a file that cannot be read as one."""
        found = []
        for path in sorted(self._directory.glob("*.json")):
            with suppress(FileNotFoundError):  # removed meanwhile
                found.append(self._read(path))
        return tuple(found)

    def get(self, name: str) -> Machine:
        """The machine called `name`. Raises InputError if there is none."""
        path = self._path(name)
        if not path.exists():
            known = ", ".join(sorted(path.stem for path in self._directory.glob("*.json")))
            raise InputError(f"there is no host {name!r}", f"hosts: {known or 'none yet, see `cluster host add`'}")
        return self._read(path)

    def save(self, machine: Machine) -> None:
        """Keep `machine` in the place of what was known of its name. Raises InputError for an impossible name."""
        path = self._path(machine.name)
        self._directory.mkdir(parents=True, exist_ok=True)
        paths.publish(path, lambda part: part.write_bytes(_MACHINE.dump_json(machine, indent=1)))

    def renew(self, before: Machine, after: Machine) -> None:
        """Keep what `before` was found to be, which took a while: if its state was changed meanwhile, that stays.

        It may have been drained or resumed by its user, or quarantined by a build. Unfit is unfit in any case.
        """
        path = self._path(after.name)
        now = self._read(path) if path.exists() else before
        if now.state is not before.state and after.state is not State.UNFIT:
            after = replace(after, state=now.state, reason=now.reason)
        self.save(after)

    def remove(self, name: str) -> None:
        """Forget the machine `name`, if it is known."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise InputError(f"{name!r} cannot be a host's name", "use letters, digits, '.', '_' and '-'")
        return self._directory / f"{name}.json"

    def _read(self, path: Path) -> Machine:
        try:
            return _MACHINE.validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            where = "".join(f"{key}: " for key in first["loc"])
            raise InputError(
                f"{path}: {where}{first['msg']}", "mend it, or remove it and add the host again"
            ) from error


def dump(machine: Machine) -> dict[str, object]:
    """The machine as JSON has it."""
    dumped: dict[str, object] = _MACHINE.dump_python(machine, mode="json")
    return dumped
