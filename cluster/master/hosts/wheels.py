"""What a host installs: this very portage-cluster, and what it needs in the very versions that this master has.

A wheelhouse is one tar in the cache, wheelhouses/KEY.tar, with a wheel of each and with `constraints.txt`, the
versions. A host of another architecture or Python takes the versions from its package index, and from here but ours.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import platform
import re
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster import paths
from cluster.errors import InputError
from cluster.process import run

REQUIREMENT: Final = "portage-cluster[dask]"
CONSTRAINTS: Final = "constraints.txt"
_NAME = "portage-cluster"
_DATA = ("overlays", "stage-images", "ec2", "profiles")
_PACKAGE = Path(paths.__file__).parent
_MAKE_S = 1800.0
_KEPT = 3  # of versions
_INSTALLERS = ("INSTALLER", "REQUESTED", "direct_url.json", "RECORD.jws")


@dataclass(frozen=True, slots=True)
class Wheelhouse:
    """The tar, and what it is for."""

    archive: Path
    arch: str
    """As uname has it."""
    python: str
    """Such as 3.11."""

    @property
    def key(self) -> str:
        """Identifies what is in it."""
        return self.archive.stem

    def suits(self, arch: str, python: str) -> bool:
        """Whether its wheels are of that architecture and Python."""
        return (self.arch, self.python) == (arch, python)


def ensure(cache: Path, say: Callable[[str], object]) -> Wheelhouse:
    """The wheelhouse of what runs now, made in `cache` if it is not there. Raises InputError, CommandFailed."""
    if importlib.util.find_spec("distributed") is None:
        raise InputError("other hosts need Dask", f"pip install '{REQUIREMENT}'")
    versions = _versions()
    arch, python = platform.machine(), ".".join(platform.python_version_tuple()[:2])
    directory = cache / "wheelhouses"
    archive = directory / f"{_key(versions, arch, python)}.tar"
    with paths.locked(directory / "lock"):
        if not archive.exists():
            say("making wheels of portage-cluster and what it needs, once for each version")
            with tempfile.TemporaryDirectory(prefix=".new-", dir=directory) as scratch:
                _make(Path(scratch), versions)
                paths.publish(archive, lambda part: _pack(Path(scratch), part))
            for old in sorted(directory.glob("*.tar"), key=lambda path: path.stat().st_mtime)[:-_KEPT]:
                old.unlink()
    return Wheelhouse(archive, arch, python)


def _versions() -> str:
    """pip's constraints for all that is installed here."""
    found = {one.name: one.version for one in importlib.metadata.distributions()}
    return "".join(f"{name}=={found[name]}\n" for name in sorted(found) if name != _NAME)


def _key(versions: str, arch: str, python: str) -> str:
    digest = hashlib.blake2b(f"{versions}\0{arch}\0{python}".encode(), digest_size=8)
    for path in _sources():
        digest.update(f"\0{path.name}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _sources() -> Iterator[Path]:
    """The files that make up this portage-cluster."""
    for directory in (_PACKAGE, *map(paths.data, _DATA)):
        for path in sorted(directory.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path


def _make(directory: Path, versions: str) -> None:
    (directory / CONSTRAINTS).write_text(versions)
    checkout = _PACKAGE.parent
    ours = str(checkout) if (checkout / "pyproject.toml").exists() else str(_repacked(directory))
    extras = REQUIREMENT.removeprefix(_NAME)
    pip: list[str | Path] = [sys.executable, "-m", "pip", "wheel", "--wheel-dir", directory, "--find-links", directory]
    run([*pip, "--constraint", directory / CONSTRAINTS, f"{ours}{extras}"], deadline_s=_MAKE_S)


def _repacked(directory: Path) -> Path:
    """A wheel of the installed portage-cluster, of the files that its own record lists (PEP 427)."""
    installed = importlib.metadata.distribution(_NAME)
    wheel = directory / f"{_NAME.replace('-', '_')}-{installed.version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in installed.files or ():
            if file.parts[0] == ".." or file.suffix == ".pyc" or file.name in _INSTALLERS:
                continue
            content = file.locate()
            if file.name == "RECORD":
                archive.writestr(str(file), re.sub(r"(?m)^(\.\./|[^\n]*\.pyc,)[^\n]*\n", "", Path(content).read_text()))
            else:
                archive.write(content, str(file))
    return wheel


def _pack(directory: Path, part: Path) -> None:
    with tarfile.open(part, "w") as archive:
        for path in sorted(directory.iterdir()):
            archive.add(path, path.name)
