"""Gentoo's binary packages through Portage: read one and check it, keep a PKGDIR's `Packages` index."""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import portage
from portage import gpkg as portage_gpkg
from portage.dbapi import vartree
from portage.dbapi.bintree import binarytree
from portage.exception import PortageException
from portage.versions import _pkg_str, cpv_getkey, vercmp

from cluster.errors import ClusterError
from cluster.master import abi, fingerprint
from cluster.model import Cpv, full_slot

OURS = (fingerprint.NAME, abi.PROVIDES, abi.LINKS)
"""The files of a package's metadata that are ours, each of one line; the index has them too."""

_INDEX = "Packages"
_FEATURES = "pkgdir-index-trusted -binpkg-multi-instance -compress-index -binpkg-request-signature"


class GpkgError(ClusterError):
    """A file is no sound GPKG."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a binary package says of itself, or what the index says of it."""

    cpv: Cpv
    slot: str
    """With its subslot, as `0/1.3`."""
    use: tuple[str, ...]
    """The enabled flags of its IUSE, sorted."""
    chost: str
    repository: str
    ours: tuple[str, ...]
    """The values of `OURS`, each "" where the package has none."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A package in the `Packages` index."""

    metadata: Metadata
    path: str
    """Relative to the PKGDIR."""
    size: int
    """Bytes."""
    sha1: str
    build_time: int
    """Seconds since 1970."""


def enabled(use: str, iuse: str) -> tuple[str, ...]:
    """The flags of `use` that are in `iuse`, whose defaults' signs are dropped; sorted."""
    known = {flag.lstrip("+-") for flag in iuse.split()}
    return tuple(sorted(known.intersection(use.split())))


def _metadata(cpv: str, values: Mapping[str, str]) -> Metadata:
    return Metadata(
        cpv=Cpv(cpv),
        slot=full_slot(values.get("SLOT", "0")),
        use=enabled(values.get("USE", ""), values.get("IUSE", "")),
        chost=values.get("CHOST", ""),
        repository=values.get("repository", ""),
        ours=tuple(values.get(key, "") for key in OURS),
    )


def portage_user() -> dict[str, str]:
    """The variables that make whoever runs this Portage's own user and group.

    Without them Portage prints a page about the missing `portage` user; with root's it prints a
    line about each lock that it may not give to that group. The first configuration of a
    process decides for all others in it.
    """
    try:
        user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    except KeyError:  # an id without a name, as in some containers
        user, group = "root", "root"
    return {"PORTAGE_USERNAME": user, "PORTAGE_GRPNAME": group}


def _settings(config_root: Path, chost: str) -> Any:
    """A Portage configuration that knows nothing of the host's /etc/portage (7 to 20 ms)."""
    env = {
        "BINPKG_FORMAT": "gpkg",
        "CHOST": chost,
        "FEATURES": _FEATURES,
        "PORTAGE_REPOSITORIES": "",
        **portage_user(),
    }
    root = str(config_root)
    return portage.config(config_root=root, target_root=root, eprefix="", local_config=False, env=env)


def _is_tar(file: Path) -> bool:
    """Whether `file` begins as a tar file; Portage prints to the terminal about one that is empty."""
    try:
        return file.stat().st_size > 0 and tarfile.is_tarfile(file)
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class Opened:
    """A GPKG whose every member agrees with its Manifest."""

    metadata: Mapping[str, bytes]
    """The files of its metadata: `SLOT`, `environment.bz2`…"""
    image: tarfile.TarFile
    """What it installs, below `image/`; may be read in any order."""
    md5: str
    """Of the whole file; an installed package remembers it."""

    def value(self, key: str) -> str:
        """The words of a file of the metadata, "" if there is none."""
        return " ".join(self.metadata.get(key, b"").decode(errors="replace").split())

    @property
    def cpv(self) -> Cpv:
        """What it is."""
        return Cpv(f"{self.value('CATEGORY')}/{self.value('PF')}")


@contextmanager
def opened(file: Path) -> Iterator[Opened]:
    """Check the GPKG `file` and open it; its image is decompressed to a temporary file.

    Raises GpkgError for a file that is truncated, altered or no GPKG.
    """
    with tempfile.TemporaryFile(prefix="portage-cluster-") as stream:
        metadata = _checked_metadata(file, _settings(file.parent, ""), stream)
        with file.open("rb") as whole:
            md5 = hashlib.file_digest(whole, "md5").hexdigest()
        with tarfile.open(fileobj=stream, mode="r:") as image:
            yield Opened(metadata, image, md5)


def _checked_metadata(file: Path, settings: Any, stream: IO[bytes] | None = None) -> dict[str, bytes]:
    """The metadata of `file`; its image, a plain tar file, is written to `stream`."""
    if not _is_tar(file):
        raise GpkgError(f"{file} is not a sound GPKG", "it is no tar file")
    try:
        package = portage_gpkg.gpkg(settings, gpkg_file=str(file))
        # get_metadata() alone leaves the image, the biggest member, unchecked.
        package._verify_binpkg()
        metadata: dict[str, bytes] = package.get_metadata()
        if stream is not None:
            with tarfile.open(file) as container:
                member, compression = package._get_inner_tarinfo(container, "image")
                command = package._get_decompression_cmd(compression)
                with portage_gpkg.tar_stream_reader(container.extractfile(member), command) as image:
                    shutil.copyfileobj(image, stream)
                    image.close()  # on leaving it would hide that the decompressor failed
            stream.seek(0)
    except (PortageException, OSError, EOFError, ValueError, tarfile.TarError) as error:
        raise GpkgError(f"{file} is not a sound GPKG", str(error)) from error
    return metadata


