"""GPKGs written member by member, so that a test may have in them what Portage would not put there."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from tarfile import DIRTYPE, FIFOTYPE, LNKTYPE, SYMTYPE, TarFile, TarInfo

BUILT = 1_700_000_000
"""When the packages were built and their files written, seconds since 1970."""

Item = tuple[TarInfo, bytes]


def _item(name: str, content: bytes = b"", **fields: object) -> Item:
    member = TarInfo(name if name.startswith("/") else f"image/{name}")
    member.size, member.mtime = len(content), BUILT
    for key, value in fields.items():
        setattr(member, key, value)
    return member, content


def directory(name: str, mode: int = 0o755, **fields: object) -> Item:
    return _item(name, type=DIRTYPE, mode=mode, **fields)


def regular(name: str, content: bytes = b"", mode: int = 0o644, **fields: object) -> Item:
    return _item(name, content, mode=mode, **fields)


def symlink(name: str, target: str) -> Item:
    return _item(name, type=SYMTYPE, mode=0o777, linkname=target)


def hard_link(name: str, target: str) -> Item:
    return _item(name, type=LNKTYPE, mode=0o644, linkname=f"image/{target}")


def fifo(name: str) -> Item:
    return _item(name, type=FIFOTYPE)


def _tar(items: Iterable[Item]) -> bytes:
    stream = BytesIO()
    with TarFile(fileobj=stream, mode="w") as archive:
        for member, content in items:
            archive.addfile(member, BytesIO(content))
    return stream.getvalue()


def _compressed(items: Iterable[Item]) -> bytes:
    return gzip.compress(_tar(items), 1, mtime=0)


def gpkg(path: Path, cpv: str, items: Iterable[Item], **changes: str) -> Path:
    """Write the GPKG `path` of `cpv` with `items` in its image; `changes` are of its metadata. Returns `path`."""
    category, _, pf = cpv.partition("/")
    metadata = {"CATEGORY": category, "PF": pf, "SLOT": "0", "EAPI": "8", "BUILD_TIME": str(BUILT)} | changes
    files = {
        "gpkg-1": b"",
        "metadata.tar.gz": _compressed(
            _named(f"metadata/{key}", f"{value}\n".encode()) for key, value in metadata.items()
        ),
        "image.tar.gz": _compressed([_item("", type=DIRTYPE, mode=0o755), *items]),
    }
    lines = (
        f"DATA {name} {len(text)} SHA512 {hashlib.sha512(text).hexdigest()} BLAKE2B {hashlib.blake2b(text).hexdigest()}"
        for name, text in files.items()
    )
    files["Manifest"] = "".join(f"{line}\n" for line in lines).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_tar(_named(f"{pf}/{name}", text) for name, text in files.items()))
    return path


def _named(name: str, content: bytes) -> Item:
    member = TarInfo(name)
    member.size = len(content)
    return member, content
