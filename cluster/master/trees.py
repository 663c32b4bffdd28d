"""The ebuild repositories of the configuration: fetched, checked, their metadata generated, their revision told.

Beside a tree lie `.NAME.lock` and, while it is synced, `.NAME.new` and `.NAME.old`: what is there is
always the whole of one revision, or known not to be (git.half_done).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from cluster import config, paths
from cluster.errors import ClusterError, CommandFailed, InputError, MachineError
from cluster.master import git, metadata
from cluster.model import Repository
from cluster.process import find_program, run

_RSYNC_DEADLINE_S = 4 * 3600.0
_RSYNC_SILENCE_S = 120
_CONNECT_S = 30
_CACHE = "metadata/md5-cache"
_STAMPS = ("metadata/timestamp.commit", "metadata/timestamp.chk")
"""What mirrors write into a tree: its commit and time, or the time alone."""


class Reporter(Protocol):
    """Tells a person what goes on; `report.Reporter` is one."""

    def step(self, text: str) -> None:
        """Something else begins, which may take a while."""
        ...

    def warn(self, text: str) -> None:
        """Something a person should know, which stops nothing."""
        ...

    def fail(self, text: str) -> None:
        """What had begun came to nothing; the rest goes on."""
        ...


@dataclass(frozen=True, slots=True)
class Tree:
    """A repository of the configuration, resolved."""

    name: str
    sync: str
    """`git`, `rsync` or `directory`."""
    location: Path
    uri: str = ""
    commit: str = ""
    """The one it is pinned to."""

    @property
    def ours(self) -> bool:
        """Whether we fetch it, and may write its metadata cache into it."""
        return self.sync != "directory"

    @property
    def repository(self) -> Repository:
        """What the resolver is given."""
        return Repository(self.name, self.location)


@dataclass(frozen=True, slots=True)
class Places:
    """Where things about trees are kept."""

    trees: Path
    """Of each tree without a directory of its own."""
    cache: Path
    """Portage's depcache of the trees that are not ours."""
    synced: Path
    """A file NAME for each, touched when it was synced."""


def places(directories: paths.Directories) -> Places:
    """The places in `directories`."""
    cache = directories.cache
    return Places(cache / "trees", cache / "metadata", directories.state / "trees")


def configured(repositories: Mapping[str, config.Tree], where: Places) -> tuple[Tree, ...]:
    """The trees that `[repositories]` names, in its order."""
    return tuple(_tree(name, wanted, where) for name, wanted in repositories.items())


def _tree(name: str, wanted: config.Tree, where: Places) -> Tree:
    location = Path(wanted.directory or where.trees / name).expanduser().absolute()
    if wanted.sync != "directory":
        location = location.resolve()  # a link would be replaced, not what it leads to
    return Tree(name, wanted.sync, location, wanted.uri, wanted.commit)


def chosen(trees: Sequence[Tree], names: Sequence[str]) -> tuple[tuple[Tree, ...], tuple[InputError, ...]]:
    """Those of `trees` that `names` names, all if it is empty, and what is wrong with the other names."""
    known = {tree.name: tree for tree in trees}
    listed = ", ".join(known) or "none"
    wrong = [InputError(f"there is no repository {name!r}", f"repositories: {listed}") for name in names]
    found = tuple(known[name] for name in dict.fromkeys(names) if name in known)
    unknown = tuple(error for name, error in zip(names, wrong, strict=True) if name not in known)
    return (found if names else tuple(trees)), unknown


# What is there.


def check_name(name: str, location: Path, said: str | None = None) -> None:
    """Raise InputError unless the repository at `location` calls itself `name`.

    `said` is the content of its profiles/repo_name where that is not to be read from `location`.
    """
    if said is None:
        file = location / "profiles/repo_name"
        said = file.read_text(errors="replace") if file.is_file() else ""
    if not said.strip():
        raise InputError(
            f"{location} is no ebuild repository: it has no profiles/repo_name",
            f"put the name {name} in that file, or mend the path",
        )
    if said.strip() != name:
        mend = f"call it {said.strip()}" if said.strip().isprintable() else f"mend {location}/profiles/repo_name"
        raise InputError(f"repository {name} at {location} calls itself {said.strip()!r}", mend)


