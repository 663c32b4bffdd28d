"""Text files that may be packed."""

from __future__ import annotations

import gzip
import lzma
import zlib
from pathlib import Path
from types import MappingProxyType

from cluster.errors import InputError

_UNPACK = MappingProxyType({b"\xfd7zXZ\0": lzma.decompress, b"\x1f\x8b": gzip.decompress})
"""By what the content begins with."""


def text(path: Path) -> str:
    """The text of the file `path`, unpacked if its content says that it is packed (xz, gzip). Raises InputError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read", str(error.strerror)) from error
    try:
        for magic, unpack in _UNPACK.items():
            if data.startswith(magic):
                data = unpack(data)
        return data.decode()
    except (lzma.LZMAError, OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is damaged, or no text", str(error)) from error