def installed_entry(package: Opened, contents: str, counter: int, mtime: int) -> dict[str, bytes]:
    """The files of /var/db/pkg/CATEGORY/PF as Portage's merge of `package` writes them.

    `counter` is to be different for each package; `mtime`, in seconds since 1970, is to become
    the directory's, for which the file `metadata` is valid (`vartree._read_metadata_file`).
    """
    files = {
        **package.metadata,
        "BINPKGMD5": f"{package.md5}\n".encode(),
        "CONTENTS": contents.encode(errors="surrogateescape"),
        "COUNTER": str(counter).encode(),
    }
    lines = [f"{vartree._METADATA_FORMAT_PREFIX}{vartree._METADATA_FILE_FORMAT_VERSION}"]
    for key in sorted(vartree._METADATA_FILE_FIELDS & files.keys()):
        lines.append(f"{key}={' '.join(files[key].decode(errors='replace').split())}")
    lines.append(f"{vartree._METADATA_DIR_MTIME_PREFIX}{mtime * 10**9}")
    files[vartree._METADATA_FILE] = "".join(f"{line}\n" for line in lines).encode()
    return files


def package_name(cpv: Cpv) -> str:
    """CATEGORY/NAME of `cpv`; "" if its version is none of Gentoo's."""
    name: str | None = cpv_getkey(cpv)
    return name or ""


def compare_versions(version: str, other: str) -> int | None:
    """Below, at or above 0 as `version` comes before, is, or comes after `other` (PMS 3.3).

    None if one of them is none of Gentoo's.
    """
    order: int | None = vercmp(version, other)
    return order


def annotate(file: Path, values: Mapping[str, str]) -> None:
    """Write `values` into the metadata of the GPKG `file`, whose image stays as it is byte for byte.

    Raises GpkgError for one that is not sound, or that is signed: another signature would be due.
    """
    try:
        package = portage_gpkg.gpkg(_settings(file.parent, ""), gpkg_file=str(file))
        metadata = package.get_metadata()
        for key, value in values.items():
            metadata[key] = f"{value}\n".encode()
        package.update_metadata(metadata)
    except (PortageException, OSError, EOFError, ValueError, tarfile.TarError) as error:
        raise GpkgError(f"{file} cannot be given metadata", str(error)) from error


def _know_ours(tree: Any) -> None:
    """Let Portage keep our values in the index, which otherwise drops what it does not know."""
    tree.dbapi._aux_cache_keys.update(OURS)
    tree._pkgindex_keys.update(OURS)
    tree._pkgindex_allowed_pkg_keys.update(OURS)
    tree._pkgindex_default_pkg_data.update(dict.fromkeys(OURS, ""))


class Index:
    """The `Packages` index of PKGDIR `directory`, whose packages are for `chost`."""

    def __init__(self, directory: Path, chost: str) -> None:
        self._file = directory / _INDEX
        self._settings = _settings(directory, chost)
        self._tree = binarytree(pkgdir=str(directory), settings=self._settings)
        _know_ours(self._tree)

    def read_package(self, file: Path) -> Metadata:
        """What the GPKG `file` says of itself, after checking every member against its Manifest.

        Raises GpkgError for a file that is truncated, altered or no GPKG.
        """
        raw = _checked_metadata(file, self._settings)
        values = {key: " ".join(value.decode(errors="replace").split()) for key, value in raw.items()}
        return _metadata(f"{values.get('CATEGORY', '')}/{values.get('PF', '')}", values)

    def add(self, cpv: Cpv) -> None:
        """Enter the package `cpv`, whose file is in place, replacing an older entry.

        Portage writes the index beside the old one and renames it, under its own lock.
        """
        if not self._tree.inject(_pkg_str(cpv)):
            raise GpkgError(f"Portage did not take {cpv} into {self._file}")

    def path(self, cpv: Cpv) -> Path:
        """Where the file of `cpv` belongs: `CATEGORY/PF.gpkg.tar`."""
        return self._file.parent / f"{cpv}.gpkg.tar"

    def stamp(self) -> tuple[int, int, int] | None:
        """Something that changes with the index; None while there is none."""
        try:
            stat = self._file.stat()
        except FileNotFoundError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size

    def text(self) -> str:
        """The index as it is on disk."""
        return self._file.read_text(encoding="utf-8")

    def entries(self) -> tuple[Entry, ...]:
        """All packages of the index, in its order."""
        if not self._file.exists():
            return ()
        index = self._tree._new_pkgindex()
        with self._file.open(encoding="utf-8") as stream:
            index.read(stream)
        return tuple(_entry(values) for values in index.packages)


def _entry(values: Mapping[str, str]) -> Entry:
    cpv = values["CPV"]
    return Entry(
        metadata=_metadata(cpv, values),
        path=values.get("PATH") or f"{cpv}.gpkg.tar",
        size=int(values.get("SIZE") or 0),
        sha1=values.get("SHA1", ""),
        build_time=int(values.get("BUILD_TIME") or 0),
    )
