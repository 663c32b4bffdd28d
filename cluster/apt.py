"""Debian packages and sources without root: a private apt state beside the machine's own.

Nothing under /etc or /var changes, and no mirror is named anywhere: the package sources are
derived from what the machine's own apt is set to.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import CommandFailed, MachineError
from cluster.paths import locked
from cluster.process import find_program, run

log = logging.getLogger(__name__)

_UPDATE_DEADLINE_S = 300.0
_DOWNLOAD_DEADLINE_S = 1800.0
_LISTS_FRESH_S = 24 * 3600.0
_FORMAT = "$(CODENAME) $(REPO_URI)"


class ArchiveUnreachable(MachineError):
    """The archive did not give its package lists, and there are no older ones."""


@dataclass(frozen=True, slots=True)
class Mirror:
    """The archive this machine's apt uses: its address and the codename of the release."""

    uri: str
    codename: str


@functools.cache
def machine_mirror() -> Mirror:
    """The distribution's main archive as this machine's apt is set to it.

    Raises MachineError where apt has no lists, as on a machine that never ran `apt-get update`.
    """
    told = run(
        [find_program("apt-get", "apt"), "indextargets", "--format", _FORMAT, "Created-By: Packages", "Origin: Debian"],
        deadline_s=60,
    )
    entries = [line.split(maxsplit=1) for line in told.splitlines() if line.strip()]
    base = next((entry for entry in entries if len(entry) == 2 and "-" not in entry[0]), None)
    if base is None:
        raise MachineError("this machine's apt knows no Debian archive", "run: apt-get update")
    return Mirror(uri=base[1], codename=base[0])