def check_whole(name: str, location: Path) -> None:
    """Raise InputError if a sync of the tree at `location` was begun and not ended."""
    if git.half_done(location):
        raise InputError(f"repository {name}: a sync of {location} did not end", f"run: cluster tree sync {name}")


def revision(location: Path) -> str:
    """Which revision of its repository is at `location`, "" if nothing is.

    A git commit, with `+changes` where files differ from it; else what the mirror wrote: its commit, or
    the time of its copy; else `files:` and a hash over names, sizes and times. Reads only.
    """
    if not location.is_dir():
        return ""
    with contextlib.suppress(MachineError):  # without git, files and stamps still tell
        if commit := git.revision(location):
            return commit
    for stamp in _STAMPS:
        with contextlib.suppress(OSError):
            if words := (location / stamp).read_text(errors="replace").split():
                return words[0] if stamp.endswith("commit") else " ".join(words)
    found = hashlib.sha256()
    for line in _files(location, ""):
        found.update(line.encode(errors="surrogateescape"))
    return f"files:{found.hexdigest()[:12]}"


@contextlib.contextmanager
def revising(repositories: Sequence[Repository]) -> Iterator[Callable[[], tuple[Repository, ...]]]:
    """Find the revisions while the body does something else; what it is given returns the repositories with them.

    Git takes 0.5 s to compare 80,000 files with their commit, and a plan over so many takes longer anyway.
    """
    with ThreadPoolExecutor(max(len(repositories), 1)) as pool:
        found = [(one, pool.submit(revision, one.location)) for one in repositories]
        yield lambda: tuple(replace(one, revision=told.result()) for one, told in found)


def _files(directory: Path, inside: str) -> Iterator[str]:
    """A line for each file below `directory`: name, size and time of change."""
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            path = f"{inside}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                if path not in (".git", _CACHE):
                    yield from _files(Path(entry.path), f"{path}/")
            else:
                status = entry.stat(follow_symlinks=False)
                yield f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n"


# Syncing.


def fetch(tree: Tree) -> None:
    """Bring the files of `tree` to the revision it is to have.

    Raises InputError, MachineError or OSError; what was there before is then still there.
    """
    if not tree.ours:
        if not tree.location.is_dir():
            raise InputError(f"repository {tree.name}: there is no directory {tree.location}", "mend its path")
        check_name(tree.name, tree.location)
        return
    with paths.locked(_beside(tree, "lock")):
        if tree.sync == "git":
            _fetch_git(tree)
        else:
            _fetch_rsync(tree)


@contextlib.contextmanager
def _fetching(tree: Tree) -> Iterator[None]:
    """Say what a failed program was for, and the first thing that it said."""
    try:
        yield
    except CommandFailed as error:
        said = (error.mend or error.what).partition(" | ")[0].removeprefix("fatal: ")
        mend = f"{said}; mend its uri, or try again when it can be reached"
        raise MachineError(f"repository {tree.name}: {tree.uri} cannot be fetched", mend) from error


def _beside(tree: Tree, kind: str) -> Path:
    return tree.location.with_name(f".{tree.location.name}.{kind}")


def _is_there(tree: Tree) -> bool:
    return tree.location.is_dir() and any(tree.location.iterdir())


def _fetch_git(tree: Tree) -> None:
    if not _is_there(tree):
        new = git.Clone(_beside(tree, "new"), tree.uri)
        shutil.rmtree(new.directory, ignore_errors=True)
        new.create()
        _move_to_commit(tree, new)
        new.directory.rename(tree.location)
        return
    if not (tree.location / ".git").is_dir():
        raise InputError(
            f"repository {tree.name}: {tree.location} is there and is no git work tree",
            "move it away, or name another directory",
        )
    if not git.half_done(tree.location) and (changed := git.changes(tree.location)):
        raise InputError(
            f"repository {tree.name}: {tree.location} has local changes ({_first(changed)})",
            f"keep them with: git -C {tree.location} stash --include-untracked",
        )
    _move_to_commit(tree, git.Clone(tree.location, tree.uri))


