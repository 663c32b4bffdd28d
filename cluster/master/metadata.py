"""The metadata cache of ebuild repositories (PMS 14.3), which spares Portage the sourcing of ebuilds.

Portage checks and generates it, in a child process: it forks, and turns its own standard streams.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import portage
from _emerge.MetadataRegen import MetadataRegen
from portage.cache.cache_errors import CacheError
from portage.util._eventloop.global_event_loop import global_event_loop

from cluster.errors import InputError
from cluster.master import portagelib
from cluster.model import Repository
from cluster.process import find_program, run

_DEADLINE_S = 4 * 3600.0  # each takes 0.08 s of a processor: 40 minutes for 30,000 that have no entry
_SILENCE_S = 120.0  # no ebuild takes a second
_CONFINED = ("--dev-bind", "/", "/", "--unshare-pid", "--proc", "/proc", "--die-with-parent")
"""Portage puts each ebuild's bash into a session of its own: only the end of its process namespace ends all."""


@dataclass(frozen=True, slots=True)
class Broken:
    """An ebuild that Portage cannot read."""

    ebuild: str
    reason: str


@dataclass(frozen=True, slots=True)
class Metadata:
    """How many ebuilds of a repository have which kind of entry, and what became of those without a fresh one."""

    fresh: int
    stale: int
    """The ebuild, or an eclass of it, is another than the entry was made from."""
    missing: int
    generated: int = 0
    """Of the fresh ones."""
    broken: tuple[Broken, ...] = ()

    @property
    def ebuilds(self) -> int:
        """All ebuilds."""
        return self.fresh + self.stale + self.missing


@dataclass(frozen=True, slots=True)
class Scope:
    """Where entries are looked up and written."""

    repositories: tuple[Repository, ...]
    """The repository and those that its eclasses come from."""
    cache: Path | None
    """Portage's depcache, in which entries of a repository are that is not ours to write in; None: they are in it."""
    work: Path
    """Scratch."""


def look(scope: Scope, name: str) -> Metadata:
    """What there is of the repository called `name`. Raises CommandFailed."""
    return _ask(scope, name, generate=False)


def generate(scope: Scope, name: str) -> Metadata:
    """Generate the entries that are stale or missing, as many at once as there are processors.

    A broken ebuild stops nothing. Raises CommandFailed.
    """
    return _ask(scope, name, generate=True)


def check_masters(repository: Repository, names: Sequence[str]) -> None:
    """Raise InputError if `repository` builds on one that is not of `names`: its eclasses would be missing."""
    for master in portagelib.masters(repository):
        if master not in names:
            raise InputError(
                f"repository {repository.name} builds on repository {master}, which is not there",
                f"add {master} to [repositories], or take it from `masters` in metadata/layout.conf",
            )


def _ask(scope: Scope, name: str, *, generate: bool) -> Metadata:
    """Have the child process do it."""
    request = {
        "repositories": [(repository.name, str(repository.location)) for repository in scope.repositories],
        "cache": str(scope.cache or ""),
        "work": str(scope.work),
        "name": name,
        "generate": generate,
    }
    argv = [find_program("bwrap", "bubblewrap"), *_CONFINED, sys.executable, "-m", __name__, json.dumps(request)]
    told = run(argv, deadline_s=_DEADLINE_S)
    found = json.loads(told)
    return Metadata(**{**found, "broken": tuple(Broken(**broken) for broken in found["broken"])})


# The child process.


def main(request: dict[str, Any]) -> Metadata:
    """What `request` asks for."""
    repositories = tuple(Repository(name, Path(location)) for name, location in request["repositories"])
    work = Path(request["work"])
    place = portagelib.Place(
        root=work / "place",
        repositories=repositories,
        profile=_profile(work / "profile"),
        installed=work / "installed",
        depcache=Path(request["cache"]) if request["cache"] else None,
    )
    place.installed.mkdir(parents=True, exist_ok=True)
    with portagelib.opened(place) as target, _ebuilds(target, request["name"]) as ebuilds:
        if not request["generate"]:
            return ebuilds.look()
        return ebuilds.generate(inside=not request["cache"])


