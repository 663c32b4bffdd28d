"""The binhost: a directory of binary packages that `emerge --getbinpkg` installs from."""

from __future__ import annotations

import errno
import logging
import re
import shutil
import threading
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cluster import paths
from cluster.errors import ClusterError, InputError, MachineError
from cluster.master import abi, fingerprint, gpkg
from cluster.master.judge import Record
from cluster.model import Cpv, Kind, Package, full_slot

log = logging.getLogger(__name__)

_MARKER = ".portage-cluster"


class AdmitError(ClusterError):
    """A binary package is not what the plan asked for, or not whole."""


class Binhost:
    """The PKGDIR of one target, added to only by the master.

    DIRECTORY/
        .portage-cluster        says that the directory is ours, and for which CHOST
        Packages                Portage's index
        CATEGORY/PF.gpkg.tar    one file for each package

    May be used from several threads; Portage locks the index against other processes.
    """

    def __init__(self, directory: Path, chost: str) -> None:
        """Open `directory`, making it if it is empty or absent; InputError if it is not ours."""
        self.directory = directory.absolute()
        self.chost = chost
        _claim(self.directory, chost)
        self._index = gpkg.Index(self.directory, chost)
        self._lock = threading.RLock()
        self._stamp: tuple[int, int, int] | None = None
        self._entries: dict[Cpv, gpkg.Entry] = {}

    def entries(self) -> tuple[gpkg.Entry, ...]:
        """The packages of the index."""
        return tuple(self._current().values())

    def path(self, cpv: Cpv) -> Path:
        """The file of package `cpv`, whether it is there or not."""
        return self._index.path(cpv)

    def records(self) -> dict[Cpv, Record]:
        """What is here with its whole file."""
        return {cpv: _record(entry) for cpv, entry in self._current().items() if self._is_whole(entry)}

    def _is_whole(self, entry: gpkg.Entry) -> bool:
        try:
            return (self.directory / entry.path).stat().st_size == entry.size
        except OSError:
            return False

    def index(self) -> str:
        """The text of the index, "" while there is none."""
        with self._lock:
            return self._index.text() if self._index.stamp() else ""

    def index_of(self, cpvs: Iterable[Cpv]) -> str:
        """The text of an index that has only `cpvs`, for a PKGDIR that holds just these."""
        wanted = set(cpvs)
        if not wanted:
            return ""
        with self._lock:
            return subset(self._index.text(), wanted)

    def admit(self, binpkg: Path, package: Package) -> Path:
        """Check the file `binpkg` against `package` and publish a copy of it; returns the copy.

        The copy's metadata has what it was made from (`fingerprint`) and its libraries (`abi`).
        Raises AdmitError, which names what disagrees; the binhost is then as it was.
        """
        with self._lock:
            try:
                metadata = self._index.read_package(binpkg)
            except gpkg.GpkgError as error:
                raise AdmitError(f"the binary package of {package.cpv} is not admitted", str(error)) from error
            if wrong := disagreements(metadata, package, self.chost):
                raise AdmitError(f"the binary package of {package.cpv} is not admitted", "; ".join(wrong))
            path = self.path(package.cpv)
            try:
                ours = self._ours(binpkg, package)
                _publish(binpkg, path, lambda copy: gpkg.annotate(copy, ours))
            except gpkg.GpkgError as error:
                raise AdmitError(f"the binary package of {package.cpv} is not admitted", str(error)) from error
            self._index.add(package.cpv)
            self._stamp = None
        return path

    def take(self, other: Path, package: Package) -> None:
        """Copy `package` from the binhost in the directory `other`, as it is. Raises AdmitError."""
        with self._lock:
            source = other / self.path(package.cpv).relative_to(self.directory)
            try:
                wrong = disagreements(self._index.read_package(source), package, self.chost)
            except gpkg.GpkgError as error:
                raise AdmitError(f"{package.cpv} cannot be taken from {other}", str(error)) from error
            if wrong:
                raise AdmitError(f"{package.cpv} cannot be taken from {other}", "; ".join(wrong))
            _publish(source, self.path(package.cpv), lambda copy: None)
            self._index.add(package.cpv)
            self._stamp = None

    def bring(self, file: Path, cpv: Cpv) -> None:
        """Copy `file`, a binary package from a mirror of this binhost, as it is. Raises AdmitError."""
        with self._lock:
            try:
                metadata = self._index.read_package(file)
            except gpkg.GpkgError as error:
                raise AdmitError(f"{cpv} cannot be brought here", str(error)) from error
            if (metadata.cpv, metadata.chost) != (cpv, self.chost):
                raise AdmitError(f"{cpv} cannot be brought here", f"it is {metadata.cpv} for CHOST {metadata.chost}")
            _publish(file, self.path(cpv), lambda copy: None)
            self._index.add(cpv)
            self._stamp = None

    def _ours(self, binpkg: Path, package: Package) -> dict[str, str]:
        with gpkg.opened(binpkg) as opened:
            libraries = abi.read(opened.image)
        here = self._current()
        required = (_record(here[cpv]) for cpv in package.requires if cpv in here)
        links = abi.links(libraries, _providers(package, required))
        values = (
            fingerprint.render(package.fingerprint),
            abi.render_provides(libraries.provides),
            abi.render_links(links),
        )
        return dict(zip(gpkg.OURS, values, strict=True))

    def _current(self) -> dict[Cpv, gpkg.Entry]:
        """The index by name, read again only when its file has changed."""
        with self._lock:
            stamp = self._index.stamp()
            if stamp is None or stamp != self._stamp:
                self._entries = {entry.metadata.cpv: entry for entry in self._index.entries()}
                self._stamp = stamp
            return self._entries