def _move_to_commit(tree: Tree, clone: git.Clone) -> None:
    with _fetching(tree):
        commit = clone.fetch(tree.commit)
    check_name(tree.name, clone.directory, clone.read(commit, "profiles/repo_name"))
    clone.checkout(commit)


def _first(changed: Sequence[str]) -> str:
    more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
    return f"{changed[0]}{more}"


def _fetch_rsync(tree: Tree) -> None:
    """Make a new tree beside the old one, of the same files where they did not change, and put it in its place."""
    new, old = _beside(tree, "new"), _beside(tree, "old")
    if old.is_dir() and not tree.location.exists():
        old.rename(tree.location)
    shutil.rmtree(old, ignore_errors=True)
    there = _is_there(tree)
    if there and (tree.location / ".git").exists():
        raise InputError(
            f"repository {tree.name}: {tree.location} is a git work tree", 'say sync = "git", or name another directory'
        )
    if there:
        check_name(tree.name, tree.location)
    with _fetching(tree):
        run(_rsync(tree, new), deadline_s=_RSYNC_DEADLINE_S)
    check_name(tree.name, new)
    if there:
        tree.location.rename(old)
    new.rename(tree.location)
    _keep_entries(old / _CACHE, tree.location / _CACHE)
    shutil.rmtree(old, ignore_errors=True)


def _keep_entries(old: Path, new: Path) -> None:
    """Move what only the old metadata cache has, which is what we generated, to the new one."""
    for entry in old.glob("*/*"):
        kept = new / entry.relative_to(old)
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            entry.rename(kept)


def _rsync(tree: Tree, new: Path) -> list[str | Path]:
    """The command. It copies no devices, and no link that leads out of the tree."""
    daemon = tree.uri.startswith("rsync://") or "::" in tree.uri.partition("/")[0]
    connect = [f"--contimeout={_CONNECT_S}"] if daemon else []
    return [
        find_program("rsync", "rsync"),
        *("-rlpt", "--safe-links", "--delete", "--delete-excluded", f"--timeout={_RSYNC_SILENCE_S}", *connect),
        "--modify-window=-1",  # nanoseconds: an ebuild is often written twice in a second, and stays of one size
        *("--exclude=/.git", "--exclude=/distfiles", "--exclude=/packages"),
        f"--link-dest={tree.location}",
        "--",
        f"{tree.uri.rstrip('/')}/",
        new,
    ]


def check_idle(state: Path) -> None:
    """Raise InputError while a build runs that has its state in `state`: it reads the trees to its end."""
    for lock in sorted(state.glob("build-*.lock")):
        with lock.open() as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(f"a build is running in {state} and reads the repositories", "wait for it") from error


# What the verbs do.


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of a tree."""

    tree: Tree
    revision: str = ""
    metadata: metadata.Metadata | None = None
    """None where it could not be read."""
    synced: float | None = None
    """When it was last, in seconds since 1970."""
    problem: str = ""
    """What stands in its way, in one line."""
    seconds: float = 0.0
    """That syncing took."""
    metadata_seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether nothing is wrong with it or its ebuilds."""
        return not self.problem and not (self.metadata and self.metadata.broken)

    def json(self) -> dict[str, Any]:
        """One entry of `cluster tree status --json` and `cluster tree sync --json`."""
        found = self.metadata
        return {
            "name": self.tree.name,
            "sync": self.tree.sync,
            "uri": self.tree.uri,
            "directory": str(self.tree.location),
            "revision": self.revision,
            "pinned": bool(self.tree.commit),
            "ebuilds": found.ebuilds if found else None,
            "metadata": asdict(found) if found else None,
            "synced": self.synced,
            "problem": self.problem,
            "seconds": self.seconds,
            "metadata_seconds": self.metadata_seconds,
        }