def _profile(directory: Path) -> Path:
    """A profile that says nothing: metadata depends on none."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "eapi").write_text("8\n")
    return directory


@dataclass(slots=True)
class _Read:
    """What became of the ebuilds that are `wanted`; called by Portage for each that it has read."""

    wanted: Mapping[str, str]
    caches: Sequence[Any]
    """Where entries are written; Portage writes its depcache itself."""
    done: set[str] = field(default_factory=set)
    reasons: dict[str, str] = field(default_factory=dict)
    """Why some were not read, where Portage would not say it again."""
    ended: set[str] = field(default_factory=set)

    def __call__(self, cpv: str, tree: str, found: Any, source: Any, eapi_known: bool) -> None:
        self.ended.add(cpv)
        if cpv not in self.wanted or found is None:
            return
        if not eapi_known:
            self.reasons[cpv] = f"EAPI {found['EAPI']} is not one that Portage {portage.VERSION} knows"
            return
        for cache in self.caches:
            cache[cpv] = {**found, f"_{cache.validation_chf}_": getattr(source, cache.validation_chf)}
        self.done.add(cpv)


@dataclass(slots=True)
class _Ebuilds:
    """The ebuilds of one repository, as Portage sees them."""

    target: portagelib.Target
    name: str
    portdb: Any
    """Limited to this repository."""

    def look(self) -> Metadata:
        kinds = list(self._kinds().values())
        return Metadata(kinds.count("fresh"), kinds.count("stale"), kinds.count("missing"))

    def _kinds(self) -> dict[str, str]:
        with portagelib.listening():
            return {cpv: self._kind(cpv) for cp in self.portdb.cp_all() for cpv in self.portdb.cp_list(cp)}

    def _kind(self, cpv: str) -> str:
        tree = self.portdb.porttrees[0]
        found, _ = self.portdb._pull_valid_cache(cpv, self.portdb.findname(cpv), tree)
        if found is not None:
            return "fresh"
        caches = (self.portdb._pregen_auxdb.get(tree), self.portdb.auxdb[tree])
        return "stale" if any(cache is not None and cpv in cache for cache in caches) else "missing"

    def generate(self, *, inside: bool) -> Metadata:
        kinds = self._kinds()
        wanted = {cpv: kind for cpv, kind in kinds.items() if kind != "fresh"}
        caches = self._own_caches() if inside else []
        read = _Read(wanted, caches)
        with portagelib.listening() as said:
            if wanted:
                self._regenerate(wanted, read, elsewhere=not inside)
            for cache in caches:
                _prune(cache, kinds)
        left = [cpv for cpv in wanted if cpv not in read.done]
        stale = sum(wanted[cpv] == "stale" for cpv in left)
        reasons = [(cpv, read.reasons.get(cpv) or self._complaint(cpv, said.text)) for cpv in left]
        broken = tuple(Broken(self.portdb.findname(cpv), reason) for cpv, reason in reasons)
        return Metadata(len(kinds) - len(left), stale, len(left) - stale, len(read.done), broken)

    def _own_caches(self) -> list[Any]:
        """The caches inside the repository, of each format that its layout.conf names."""
        repository = self.portdb.repositories.get_repo_for_location(self.portdb.porttrees[0])
        return list(repository.iter_pregenerated_caches(self.portdb._known_keys, force=True, readonly=False))

    def _regenerate(self, wanted: Mapping[str, str], read: _Read, *, elsewhere: bool) -> None:
        names = sorted({portage.cpv_getkey(cpv) for cpv in wanted})

        scheduler = MetadataRegen(
            self.portdb,
            cp_iter=iter(names),
            consumer=read,
            write_auxdb=elsewhere,
            max_jobs=len(os.sched_getaffinity(0)),
            main=True,
        )
        global_event_loop().run_until_complete(_ended(scheduler, read))

    def _complaint(self, cpv: str, said: str) -> str:
        """Why `cpv` has no entry. Portage speaks of a Manifest once only, which `said` has, and names the ebuild."""
        ebuild = self.portdb.findname(cpv)
        lines = [line.lstrip(" *").rstrip() for line in said.splitlines() if ebuild in line and "Manifest" in line]
        reason = lines[0] if lines else self.target.complaint(cpv, self.name)
        return reason.replace(f"{ebuild}: ", "") or "its entry cannot be written"


async def _ended(scheduler: Any, read: _Read) -> None:
    """Run Portage's scheduler to its end; ebuilds that do not end are broken, as is what waits behind them."""
    scheduler.start()
    waiting = asyncio.ensure_future(scheduler.async_wait())
    before = -1
    while not waiting.done() and before < len(read.ended):
        before = len(read.ended)
        await asyncio.wait({waiting}, timeout=_SILENCE_S)
    if waiting.done():
        return
    hanging = {str(task.cpv) for task in scheduler._running_tasks}
    for cpv in set(read.wanted) - read.ended:
        read.reasons[cpv] = f"it does not end within {_SILENCE_S:g} s" if cpv in hanging else "others did not end"
    scheduler.terminate()
    await waiting


@contextmanager
def _ebuilds(target: portagelib.Target, name: str) -> Iterator[_Ebuilds]:
    portdb = portage.portdbapi(mysettings=target.settings)
    portdb.porttrees = [portdb.repositories.treemap[name]]
    try:
        yield _Ebuilds(target, name, portdb)
    finally:
        portdb.close_caches()


def _prune(cache: Any, ebuilds: dict[str, str]) -> None:
    """Delete the entries of ebuilds that are gone."""
    for cpv in [cpv for cpv in cache if cpv not in ebuilds]:
        try:
            del cache[cpv]
        except (KeyError, CacheError):  # gone already
            continue


if __name__ == "__main__":
    print(json.dumps(asdict(main(json.loads(sys.argv[1])))))
