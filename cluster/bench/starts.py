"""`cluster bench process`: what starting a process costs, in a tuned node and natively."""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cluster.bench import driver, machine
from cluster.errors import MachineError
from cluster.host import runs
from cluster.master import building, equipment
from cluster.master.progress import Reporter
from cluster.master.session import Session
from cluster.node import disk, job
from cluster.node.node import Hardware, booted
from cluster.process import find_program, run, tail

_DEADLINE_S = 3600.0
_SILENCE_S = 3600.0  # it prints once, at its end
_ROOM_MIB = 16

Times = Mapping[str, Sequence[float]]
"""Milliseconds of each start of a kind of process."""


@dataclass(frozen=True, slots=True)
class Report:
    """What came out."""

    repeat: int
    native: Times
    node: Times
    machine: dict[str, str | int]

    @property
    def ratios(self) -> dict[str, float]:
        """How many times longer a start takes in the node, by the medians."""
        return {
            name: round(statistics.median(self.node[name]) / statistics.median(times), 2)
            for name, times in self.native.items()
        }

    def json(self) -> dict[str, Any]:
        """The contract of `cluster bench process --json`; milliseconds."""
        return {
            "repeat": self.repeat,
            "native": {name: _summary(times) for name, times in self.native.items()},
            "node": {name: _summary(times) for name, times in self.node.items()},
            "ratio_to_native": self.ratios,
            "machine": self.machine,
        }


def _summary(times: Sequence[float]) -> dict[str, float]:
    median = round(statistics.median(times), 2)
    return {"median_ms": median, "min_ms": round(min(times), 2), "max_ms": round(max(times), 2)}


@dataclass(frozen=True, slots=True)
class Changes:
    """What is different in the node, to see what that brings; "" for the target's own."""

    kernel_arguments: str = ""
    cpu: str = ""

    def applied(self, hardware: Hardware) -> Hardware:
        """The hardware with these changes."""
        target = hardware.target
        kernel = target.kernel.model_copy(update={"arguments": self.kernel_arguments or target.kernel.arguments})
        qemu = target.qemu.model_copy(update={"cpu": self.cpu or target.qemu.cpu})
        return replace(hardware, target=target.model_copy(update={"kernel": kernel, "qemu": qemu}))


def measure(session: Session, repeat: int, changes: Changes, reporter: Reporter) -> Report:
    """Start each kind of process `repeat` times here and in a fresh tuned node. Raises MachineError, NodeLost."""
    find_program("gcc", "gcc")
    with building.only_one(session), ExitStack() as stack:
        runs.sweep(session.directories.state)
        hardware = changes.applied(equipment.hardware_for(session, 1, reporter))
        live = stack.enter_context(runs.Run(session.directories.state))
        stack.callback(live.stop)
        directory = stack.enter_context(live.node_directory("starts"))
        reporter.step(f"{repeat} starts of each natively")
        native = _natively(repeat)
        reporter.step(f"{repeat} starts of each in a node")
        node = _in_node(hardware, directory, repeat, live)
    return Report(repeat, native, node, machine.facts(hardware.emulator.version))


def _natively(repeat: int) -> Times:
    argv: list[str | Path] = [find_program("python3", "python3"), "-IS", Path(driver.__file__), str(repeat)]
    return _parsed(run(argv, deadline_s=_DEADLINE_S))


def _in_node(hardware: Hardware, directory: Path, repeat: int, live: runs.Run) -> Times:
    content = directory / "job"
    content.mkdir()
    shutil.copy(Path(driver.__file__), content / "driver.py")
    image = disk.from_directory(content, room_mib=_ROOM_MIB)
    said: list[bytes] = []
    command = f"mkdir -p {job.MOUNT} && mount /dev/vdb {job.MOUNT} && exec python3 -IS {job.MOUNT}/driver.py {repeat}"
    with booted(hardware, directory, image, live.own) as node:
        status = node.shell.run(command, total_s=_DEADLINE_S, silence_s=_SILENCE_S, output=said.append)
    text = b"".join(said).decode(errors="replace")
    if status:
        raise MachineError("process starts could not be measured in the node", tail(text))
    return _parsed(text)


def _parsed(text: str) -> Times:
    """The driver's answer, which is the last line that is printed."""
    times: dict[str, list[float]] = json.loads(text.splitlines()[-1])
    return times