def _providers(package: Package, required: Iterable[Record]) -> Iterator[abi.Provider]:
    direct = {need.cpv for need in package.dependencies if Kind.BUILD in need.kinds}
    for record in required:
        yield abi.Provider(record.name, record.slot, record.provides, record.cpv in direct)


def _record(entry: gpkg.Entry) -> Record:
    made, provides, links = entry.metadata.ours
    return Record(
        cpv=entry.metadata.cpv,
        name=gpkg.package_name(entry.metadata.cpv),
        slot=entry.metadata.slot,
        use=entry.metadata.use,
        chost=entry.metadata.chost,
        fingerprint=fingerprint.parse(made),
        provides=abi.parse_provides(provides),
        links=abi.parse_links(links),
    )


def joined(indexes: Iterable[str]) -> str:
    """One index of the packages of several, with the header of the first that is not empty."""
    parts = [index.strip("\n").split("\n\n") for index in indexes if index]
    if not parts:
        return ""
    entries = [entry for _, *some in parts for entry in some]
    header = re.sub(r"(?m)^PACKAGES: \d+$", f"PACKAGES: {len(entries)}", parts[0][0])
    return "\n\n".join([header, *entries]) + "\n\n"


def subset(index: str, cpvs: Collection[str]) -> str:
    """The `Packages` text `index` without the packages that are not in `cpvs`."""
    header, *entries = index.strip("\n").split("\n\n")
    kept = [entry for entry in entries if any(f"CPV: {cpv}" in entry.splitlines() for cpv in cpvs)]
    header = re.sub(r"(?m)^PACKAGES: \d+$", f"PACKAGES: {len(kept)}", header)
    return "\n\n".join([header, *kept]) + "\n\n"


def disagreements(metadata: gpkg.Metadata, package: Package, chost: str) -> tuple[str, ...]:
    """Where `metadata` is not what `package` for `chost` asks for, in words; empty if nowhere."""
    facts = (
        ("CPV", metadata.cpv, package.cpv),
        ("USE", " ".join(metadata.use), " ".join(package.use)),
        ("SLOT", metadata.slot, full_slot(package.slot)),
        ("CHOST", metadata.chost, chost),
    )
    return tuple(f"{name} is {has!r}, wanted {wants!r}" for name, has, wants in facts if has != wants)


