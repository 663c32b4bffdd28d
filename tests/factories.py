"""Plans and packages for tests, with everything that a test does not care about filled in."""

from __future__ import annotations

import functools
from pathlib import Path, PurePosixPath
from typing import Any

from cluster.master.history import Build
from cluster.model import Compiles, Cpv, Outcome, Package, Plan, Repository, Usage, Verdict
from cluster.node import sysroot
from cluster.node.sandbox import Sandbox
from cluster.node.sysroot import Root


def package(cpv: str, *requires: str, **fields: Any) -> Package:
    """A package that needs `requires` in the node; `fields` are those of Package."""
    values: dict[str, Any] = {
        "slot": "0",
        "use": (),
        "iuse": (),
        "repository": "test",
        "ebuild": Path("/repo") / f"{cpv}.ebuild",
        "distfiles": (),
        **fields,
    }
    return Package(cpv=Cpv(cpv), requires=tuple(map(Cpv, requires)), **values)


def plan(*packages: Package, **fields: Any) -> Plan:
    """A plan for arm64 over `packages`, which must be in order."""
    values: dict[str, Any] = {
        "target": "arm64",
        "chost": "aarch64-linux-gnu",
        "repositories": (Repository("test", Path("/repo")),),
        "profile": Path("/repo/profiles/arm64"),
        **fields,
    }
    return Plan(packages=packages, **values)


def failure(cpv: Cpv, **fields: Any) -> Outcome:
    """How `cpv` failed in its configure phase on node-1, every field filled in."""
    values: dict[str, Any] = {
        "node": "node-1",
        "attempt": 1,
        "phases": (("boot", 7.0), ("configure", 30.0)),
        "seconds": 41.5,
        "usage": Usage(cpu_s=60.5, memory_mib=700.0, disk_mib=250.5),
        "jobs": 2,
        "source_bytes": 80000,
        "compiles": Compiles(3, 1, 2),
        "log": Path("/logs/b.log"),
        "reason": "configure failed",
        **fields,
    }
    return Outcome(cpv, Verdict.FAILED, **values)


def past(cpv: str, *seconds: float, **fields: Any) -> list[Build]:
    """Builds of `cpv` for arm64 that took `seconds`, one after the other; `fields` are those of Build."""
    values: dict[str, Any] = {"target": "arm64", "verdict": Verdict.BUILT, **fields}
    first = values.pop("ended", 1000.0)
    return [Build(cpv=Cpv(cpv), ended=first + number, seconds=took, **values) for number, took in enumerate(seconds)]


def host_sandbox() -> Sandbox:
    """This machine's own root in the place of a composed one: its compiler is the node's own."""
    places = ("/usr", "/lib", "/lib64", "/bin", "/etc/alternatives")
    binds = tuple((Path(place), PurePosixPath(place)) for place in places if Path(place).exists())
    return Sandbox(binds, {"PATH": "/usr/bin:/bin"})


@functools.cache
def host_root() -> Root:
    """This machine's own root as a sealed one, with its compiler's search paths."""
    sandbox = host_sandbox()
    include, libraries = sysroot.search(sandbox)
    return Root(Path("/"), sandbox, "this machine", frozenset(), "", include, libraries, "/usr/bin/ld")
