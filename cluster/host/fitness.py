"""Whether nodes run on a host: `python -m cluster.host.fitness TARGET=DRIVER…` says so there, as JSON.

With COMPILES in the place of a driver, whether it compiles for the nodes of others.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from pydantic import TypeAdapter, ValidationError

from cluster import paths, target
from cluster.errors import ClusterError, MachineError
from cluster.host import hostcompiler
from cluster.node import drivers, emulator, sandbox, stage
from cluster.node.node import Hardware
from cluster.process import run

COMPILES: Final = "compiles"
_IMG_S = 60.0


@dataclass(frozen=True, slots=True)
class Fitness:
    """What was tried on a host, and what came of it."""

    sandbox: bool
    """Whether its user may make namespaces, in which compilers run."""
    emulators: Mapping[str, str]
    """The version of QEMU, by target, where it runs and reads the stage's disk."""
    problems: Mapping[str, str]
    """By target, why no node of it can be had there or its compiles cannot be trusted."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """What a host printed, whatever its shell said before. Raises MachineError if it is something else."""
        try:
            return TypeAdapter(cls).validate_json(text.strip().rpartition("\n")[2])
        except ValidationError as error:
            raise MachineError("the host does not say what runs on it", text.strip()[-200:]) from error


def examine(drivers: Mapping[str, str], cache: Path) -> Fitness:
    """Try what nodes of the targets that are the keys of `drivers` need, with what is in `cache`."""
    emulators: dict[str, str] = {}
    problems: dict[str, str] = {}
    for name, driver in drivers.items():
        try:
            chosen, recipe = target.load(name), target.load_recipe()
            found = stage.find(chosen, recipe, cache)
            if found is None:
                raise MachineError(f"the {name} stage is not there")
            if driver != COMPILES:
                emulators[name] = _try_nodes(chosen, recipe, found, driver, cache)
            hostcompiler.find(chosen, found, cache)
        except ClusterError as error:
            problems[name] = str(error)
    return Fitness(sandbox.works(), emulators, problems)


def _try_nodes(chosen: target.Target, recipe: target.Recipe, found: stage.Stage, driver: str, cache: Path) -> str:
    """The version of the emulator. Raises MachineError if there are no nodes of this `driver` here."""
    qemu = emulator.ensure(chosen, recipe, cache)
    version = _emulator(qemu, found)
    if driver == "chroot":
        _try_chroot(Hardware(chosen, qemu, found, 0, 1, 0.0), recipe.provides, cache)
    return version


def _emulator(found: emulator.Emulator, built: stage.Stage) -> str:
    """The version of the emulator, whose tools can read the stage's disk."""
    run([*found.img, "info", built.disk], deadline_s=_IMG_S, env=found.environment)
    return found.version


def _try_chroot(hardware: Hardware, provides: Sequence[str], cache: Path) -> None:
    """Raise MachineError if nodes of the hardware's stage cannot be chroots here."""
    with tempfile.TemporaryDirectory(prefix="portage-cluster-") as scratch:
        drivers.chroot(hardware, provides, cache, scratch=Path(scratch))


if __name__ == "__main__":
    asked = dict(word.split("=", 1) for word in sys.argv[1:])
    print(json.dumps(asdict(examine(asked, paths.directories().cache))))