def sync(trees: Sequence[Tree], among: Sequence[Tree], where: Places, reporter: Reporter) -> tuple[Status, ...]:
    """Fetch `trees` and generate their metadata; what fails with one does not stop the next.

    `among` are all trees, in which their masters are looked for.
    """
    fetched = [_fetched(tree, where, reporter) for tree in trees]
    present = [tree for tree in among if _usable(tree)]
    return tuple(_with_metadata(status, present, where, reporter, generate=True) for status in fetched)


def status(trees: Sequence[Tree], among: Sequence[Tree], where: Places, reporter: Reporter) -> tuple[Status, ...]:
    """How `trees` stand. Changes nothing."""
    present = [tree for tree in among if _usable(tree)]
    found = (_seen(tree, where, reporter) for tree in trees)
    return tuple(_with_metadata(one, present, where, reporter, generate=False) for one in found)


def _fetched(tree: Tree, where: Places, reporter: Reporter) -> Status:
    how = f"syncing {tree.name} from {tree.uri}" if tree.ours else f"looking at {tree.name} in {tree.location}"
    reporter.step(how)
    start = time.monotonic()
    problem = _problem(tree, fetch)
    if not problem and tree.ours:
        where.synced.mkdir(parents=True, exist_ok=True)
        (where.synced / tree.name).write_text(f"{tree.location}\n")
    if problem:
        reporter.fail(problem)
    return _told(tree, where, problem, time.monotonic() - start)


def _seen(tree: Tree, where: Places, reporter: Reporter) -> Status:
    if tree.ours and not _is_there(tree):
        return Status(tree)
    problem = _problem(tree, _check)
    if problem:
        reporter.fail(problem)
    return _told(tree, where, problem)


def _check(tree: Tree) -> None:
    if not tree.location.is_dir():
        raise InputError(f"repository {tree.name}: there is no directory {tree.location}", "mend its path")
    check_whole(tree.name, tree.location)
    check_name(tree.name, tree.location)


def _usable(tree: Tree) -> bool:
    return not _problem(tree, _check)


def _problem(tree: Tree, act: Callable[[Tree], None]) -> str:
    """Do it; returns what went wrong, in one line that names the tree, or ""."""
    try:
        act(tree)
    except (ClusterError, OSError) as error:
        return _line(tree, error)
    return ""


def _line(tree: Tree, error: Exception) -> str:
    said = " ".join(str(error).split())
    return said if re.search(rf"\b{tree.name}\b", said) else f"repository {tree.name}: {said}"


def _told(tree: Tree, where: Places, problem: str, seconds: float = 0.0) -> Status:
    try:
        found = revision(tree.location)
    except OSError:  # it cannot be read, which is the problem
        found = ""
    return Status(tree, found, synced=_synced(tree, where), problem=problem, seconds=round(seconds, 2))


def _synced(tree: Tree, where: Places) -> float | None:
    stamp = where.synced / tree.name
    try:
        return stamp.stat().st_mtime if stamp.read_text().strip() == str(tree.location) else None
    except FileNotFoundError:
        return None


def _with_metadata(
    known: Status, present: Sequence[Tree], where: Places, reporter: Reporter, *, generate: bool
) -> Status:
    if known.problem or known.tree not in present:
        return known
    tree = known.tree
    reporter.step(f"{'generating' if generate else 'reading'} the metadata of {tree.name}")
    start = time.monotonic()
    try:
        metadata.check_masters(tree.repository, [other.name for other in present])
        with tempfile.TemporaryDirectory(prefix="portage-cluster-") as scratch:
            cache = None if tree.ours else where.cache if generate or where.cache.is_dir() else Path(scratch) / "cache"
            scope = metadata.Scope(tuple(other.repository for other in present), cache, Path(scratch))
            found = (metadata.generate if generate else metadata.look)(scope, tree.name)
    except (ClusterError, OSError) as error:
        problem = _line(tree, error)
        reporter.fail(problem)
        return replace(known, problem=problem)
    for broken in found.broken:
        reporter.warn(f"{broken.ebuild}: {broken.reason}")
    return replace(known, metadata=found, metadata_seconds=round(time.monotonic() - start, 2))
