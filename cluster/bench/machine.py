"""What a benchmark's numbers are worth is a matter of the machine: its facts, for every report."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()  # arm64 kernels name no model


def facts(qemu: str = "") -> dict[str, str | int]:
    """The host's processor, its usable cores, the version of the nodes' QEMU where there are any, the host's kernel."""
    nodes = {"qemu": qemu} if qemu else {}
    return {"cpu": _cpu(), "cores": len(os.sched_getaffinity(0)), **nodes, "kernel": platform.release()}
