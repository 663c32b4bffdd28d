"""Source archives: fetched by the master, checked against the Manifest before anything uses them.

A provider offers places where a distfile may be; the places are tried one after another until
one gives the very bytes that the Manifest describes.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import socket
import tempfile
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import quote, unquote, urlsplit

import httpx
import tenacity
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from cluster.apt import ArchiveUnreachable, PrivateApt
from cluster.errors import InputError, MachineError
from cluster.model import Distfile

log = logging.getLogger(__name__)

_CHUNK = 1 << 18
_SHOWN = 3
_HASHES: Mapping[str, str] = {
    "BLAKE2B": "blake2b",
    "BLAKE2S": "blake2s",
    "SHA512": "sha512",
    "SHA256": "sha256",
    "SHA3_512": "sha3_512",
    "SHA3_256": "sha3_256",
    "SHA1": "sha1",
    "MD5": "md5",
}
"""Manifest's name of a hash (GLEP 74) and hashlib's."""


class FetchFailed(MachineError):
    """No provider has the distfile."""


class NotThere(Exception):
    """One place does not have the distfile, or did not give all of it; says why in a few words."""


class Unreachable(NotThere):
    """The same, because its host cannot be connected to."""


class Passing(NotThere):
    """The same, for a cause that may pass: the transfer broke off, the server is busy."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A place where a distfile may be."""

    where: str
    """A URL, directory or package, for messages."""
    write: Callable[[Path], None]
    """Writes the file's content into the existing file it is given. Raises NotThere."""


class Provider(Protocol):
    """Somewhere distfiles come from."""

    @property
    def name(self) -> str:
        """What a message calls it."""

    def offers(self, distfile: Distfile) -> Iterable[Offer]:
        """The places to try for `distfile`, the likeliest first; cheap until written from."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a download may take before another place is tried. Seconds."""

    connect_s: float = 5.0
    silence_s: float = 20.0
    """Between two pieces of a transfer."""
    total_s: float = 1800.0
    """For one file from one place, retries and all."""
    tries: int = 3
    unreachable_s: float = 10.0
    """Lost on hosts that cannot be connected to, in all, before new hosts are not tried any more."""


def check(distfile: Distfile, path: Path) -> str:
    """What is wrong with the file `path` as `distfile`: "" if its size and every digest agree."""
    size = path.stat().st_size
    if size != distfile.size:
        return f"it has {size} bytes, the Manifest says {distfile.size}"
    wanted = [(name, digest) for name, digest in distfile.digests if name in _HASHES]
    if not wanted:
        return "its Manifest entry has no digest that can be checked"
    hashes = [hashlib.new(_HASHES[name]) for name, _ in wanted]
    with path.open("rb") as stream:
        while piece := stream.read(_CHUNK):
            for one in hashes:
                one.update(piece)
    wrong = [name for (name, digest), one in zip(wanted, hashes, strict=True) if one.hexdigest() != digest.lower()]
    return f"its {' and '.join(wrong)} differ from the Manifest's" if wrong else ""


def fetch(distfile: Distfile, directory: Path, providers: Sequence[Provider]) -> Path:
    """The checked file of `distfile` in `directory`, from there or from the first provider that has it.

    Under its own name a file is always whole and correct: it is written as `.NAME.part`, which
    is renamed after the check. Two that fetch the same file take turns. A file that is there but
    wrong is moved aside as `NAME.corrupt`. Raises FetchFailed, which says what was tried.
    """
    path = directory / distfile.name
    if path.is_file() and not check(distfile, path):
        return path
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _part(directory / f".{distfile.name}.part") as part:
            if _usable(distfile, path):
                return path
            _fill(distfile, part, providers, directory)
            part.replace(path)
    except OSError as error:
        said = error.strerror or str(error)
        mend = "free some space or mend its permissions"
        raise MachineError(f"cannot write {distfile.name} in {directory} ({said})", mend) from error
    return path


