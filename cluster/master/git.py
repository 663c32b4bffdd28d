"""Git as the keeper of an ebuild repository: fetch one commit, check it out, say which one is there.

Nothing here asks a question: stdin is closed, there is no terminal, and every command has a deadline.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import CommandFailed, InputError
from cluster.process import find_program, run

_LOCAL_DEADLINE_S = 120.0
_CHECKOUT_DEADLINE_S = 900.0
_FETCH_DEADLINE_S = 3600.0
_CACHE = "metadata/md5-cache"
"""What `metadata` generates; in a repository's history it is nobody's change."""
_MARKER = "portage-cluster-checkout"
"""A file beside HEAD for as long as a checkout goes on, so that one that was killed is known."""
_NAMES_A_REPOSITORY = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
)
_OPTIONS = (
    "core.hooksPath=/dev/null",
    "gc.autoDetach=false",  # what outlives the command has no owner
    "maintenance.autoDetach=false",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=60",
    "advice.detachedHead=false",
)


def _git(directory: Path, *words: str, deadline_s: float = _LOCAL_DEADLINE_S) -> str:
    settings: list[str | Path] = [part for option in _OPTIONS for part in ("-c", option)]
    environment = {name: value for name, value in os.environ.items() if name not in _NAMES_A_REPOSITORY}
    environment |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}
    argv = [find_program("git", "git"), *settings, "-C", directory, *words]
    return run(argv, deadline_s=deadline_s, env=environment).strip()


def _succeeds(directory: Path, *words: str) -> bool:
    try:
        _git(directory, *words)
    except CommandFailed:
        return False
    return True


def changes(directory: Path) -> tuple[str, ...]:
    """The paths below `directory` that differ from its commit, new ones too; the metadata cache is left out."""
    told = _git(directory, "status", "--porcelain", "--", ".", f":(exclude){_CACHE}")
    return tuple(line.split(maxsplit=1)[1] for line in told.splitlines() if line.strip())


def revision(directory: Path) -> str:
    """The commit that `directory` is at, with `+changes` if files below it differ, or "" if it is under no git.

    A directory that git only ignores is not under it. Reads only; MachineError without git.
    """
    try:
        commit = _git(directory, "rev-parse", "--verify", "HEAD")
        _git(directory, "rev-parse", "--verify", "HEAD:./")
        return f"{commit}+changes" if changes(directory) else commit
    except CommandFailed:
        return ""


def half_done(directory: Path) -> bool:
    """Whether a checkout of the work tree `directory` was begun and not ended."""
    return (directory / ".git" / _MARKER).exists()


@dataclass(frozen=True, slots=True)
class Clone:
    """A work tree that has the commits of `uri`."""

    directory: Path
    uri: str

    def create(self) -> None:
        """Make it, empty."""
        self.directory.mkdir(parents=True)
        _git(self.directory, "init", "--quiet")

    def fetch(self, commit: str = "") -> str:
        """Fetch `commit`, or else what the remote's HEAD is; returns the commit.

        Only that commit is fetched, but for a clone that has its history. Raises InputError when
        `uri` has no such commit, CommandFailed when it cannot be reached.
        """
        _git(self.directory, "config", "remote.origin.url", self.uri)
        if not commit:
            self._fetch("HEAD")
            return _git(self.directory, "rev-parse", "--verify", "FETCH_HEAD^{commit}")
        if not self._has(commit):
            try:
                self._fetch(commit)
            except CommandFailed:  # not every server gives a commit by its hash
                self._fetch_everything()
        if not self._has(commit):
            raise InputError(f"{self.uri} has no commit {commit}", "mend the key commit, or leave it out")
        return commit

    def _has(self, commit: str) -> bool:
        return _succeeds(self.directory, "cat-file", "-e", f"{commit}^{{commit}}")

    @property
    def _shallow(self) -> bool:
        """Whether it has no more of the history than what was fetched."""
        is_new = not _succeeds(self.directory, "rev-parse", "--verify", "HEAD")
        return is_new or _git(self.directory, "rev-parse", "--is-shallow-repository") == "true"

    def _fetch(self, what: str) -> None:
        depth = ("--depth=1",) if self._shallow else ()
        words = ("fetch", "--quiet", "--no-tags", *depth, "origin", what)
        _git(self.directory, *words, deadline_s=_FETCH_DEADLINE_S)

    def _fetch_everything(self) -> None:
        cut_off = _git(self.directory, "rev-parse", "--is-shallow-repository") == "true"
        depth = ("--unshallow",) if cut_off else ()
        refs = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
        _git(self.directory, "fetch", "--quiet", *depth, "origin", *refs, deadline_s=_FETCH_DEADLINE_S)

    def read(self, commit: str, path: str) -> str:
        """The text of `path` in `commit`, or "" if it has none."""
        try:
            return _git(self.directory, "show", f"{commit}:{path}")
        except CommandFailed:
            return ""

    def checkout(self, commit: str) -> None:
        """Make the files those of `commit`. Branches stay where they are; what was changed is lost."""
        marker = self.directory / ".git" / _MARKER
        if marker.exists():
            (self.directory / ".git/index.lock").unlink(missing_ok=True)
        marker.write_text(f"{commit}\n")
        words = ("checkout", "--quiet", "--force", "--detach", commit)
        _git(self.directory, *words, deadline_s=_CHECKOUT_DEADLINE_S)
        marker.unlink()
