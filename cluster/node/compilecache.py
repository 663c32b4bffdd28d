"""What compilers made, by the content of everything they read: shared by all nodes and runs of an installation."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_DIGEST = 16
_FORMAT = b"portage-cluster compiled 2"  # a change of what is taken for the same compile makes all anew


@dataclass(frozen=True, slots=True)
class Product:
    """A file that a compiler made."""

    content: bytes
    executable: bool


@dataclass(frozen=True, slots=True)
class Compiled:
    """How a compiler ended and what it made."""

    status: int
    stdout: bytes
    stderr: bytes
    products: tuple[Product | None, ...] = ()
    """In the order of the outputs that its command line names; None for one it did not make."""


def key(parts: Iterable[bytes]) -> str:
    """The key of a compile from all that it depends on."""
    digest = hashlib.blake2b(_FORMAT, digest_size=20)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


class CompileCache:
    """A directory of compiles, bounded in size; the least lately used go first.

    Several processes may share it: a file appears by rename and never changes.
    """

    def __init__(self, directory: Path, limit_bytes: int) -> None:
        self.directory = directory
        self._limit = limit_bytes
        directory.mkdir(parents=True, exist_ok=True)

    def _path(self, key: str) -> Path:
        return self.directory / key[:2] / key[2:]

    def get(self, key: str) -> Compiled | None:
        """What is kept under `key`; None if nothing sound is."""
        path = self._path(key)
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        digest, packed = data[:_DIGEST], data[_DIGEST:]
        if hashlib.blake2b(packed, digest_size=_DIGEST).digest() != digest:
            path.unlink(missing_ok=True)
            return None
        return _decode(zlib.decompress(packed))

    def put(self, key: str, compiled: Compiled) -> None:
        """Keep `compiled` under `key`. A full disk keeps nothing and is no error."""
        packed = zlib.compress(_encode(compiled), 1)
        path = self._path(key)
        try:
            path.parent.mkdir(exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new-", delete=False) as stream:
                stream.write(hashlib.blake2b(packed, digest_size=_DIGEST).digest() + packed)
            Path(stream.name).replace(path)
        except OSError:
            return

    def prune(self) -> int:
        """Remove the least lately used beyond the limit; returns how many."""
        entries = []
        for path in self.directory.glob("??/*"):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            entries.append((stat.st_mtime, stat.st_size, path))
        total = sum(size for _, size, _ in entries)
        removed = 0
        for _, size, path in sorted(entries):
            if total <= self._limit:
                break
            path.unlink(missing_ok=True)
            total -= size
            removed += 1
        return removed


def _encode(compiled: Compiled) -> bytes:
    products = [None if one is None else [len(one.content), one.executable] for one in compiled.products]
    head = {"status": compiled.status, "streams": [len(compiled.stdout), len(compiled.stderr)], "products": products}
    contents = (one.content for one in compiled.products if one is not None)
    return b"".join((json.dumps(head).encode(), b"\n", compiled.stdout, compiled.stderr, *contents))


def _decode(data: bytes) -> Compiled:
    line, _, rest = data.partition(b"\n")
    head = json.loads(line)
    at = 0

    def take(size: int) -> bytes:
        nonlocal at
        at += size
        return rest[at - size : at]

    stdout, stderr = (take(size) for size in head["streams"])
    products = tuple(None if one is None else Product(take(one[0]), one[1]) for one in head["products"])
    return Compiled(head["status"], stdout, stderr, products)