@dataclass(frozen=True, slots=True)
class PrivateApt:
    """An apt state of our own in `directory` for `suites` of the machine's mirror.

    `arch` is the Debian architecture, "" for the machine's own; `host_status` makes apt take
    the machine's installed packages into account (only what is missing is then downloaded).
    """

    directory: Path
    suites: tuple[str, ...]
    arch: str = ""
    host_status: bool = False
    sources: bool = False

    def _options(self) -> list[str]:
        options = {
            "Dir::Etc::sourcelist": self.directory / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::Etc::preferencesparts": "-",
            "Dir::State::Lists": self.directory / "lists",
            "Dir::Cache": self.directory / "cache",
            "Debug::NoLocking": "1",
            "APT::Sandbox::User": "",
            "APT::Update::Error-Mode": "any",  # else a failed update exits with 0
            "Acquire::Retries": "1",
            "Acquire::http::Timeout": "20",
            "Acquire::https::Timeout": "20",
        }
        if self.arch:
            options |= {"APT::Architecture": self.arch, "APT::Architectures": self.arch}
        if not self.host_status:
            options |= {"Dir::State::status": "/dev/null"}
        return [f"-o{key}={value}" for key, value in options.items()]

    def _apt_get(self, *words: str, deadline_s: float = _DOWNLOAD_DEADLINE_S, cwd: Path | None = None) -> str:
        return run([find_program("apt-get", "apt"), *self._options(), *words], deadline_s=deadline_s, cwd=cwd)

    def _exclusive(self) -> AbstractContextManager[None]:
        """One user of this state at a time, across processes (apt's own locking needs root)."""
        return locked(self.directory / "lock")

    def _update(self) -> None:
        mirror = machine_mirror()
        kind = "deb-src" if self.sources else "deb"
        text = "".join(f"{kind} {mirror.uri} {suite} main\n" for suite in self.suites)
        listing = self.directory / "sources.list"
        stamp = self.directory / "updated"
        old = stamp.exists() and listing.exists() and listing.read_text() == text
        if old and time.time() - stamp.stat().st_mtime < _LISTS_FRESH_S:
            return
        for name in ("lists/partial", "cache/archives/partial"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        if not old:
            stamp.unlink(missing_ok=True)
            listing.write_text(text)
        try:
            self._apt_get("update", deadline_s=_UPDATE_DEADLINE_S)
        except CommandFailed as error:
            if not old:
                raise ArchiveUnreachable(f"apt has no package lists of {', '.join(self.suites)}", error.mend) from error
            log.warning("package lists of %s stay as they are: %s", ", ".join(self.suites), error.mend)
        stamp.touch()

    def download(self, packages: Sequence[str], *, suite: str = "") -> tuple[Path, ...]:
        """Download `packages` and what they need that is missing; returns the .deb files.

        `suite` is preferred over the other suites for all of them. Raises MachineError.
        """
        with self._exclusive():
            self._update()
            archives = self.directory / "cache" / "archives"
            for old in archives.glob("*.deb"):
                old.unlink()
            prefer = ["-t", suite] if suite else []
            words = ["install", "--download-only", "-y", "--no-install-recommends", *prefer, *packages]
            with self._naming(packages):
                self._apt_get(*words)
            return tuple(sorted(archives.glob("*.deb")))

    def download_only(self, packages: Sequence[str], into: Path, *, suite: str = "") -> tuple[Path, ...]:
        """Download exactly `packages`, without what they need, into the directory `into`."""
        with self._exclusive():
            self._update()
            into.mkdir(parents=True, exist_ok=True)
            prefer = ["-t", suite] if suite else []
            with self._naming(packages):
                self._apt_get("download", *prefer, *packages, cwd=into)
            return tuple(sorted(into.glob("*.deb")))

    def depends(self, package: str, *, suite: str = "") -> tuple[str, ...]:
        """The names that `package` depends on, as apt-cache prints them."""
        words = self._field(package, "Depends", suite).split(",")
        return tuple(word.split()[0] for word in words if word.strip())

    def version(self, package: str, *, suite: str = "") -> str:
        """The version of `package` that a download would give. Raises MachineError if there is none."""
        with self._naming([package]):
            return self._field(package, "Version", suite)

    def _field(self, package: str, name: str, suite: str) -> str:
        """What the package lists say of `package` in the field `name`; "" if it has none."""
        with self._exclusive():
            self._update()
            prefer = [f"-oAPT::Default-Release={suite}"] if suite else []
            argv = [find_program("apt-cache", "apt"), *self._options(), *prefer, "show", "--no-all-versions", package]
            told = run(argv, deadline_s=60)
        start = f"{name}:"
        line = next((text for text in told.splitlines() if text.startswith(start)), start)
        return line.removeprefix(start).strip()

    def source_file(self, source: str, version: str, file: str, into: Path) -> Path:
        """Download the upstream archive `file` of the source package `source` into the directory `into`.

        It is taken from `version` if the suites still have that, else from any version that has
        the file: a release's point update replaces versions. Raises MachineError.
        """
        with self._exclusive():
            self._update()
            into.mkdir(parents=True, exist_ok=True)
            versions = self._source_versions(source, file)
            wanted = f"{source}={version if version in versions else versions[0]}"
            with self._naming([wanted]):
                self._apt_get("source", "--download-only", "--tar-only", wanted, cwd=into)
        path = into / file
        if not path.exists():
            raise MachineError(f"source package {wanted} did not come with {file}")
        return path

    def source_package(self, source: str, into: Path) -> None:
        """Download the archives of the newest version of `source` into the directory `into`. Raises MachineError."""
        with self._exclusive():
            self._update()
            into.mkdir(parents=True, exist_ok=True)
            with self._naming([source]):
                self._apt_get("source", "--download-only", source, cwd=into)

    def _source_versions(self, source: str, file: str) -> tuple[str, ...]:
        """The versions of source package `source` that have `file`; MachineError if none has."""
        with self._naming([source]):
            argv = [find_program("apt-cache", "apt"), *self._options(), "showsrc", "--only-source", source]
            stanzas = [stanza.splitlines() for stanza in run(argv, deadline_s=60).split("\n\n")]
        versions = tuple(
            line.removeprefix("Version:").strip()
            for stanza in stanzas
            if any(line.split()[-1:] == [file] for line in stanza)
            for line in stanza
            if line.startswith("Version:")
        )
        if not versions:
            raise MachineError(f"no source package {source} in {', '.join(self.suites)} has {file}")
        return versions

    @contextmanager
    def _naming(self, packages: Sequence[str]) -> Iterator[None]:
        """Let a failed command say which packages it was for."""
        try:
            yield
        except CommandFailed as error:
            what = f"cannot download {' '.join(packages)} from {', '.join(self.suites)}"
            raise MachineError(what, error.mend) from error