def _usable(distfile: Distfile, path: Path) -> bool:
    """Whether `path` is there and right; what is there and wrong is moved aside."""
    if not path.is_file():
        return False
    wrong = check(distfile, path)
    if wrong:
        aside = path.with_name(f"{path.name}.corrupt")
        log.warning("%s is corrupt (%s): moved to %s and fetched again", path, wrong, aside.name)
        path.replace(aside)
    return not wrong


@contextmanager
def _part(path: Path) -> Iterator[Path]:
    """The temporary file `path`, empty and locked; gone afterwards unless it was renamed."""
    stream = _locked(path)
    try:
        stream.truncate(0)
        yield path
    finally:
        if _is_at(stream, path):
            path.unlink()
        stream.close()


def _locked(path: Path) -> IO[bytes]:
    """Open and flock `path`, again if whoever had it has renamed or removed it meanwhile."""
    while True:
        stream = path.open("ab")
        fcntl.flock(stream, fcntl.LOCK_EX)
        if _is_at(stream, path):
            return stream
        stream.close()


def _is_at(stream: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _fill(distfile: Distfile, part: Path, providers: Sequence[Provider], directory: Path) -> None:
    """Write the first offer that passes the check into `part`."""
    tried: list[str] = []
    for provider in providers:
        failures: dict[str, list[str]] = {}
        for offer in provider.offers(distfile):
            try:
                offer.write(part)
                reason = check(distfile, part)
            except NotThere as error:
                reason = str(error)
            if not reason:
                log.info("%s: from %s (%s)", distfile.name, provider.name, offer.where)
                return
            log.debug("%s: not from %s: %s", distfile.name, offer.where, reason)
            failures.setdefault(reason, []).append(offer.where)
        if failures:
            tried.append(f"{provider.name}: {_told(failures)}")
    raise FetchFailed(
        f"cannot fetch {distfile.name} ({'; '.join(tried) or 'nothing offers it'})",
        f"put the file into {directory} or set PREFERRED_MIRROR",
    )


def _told(failures: Mapping[str, Sequence[str]]) -> str:
    """The reasons, each with the places it holds for; not all of twenty mirrors."""
    return ", ".join(
        f"{reason} ({', '.join(places[:_SHOWN])}{f' and {more} more' if (more := len(places) - _SHOWN) > 0 else ''})"
        for reason, places in failures.items()
    )


class Web:
    """Downloads over HTTP(S) and FTP that soon give up where there is no network.

    A host that could not be connected to is not asked again; and once `unreachable_s` seconds
    went into such hosts, neither is any host that has not answered before.
    """

    def __init__(self, patience: Patience = Patience()) -> None:
        self._patience = patience
        self._answered: set[str] = set()
        self._unreachable: dict[str, str] = {}
        self._lost_s = 0.0

    def download(self, uri: str, size: int, into: Path) -> None:
        """Write what `uri` has, at most `size` bytes of it, into the file `into`. Raises NotThere."""
        host = urlsplit(uri).netloc
        self._refuse_hopeless(host)
        ends = time.monotonic() + self._patience.total_s
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Passing),
            stop=tenacity.stop_after_attempt(self._patience.tries) | tenacity.stop_after_delay(self._patience.total_s),
            wait=tenacity.wait_exponential(multiplier=0.2, max=5),
            reraise=True,
        )
        began = time.monotonic()
        try:
            retrying(self._ftp if uri.startswith("ftp:") else self._http, uri, _Sink(into, size, ends))
        except Unreachable as error:
            self._unreachable[host] = str(error)
            self._lost_s += time.monotonic() - began
            raise
        self._answered.add(host)

    def _refuse_hopeless(self, host: str) -> None:
        if host in self._unreachable:
            raise NotThere(self._unreachable[host])
        if self._lost_s >= self._patience.unreachable_s and host not in self._answered:
            raise NotThere("not tried, as other hosts could not be reached")

    def _http(self, uri: str, sink: _Sink) -> None:
        timeout = httpx.Timeout(self._patience.silence_s, connect=self._patience.connect_s)
        # identity: a server must not hand out the archive decompressed, nor compressed once more.
        headers = {"Accept-Encoding": "identity", "User-Agent": "portage-cluster"}
        try:
            with httpx.stream("GET", uri, headers=headers, timeout=timeout, follow_redirects=True) as answer:
                if answer.status_code != httpx.codes.OK:
                    kind = Passing if answer.status_code in _BUSY else NotThere
                    raise kind(f"{answer.status_code} {answer.reason_phrase}".strip())
                # No chunk size: httpx would wait until a chunk is full, and the deadline with it.
                sink.take(answer.iter_raw())
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            raise Unreachable(f"cannot connect: {_bare(error)}") from error
        except (httpx.UnsupportedProtocol, httpx.TooManyRedirects, httpx.InvalidURL) as error:
            raise NotThere(_bare(error)) from error
        except httpx.TimeoutException as error:
            raise Passing(f"silent for {self._patience.silence_s:g} s") from error
        except httpx.HTTPError as error:
            raise Passing(f"the transfer broke off: {_bare(error)}") from error

    def _ftp(self, uri: str, sink: _Sink) -> None:
        try:
            answer = urllib.request.urlopen(uri, timeout=self._patience.connect_s)
        except urllib.error.URLError as error:
            cause = error.reason if isinstance(error.reason, OSError) else error.__cause__
            kind = Unreachable if isinstance(cause, (socket.gaierror, ConnectionError, TimeoutError)) else NotThere
            raise kind(f"cannot connect: {_bare(cause or error)}") from error
        with answer:
            sink.take(iter(lambda: _read(answer), b""))


