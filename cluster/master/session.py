"""What one invocation works with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from cluster import paths, target, userconfig
from cluster.config import Config
from cluster.master import resolver
from cluster.model import Repository


@dataclass(frozen=True, slots=True)
class Session:
    """An invocation's configuration, resolved: nothing is looked up twice."""

    config: Config
    directories: paths.Directories
    binhost: Path
    """The directory of the target's binhost."""
    target: target.Target
    repositories: tuple[Repository, ...]
    profile: Path
    installed: Path | None
    emptytree: bool
    name: str = ""
    """What its plans are called where there are several."""
    user: Path | None = None
    """The user's own directory like /etc/portage."""
    siblings: tuple[Path, ...] = ()
    """Other binhosts, to take from what they have just as a build would make it."""
    order: resolver.Order = resolver.Order.NEWEST
    break_cycles: bool = False
    """Whether packages may be built twice, to break circles of dependencies."""
    stages: int = 1
    """2 to build everything once more in a stage of what came out."""

    @property
    def make_conf(self) -> str:
        """The user's own lines for make.conf."""
        return userconfig.make_conf(self.user, self.config.build.make_conf)

    @property
    def earlier(self) -> Session:
        """The same for the first round of a plan, which has a binhost of its own beside."""
        named = f"{self.name or self.target.name}-first"
        return replace(self, name=named, binhost=self.binhost.with_name(f"{self.binhost.name}-first"))

    @property
    def logs(self) -> Path:
        """The directory of its build logs."""
        return self.directories.logs / (self.name or self.target.name)

    @property
    def journal(self) -> Path:
        """The journal's file."""
        return self.directories.journal
