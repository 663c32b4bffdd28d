"""The protocol between the compile client in a node (guest/cc.c) and the compile server: encoding only.

Every message is a frame, a 32-bit length and that many bytes; integers are big-endian, strings
and contents are a 32-bit length and bytes. The client speaks first:

    request  version, token, cwd, argv, environment, sources and listings that it sends unasked

then answers whatever the server sends until that ends the exchange:

    Q  query    paths with the stamp the server knows  ->  the state of each
    W  write    paths with mode and content            ->  the new stamps; E follows at once
    A  audit    paths of outputs; the client runs its own compiler  ->  status, streams, states
    E  end      exit status, standard output, standard error
    F  fallback the client goes on with the next compiler in PATH

What a node sends is not to be trusted: each reader here raises WireError for what does not fit.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

VERSION: Final = "portage-cluster compile 1"
MAX_FRAME: Final = 256 << 20
"""Bytes."""
_MAX_COUNT: Final = 65536

Stamp = bytes
"""What tells two states of a file apart: device, inode, size, mtime, ctime."""
_STAMP: Final = 40
NO_STAMP: Final[Stamp] = bytes(_STAMP)
"""Of a file that changed so lately that it could change again unseen."""


class WireError(Exception):
    """A message is not what the protocol says."""


@dataclass(frozen=True, slots=True)
class Absent:
    """No such file."""


@dataclass(frozen=True, slots=True)
class Same:
    """What the server knows is still so."""


@dataclass(frozen=True, slots=True)
class Other:
    """Something that the server must not use: a device, a file too large, a path through a link."""


@dataclass(frozen=True, slots=True)
class File:
    """A regular file."""

    stamp: Stamp
    executable: bool
    content: bytes


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory whose path has no symbolic link."""

    stamp: Stamp
    files: frozenset[str]
    """The names of what is no directory, symbolic links followed."""
    directories: frozenset[str]


State = Absent | Same | Other | File | Directory


@dataclass(frozen=True, slots=True)
class Request:
    """What the client was called with."""

    token: str
    cwd: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    unasked: tuple[tuple[str, State], ...]
    """Sources by the words of `argv` that name them, and the working directory."""


@dataclass(frozen=True, slots=True)
class Output:
    """A file that the compiler made."""

    path: str
    executable: bool
    content: bytes


@dataclass(frozen=True, slots=True)
class Removal:
    """A file that the compiler removes because it failed to make it."""

    path: str


@dataclass(frozen=True, slots=True)
class Local:
    """What the node's own compiler did."""

    status: int
    stdout: bytes
    stderr: bytes
    outputs: tuple[State, ...]


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._at = 0

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise WireError("a message ends too soon")
        data = bytes(self._data[self._at : end])
        self._at = end
        return data

    def u8(self) -> int:
        return self.take(1)[0]

    def u32(self) -> int:
        (value,) = struct.unpack(">I", self.take(4))
        return int(value)

    def count(self) -> int:
        value = self.u32()
        if value > _MAX_COUNT:
            raise WireError("a message has too many parts")
        return value

    def content(self) -> bytes:
        return self.take(self.u32())

    def text(self) -> str:
        try:
            return self.content().decode()
        except UnicodeDecodeError as error:
            raise WireError("a name is not UTF-8") from error

    def directory(self) -> Directory:
        stamp = self.take(_STAMP)
        entries = [(self.u8(), self.text()) for _ in range(self.count())]
        files = frozenset(name for is_directory, name in entries if not is_directory)
        return Directory(stamp, files, frozenset(name for is_directory, name in entries if is_directory))

    def state(self) -> State:
        kind = self.u8()
        if kind == 0:
            return Absent()
        if kind == 1:
            return Same()
        if kind == 2:
            return File(self.take(_STAMP), bool(self.u8()), self.content())
        if kind == 3:
            return self.directory()
        if kind == 4:
            return Other()
        raise WireError("a file is of no known kind")

    def end(self) -> None:
        if self._at != len(self._data):
            raise WireError("a message does not end where it should")


def read_request(frame: bytes) -> Request:
    """Decode the client's first message."""
    reader = _Reader(frame)
    if reader.text() != VERSION:
        raise WireError("the client speaks another version")
    request = Request(
        token=reader.text(),
        cwd=reader.text(),
        argv=tuple(reader.text() for _ in range(reader.count())),
        environment={reader.text(): reader.text() for _ in range(reader.count())},
        unasked=tuple((reader.text(), reader.state()) for _ in range(reader.count())),
    )
    reader.end()
    return request


def read_states(frame: bytes, count: int) -> tuple[State, ...]:
    """Decode the answer to a query of `count` paths."""
    reader = _Reader(frame)
    states = tuple(reader.state() for _ in range(count))
    reader.end()
    return states


def read_stamps(frame: bytes, count: int) -> tuple[Stamp, ...]:
    """Decode the answer to a write of `count` outputs."""
    reader = _Reader(frame)
    stamps = tuple(reader.take(_STAMP) for _ in range(count))
    reader.end()
    return stamps


def read_local(frame: bytes, count: int) -> Local:
    """Decode the answer to an audit of `count` outputs."""
    reader = _Reader(frame)
    local = Local(reader.u32(), reader.content(), reader.content(), tuple(reader.state() for _ in range(count)))
    reader.end()
    return local


def _sized(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def query(paths: Iterable[tuple[str, Stamp]]) -> bytes:
    """Encode a query for the state of paths, each with the stamp that is known."""
    parts = [stamp + _sized(path.encode()) for path, stamp in paths]
    return b"Q" + struct.pack(">I", len(parts)) + b"".join(parts)


def write(outputs: Sequence[Output | Removal]) -> bytes:
    """Encode the order to write `outputs`."""
    return b"W" + struct.pack(">I", len(outputs)) + b"".join(map(_output, outputs))


def _output(output: Output | Removal) -> bytes:
    match output:
        case Output(path, executable, content):
            return _sized(path.encode()) + bytes([executable]) + _sized(content)
        case Removal(path):
            return _sized(path.encode()) + bytes([2]) + _sized(b"")


def audit(paths: Sequence[str]) -> bytes:
    """Encode the order to run the node's own compiler and send what it left at `paths`."""
    return b"A" + struct.pack(">I", len(paths)) + b"".join(_sized(path.encode()) for path in paths)


def end(status: int, stdout: bytes, stderr: bytes) -> bytes:
    """Encode the end: the client prints the streams and exits with `status`."""
    return b"E" + struct.pack(">I", status) + _sized(stdout) + _sized(stderr)


def fallback() -> bytes:
    """Encode the refusal."""
    return b"F"
