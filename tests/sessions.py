"""A session for tests: what is asked of the master, over a repository of one package."""

from __future__ import annotations

from pathlib import Path

from repos import write_repository

from cluster import config, paths, target
from cluster.master.session import Session
from cluster.node.installed import write_installed


def session_in(place: Path) -> Session:
    """One for arm64 over a repository with `app/a-1`, with neither stage nor binhost yet; all is in `place`."""
    repository = write_repository(place / "repo", {"app/a-1": {}})
    return Session(
        config=config.load(),
        directories=paths.Directories(place / "state", place / "cache", place / "binhosts"),
        binhost=place / "binhosts/arm64",
        target=target.load("arm64"),
        repositories=(repository,),
        profile=repository.location / "profiles/arm64",
        installed=write_installed((), place / "installed", "arm64"),
        emptytree=False,
    )
