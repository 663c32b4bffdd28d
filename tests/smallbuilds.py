"""Builds of one small ebuild with this machine's own compiler and Portage, by any node driver."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from factories import package as make_package
from repos import write_repository

from cluster import paths
from cluster.node import container
from cluster.node.build import Built, Limits
from cluster.node.drivers import Driver
from cluster.node.job import CompileAccess, Materials, Settings

LIMITS = Limits(total_s=120, silence_s=60)
UNPACK = "src_unpack() { mkdir -p ${S}; }\n"
Heard = Callable[[bytes], object]


class Builds:
    """Builds of ebuilds with a body, each in a directory that has the test's name."""

    def __init__(self, place: Path, driver: Driver) -> None:
        self.directory = place / os.environ["PYTEST_CURRENT_TEST"].split("::")[1].split()[0][:60]
        self.directory.mkdir()
        self.driver = driver
        self.groups: list[int] = []
        self.entered: list[str] = []
        self.said = b""

    def build(
        self,
        body: str,
        *requires: Path,
        access: CompileAccess | None = None,
        whenever: Heard = lambda said: None,
        limits: Limits = LIMITS,
    ) -> Built:
        def output(data: bytes) -> None:
            self.said += data
            whenever(data)

        ebuilds = {"app/small-1": {"KEYWORDS": container.host_arch(), "_body": UNPACK + body}}
        repository = write_repository(self.directory / "repo", ebuilds, name="small")
        ebuild = repository.location / "app/small/small-1.ebuild"
        package = make_package("app/small-1", repository="small", ebuild=ebuild)
        profile = paths.data("profiles", container.host_arch())
        (self.directory / "work").mkdir()
        prerequisites = self.driver.compose(requires) if requires else None
        return self.driver.build(
            package,
            Settings(container.host_chost(), profile, (repository,), jobs=1, distcc_hosts="10.0.2.2:3632/4"),
            limits,
            directory=self.directory / "work",
            materials=Materials(self.directory, {}, "", compile=access, prerequisites=prerequisites),
            output=output,
            own=self.groups.append,
            entered=self.entered.append,
        )