_BUSY = frozenset({408, 429, 500, 502, 503, 504})


def _read(stream: IO[bytes]) -> bytes:
    try:
        return stream.read(_CHUNK)
    except OSError as error:
        raise Passing(f"the transfer broke off: {_bare(error)}") from error


def _bare(error: BaseException) -> str:
    """The message of `error` without its number, on one line."""
    said = " ".join(str(error).split()) or type(error).__name__
    return said.partition("] ")[2] or said if said.startswith("[Errno") else said


@dataclass(frozen=True, slots=True)
class _Sink:
    """The file that a download is written to, from its start at each try."""

    into: Path
    size: int
    ends: float
    """On the monotonic clock."""

    def take(self, pieces: Iterable[bytes]) -> None:
        """Write `pieces`; NotThere if they are too many or come too slowly."""
        written = 0
        with self.into.open("wb") as stream:
            for piece in pieces:
                written += len(piece)
                if written > self.size:
                    raise NotThere(f"it sends more than the Manifest's {self.size} bytes")
                if time.monotonic() > self.ends:
                    raise NotThere(f"too slow: {written} of {self.size} bytes came in time")
                stream.write(piece)


def _copy(source: Path, into: Path) -> None:
    try:
        stream = source.open("rb")
    except OSError as error:
        raise NotThere(str(error.strerror)) from error
    with stream, into.open("wb") as target:
        shutil.copyfileobj(stream, target, _CHUNK)


def _not_known(scheme: str, into: Path) -> None:
    raise NotThere(f"{scheme}: is no scheme this can fetch from")


def _offer(web: Web, uri: str, size: int) -> Offer:
    """The offer of `uri`: http, https, ftp, file or a plain path."""
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https", "ftp"):
        return Offer(uri, partial(web.download, uri, size))
    if parts.scheme in ("", "file"):
        path = Path(unquote(parts.path) if parts.scheme else uri).expanduser()
        return Offer(str(path), partial(_copy, path))
    return Offer(uri, partial(_not_known, parts.scheme))