def _claim(directory: Path, chost: str) -> None:
    """Make sure that `directory` is a binhost of ours for `chost`; an empty one becomes it."""
    marker = directory / _MARKER
    mend = "name an empty directory with --binhost"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not marker.exists():
            if any(directory.iterdir()):
                raise InputError(f"{directory} is not empty and no binhost of ours", mend)
            _write(marker, f"# A binhost of portage-cluster.\nchost = {chost!r}\n")
        theirs = tomllib.loads(marker.read_text()).get("chost")
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{marker} is damaged ({error})", f"it is one line: chost = {chost!r}") from error
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{directory} is not a directory", mend) from error
    except OSError as error:
        raise MachineError(f"cannot use {directory} as binhost ({error.strerror})", mend) from error
    if theirs != chost:
        raise InputError(f"{directory} is a binhost for CHOST {theirs}, not {chost}", mend)


def _write(path: Path, text: str) -> None:
    paths.publish(path, lambda temporary: temporary.write_text(text))


def _publish(source: Path, path: Path, finish: Callable[[Path], None]) -> None:
    """Copy `source` to `path`, after `finish` has had the copy, so that a reader sees the whole file or none."""

    def write(temporary: Path) -> None:
        shutil.copyfile(source, temporary)
        finish(temporary)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        paths.publish(path, write)
    except OSError as error:
        mend = "free some space or mend its permissions"
        raise MachineError(f"cannot write {path} ({error.strerror})", mend) from error


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """With no slash at the end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def _published(path: Path, directory: Path) -> bool:
    """Whether `path` is a file of `directory`, also after following links, and not a hidden one."""
    try:
        inside = path.resolve().is_relative_to(directory.resolve())
        return inside and path.is_file() and not any(name.startswith(".") for name in path.relative_to(directory).parts)
    except (OSError, ValueError):  # a loop of links, a zero byte
        return False


class _Files(SimpleHTTPRequestHandler):
    """GET and HEAD for the published files of a directory: no listings, nothing hidden, nothing outside."""

    protocol_version = "HTTP/1.1"
    timeout = 60

    def send_head(self) -> Any:
        if not _published(Path(self.translate_path(self.path)), Path(self.directory)):
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        return super().send_head()

    def copyfile(self, source: Any, outputfile: Any) -> None:
        with suppress(ConnectionError):
            super().copyfile(source, outputfile)

    def log_message(self, format: str, *args: object) -> None:
        log.debug("%s %s", self.address_string(), format % args)


def _server(directory: Path, host: str, port: int) -> ThreadingHTTPServer:
    try:
        return ThreadingHTTPServer((host, port), partial(_Files, directory=str(directory.absolute())))
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise MachineError(f"port {port} of {host} is in use", "choose another with --port") from error
        raise MachineError(f"cannot listen on port {port} of {host} ({error})", "choose another with --port") from error


def _address(server: ThreadingHTTPServer) -> Address:
    host, port = server.server_address[:2]
    return Address(str(host), int(port))


def serve(directory: Path, host: str, port: int, ready: Callable[[Address], None]) -> None:
    """Serve `directory` until interrupted; `ready` is told the address once it listens.

    Raises MachineError for a port in use.
    """
    with _server(directory, host, port) as server:
        ready(_address(server))
        server.serve_forever()


@contextmanager
def serving(directory: Path, host: str = "127.0.0.1", port: int = 0) -> Iterator[Address]:
    """Serve `directory` in a thread while the context lasts, by default on a free port of loopback."""
    with _server(directory, host, port) as server:
        thread = threading.Thread(
            target=server.serve_forever,
            kwargs={"poll_interval": 0.05},  # seconds until shutdown() is noticed
            name=f"serve {directory.name}",
            daemon=True,
        )
        thread.start()
        try:
            yield _address(server)
        finally:
            server.shutdown()
            thread.join()
