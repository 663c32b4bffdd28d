"""Repositories and profile, looked at before Portage reads them: it ends at some faults without a name for them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from cluster.errors import InputError
from cluster.master import keepgoing, portagelib, trees
from cluster.model import LeftOut, Repository

# Repositories.


def check_repositories(repositories: Sequence[Repository]) -> None:
    """Raise InputError for the first that cannot be used with the others."""
    names = [repository.name for repository in repositories]
    for repository in repositories:
        if names.count(repository.name) > 1:
            raise InputError(f"repository {repository.name} is given twice", "leave one out")
        check_repository(repository)
        _check_masters(repository, names)


def usable(repositories: Sequence[Repository]) -> tuple[tuple[Repository, ...], tuple[LeftOut, ...]]:
    """Those that can be used together, and why others cannot: of two with one name it is the second.

    Raises InputError for the first if there is none.
    """
    kept: list[Repository] = []
    problems: list[tuple[Repository, InputError]] = []
    for repository in repositories:
        try:
            if repository.name in {one.name for one in kept}:
                raise InputError(f"repository {repository.name}: {repository.location} has a name that is taken")
            check_repository(repository)
        except InputError as error:
            problems.append((repository, error))
        else:
            kept.append(repository)
    while lacking := list(_lacking(kept)):
        problems += lacking
        kept = [repository for repository in kept if repository not in [one for one, _ in lacking]]
    if problems and not kept:
        raise problems[0][1]
    return tuple(kept), tuple(keepgoing.left_out(f"repository {one.name}", error) for one, error in problems)


def _lacking(repositories: Sequence[Repository]) -> Iterator[tuple[Repository, InputError]]:
    for repository in repositories:
        try:
            _check_masters(repository, [one.name for one in repositories])
        except InputError as error:
            yield repository, error


def _check_masters(repository: Repository, names: Sequence[str]) -> None:
    for master in portagelib.masters(repository):
        if master not in names:
            raise InputError(
                f"repository {repository.name} builds on repository {master}, which is not given",
                f"add --repo {master}=DIR, or take it from `masters` in {repository.location}/metadata/layout.conf",
            )


def check_repository(repository: Repository) -> None:
    """Raise InputError if it cannot be read. It is not looked into its packages."""
    name, location = repository.name, repository.location
    if not location.is_dir():
        raise _no_directory(name, location)
    for inside in ("profiles/repo_name", "profiles/categories", "metadata/layout.conf", "sets.conf"):
        _check_file(name, location / inside)
    trees.check_name(name, location)
    trees.check_whole(name, location)
    if not portagelib.valid_repository(name):
        raise InputError(f"repository {name}: Portage takes no such name", "use letters, digits, - and _")
    if problem := portagelib.sets_problem(repository):
        raise InputError(f"repository {name}: {location}/sets.conf cannot be read", f"mend it: {problem}")
    for category in _words(location / "profiles/categories"):
        _check_directory(name, location / category)


def _no_directory(name: str, location: Path) -> InputError:
    if os.path.lexists(location):
        what = "a link that leads nowhere" if location.is_symlink() else "no directory"
        return InputError(f"repository {name}: {location} is {what}", "mend its path")
    return InputError(
        f"repository {name}: there is no directory {location}",
        f"mend its path, or fetch it with `cluster tree sync {name}` if the configuration says how",
    )


def _check_file(name: str, path: Path) -> None:
    if os.path.lexists(path) and not (path.is_file() and os.access(path, os.R_OK)):
        raise InputError(f"repository {name}: {path} cannot be read", "make it a file that you may read")


def _check_directory(name: str, path: Path) -> None:
    if os.path.lexists(path) and not (path.is_dir() and os.access(path, os.R_OK | os.X_OK)):
        raise InputError(f"repository {name}: {path} cannot be read", "make it a directory that you may read")


def _words(file: Path) -> list[str]:
    """The lines of a file of a profile, without comments."""
    if not file.is_file():
        return []
    lines = (line.partition("#")[0].strip() for line in file.read_text(errors="replace").splitlines())
    return [line for line in lines if line]


# The profile.


def check_profile(profile: Path, repositories: Sequence[Repository]) -> None:
    """Raise InputError unless `profile` and its parents (PMS 5.2.1) are there, lead to an end, and can be parsed."""
    if not profile.is_dir():
        raise InputError(f"there is no profile {profile}", "name a profile's directory with --profile")
    _check_profile(profile, (), repositories, set())


def _check_profile(profile: Path, way: tuple[Path, ...], repositories: Sequence[Repository], done: set[Path]) -> None:
    """`way` leads to `profile`; those in `done` are good."""
    defaults = profile / "make.defaults"
    if defaults.is_symlink() and not defaults.exists():
        raise InputError(f"{defaults} is a link that leads nowhere", "mend it")
    if defaults.is_file() and (problem := portagelib.config_problem(defaults)):
        raise InputError(f"{defaults} cannot be read", f"mend it: {problem}")
    here = (*way, profile.resolve())
    for line in _words(profile / "parent"):
        parent = _parent(profile, line, repositories)
        if not parent.is_dir():
            raise InputError(
                f"profile {profile}: its parent {parent} is not there", f"mend the line {line} of {profile}/parent"
            )
        if (real := parent.resolve()) in here:
            circle = " -> ".join(map(str, (*here[here.index(real) :], real)))
            raise InputError(f"profile {profile} is a parent of itself: {circle}", f"take {line} from {profile}/parent")
        if real not in done:
            _check_profile(parent, here, repositories, done)
    done.add(profile.resolve())


def _parent(profile: Path, line: str, repositories: Sequence[Repository]) -> Path:
    """The directory that `line` of the file `parent` stands for, as REPOSITORY:PATH or a path."""
    name, colon, inside = line.partition(":")
    if not colon or line.startswith("/"):
        return Path(os.path.normpath(profile / line))
    for repository in repositories:
        if repository.name == name or (not name and profile.resolve().is_relative_to(repository.location.resolve())):
            return repository.location / "profiles" / inside
    raise InputError(
        f"profile {profile} has the parent {line}, of a repository that is not given", f"add --repo {name}=DIR"
    )