@dataclass(frozen=True, slots=True)
class PreferredMirror:
    """Mirrors that the user has named, by URL or directory: flat, or in Gentoo's hashed layout."""

    bases: tuple[str, ...]
    web: Web
    name: str = "PREFERRED_MIRROR"

    def offers(self, distfile: Distfile) -> Iterator[Offer]:
        """For each mirror `BASE/NAME`, then `BASE/XX/NAME` (GLEP 75, `filename-hash BLAKE2B 8`)."""
        hashed = hashlib.blake2b(distfile.name.encode()).hexdigest()[:2]
        for base in self.bases:
            name = quote(distfile.name) if "://" in base else distfile.name
            for place in (name, f"{hashed}/{name}"):
                yield _offer(self.web, f"{base.rstrip('/')}/{place}", distfile.size)


@dataclass(frozen=True, slots=True)
class Upstream:
    """The ebuild's SRC_URI."""

    web: Web
    name: str = "upstream"

    def offers(self, distfile: Distfile) -> Iterator[Offer]:
        """Each URI in the ebuild's order."""
        return (_offer(self.web, uri, distfile.size) for uri in distfile.uris)


class DebianSource(BaseModel):
    """Which source package has a distfile: one table of `metadata/debian-sources.toml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    version: str = ""
    """The one it was seen in; any other that has `file` serves as well."""
    file: str
    suite: str


_SOURCES = TypeAdapter(dict[str, DebianSource])


def debian_sources(repositories: Iterable[Path]) -> dict[str, DebianSource]:
    """What the ebuild repositories' `metadata/debian-sources.toml` say, by distfile name.

    A repository may have none. Raises InputError for a broken one.
    """
    known: dict[str, DebianSource] = {}
    for path in (repository / "metadata" / "debian-sources.toml" for repository in repositories):
        try:
            known |= _SOURCES.validate_python(tomllib.loads(path.read_text()))
        except FileNotFoundError:
            continue
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"{path} is not TOML", str(error)) from error
        except ValidationError as error:
            first = error.errors()[0]
            raise InputError(f"{path}: {'.'.join(map(str, first['loc']))}", first["msg"]) from error
    return known


@dataclass(frozen=True, slots=True)
class Distribution:
    """The source packages of the distribution that this machine's apt knows."""

    sources: Mapping[str, DebianSource]
    directory: Path
    """For the private apt state."""
    name: str = "the distribution's source package"
    _unreachable: dict[str, str] = field(default_factory=dict)
    """Suites that failed to update, and why: asking takes seconds, so once is enough."""

    def offers(self, distfile: Distfile) -> Iterator[Offer]:
        """The source package that the ebuild repository names for it."""
        source = self.sources.get(distfile.name)
        if source:
            yield Offer(f"{source.source} in {source.suite}", partial(self._write, source))

    def _write(self, source: DebianSource, into: Path) -> None:
        if source.suite in self._unreachable:
            raise NotThere(self._unreachable[source.suite])
        apt = PrivateApt(self.directory / f"sources-{source.suite}", (source.suite,), sources=True)
        self.directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.directory, prefix="fetch-") as scratch:
            try:
                file = apt.source_file(source.source, source.version, source.file, Path(scratch))
            except ArchiveUnreachable as error:
                self._unreachable[source.suite] = str(error)
                raise NotThere(str(error)) from error
            except MachineError as error:
                raise NotThere(str(error)) from error
            _copy(file, into)


def providers(
    repositories: Iterable[Path], apt_directory: Path, mirrors: Sequence[str] = (), patience: Patience = Patience()
) -> tuple[Provider, ...]:
    """The providers in their order: the user's mirrors, upstream, the distribution.

    `mirrors` are followed by the words of the environment variable PREFERRED_MIRROR.
    `repositories` are the directories of the ebuild repositories.
    """
    web = Web(patience)
    bases = (*mirrors, *os.environ.get("PREFERRED_MIRROR", "").split())
    return (
        PreferredMirror(bases, web),
        Upstream(web),
        Distribution(debian_sources(repositories), apt_directory),
    )
