"""distcc's protocol, versions 1 and 2, as far as a relay needs it (doc/protocol-1.txt and -2.txt of distcc).

A message is a row of tokens, four letters and eight hexadecimal digits; where the number is a length, that many bytes
come after it. Version 2 is version 1 with lzo in these bytes. Version 3 preprocesses on the server, and is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_VERSIONS = (1, 2)
_DIGITS = 8
_TOKEN = 4 + _DIGITS
_MOST_WORDS = 1 << 14
_MOST_WORD = 1 << 17  # Linux's bound for one argument
_MOST_SOURCE = 64 << 20
MOST_REPLY: Final = 256 << 20
_SIGNAL = 0x7F
"""The bits of a wait status that name the signal."""
_ELF = b"\x7fELF"


class Garbled(Exception):
    """What came is not distcc's protocol, or more than is let through."""


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """A client's whole request. Raises Garbled, and asyncio.IncompleteReadError if the client goes away."""
    kept = bytearray()
    version = await _number(reader, b"DIST", kept)
    if version not in _VERSIONS:
        raise Garbled(f"protocol version {version}")
    words = await _number(reader, b"ARGC", kept)
    if words > _MOST_WORDS:
        raise Garbled(f"{words} arguments")
    for _ in range(words):
        await _text(reader, b"ARGV", kept, _MOST_WORD)
    await _text(reader, b"DOTI", kept, _MOST_SOURCE)
    return bytes(kept)


async def _number(reader: asyncio.StreamReader, name: bytes, kept: bytearray) -> int:
    token = await reader.readexactly(_TOKEN)
    kept += token
    return _parsed(token, name)


async def _text(reader: asyncio.StreamReader, name: bytes, kept: bytearray, most: int) -> None:
    size = await _number(reader, name, kept)
    if size > most:
        raise Garbled(f"{size} bytes of {name.decode()}")
    kept += await reader.readexactly(size)


def _parsed(token: bytes, name: bytes) -> int:
    if token[:4] != name or len(token) != _TOKEN:
        raise Garbled(f"{token!r} where {name.decode()} was to come")
    try:
        return int(token[4:], 16)
    except ValueError as error:
        raise Garbled(f"{token!r} has no number") from error


def request(argv: Sequence[str], source: bytes) -> bytes:
    """The request to compile a preprocessed file by a command line that names one source and one output, in version 1.

    What `argv` calls them matters for the suffix only: distccd puts names of its own there.
    """
    words = [word.encode() for word in argv]
    told = b"".join(_token(b"ARGV", len(word)) + word for word in words)
    return _token(b"DIST", 1) + _token(b"ARGC", len(words)) + told + _token(b"DOTI", len(source)) + source


def _token(name: bytes, number: int) -> bytes:
    return name + f"{number:0{_DIGITS}x}".encode()


@dataclass(frozen=True, slots=True)
class Reply:
    """What a compiler did; compressed, in a reply of version 2."""

    status: int
    """As wait(2) has it."""
    stderr: bytes
    stdout: bytes
    object: bytes

    @property
    def has_object(self) -> bool:
        """Whether the compiler succeeded."""
        return self.status == 0 and self.object.startswith(_ELF)

    @property
    def is_silent(self) -> bool:
        """Whether the compiler had nothing to say."""
        return not (self.stderr or self.stdout)


def read_reply(reply: bytes) -> Reply:
    """Raise Garbled unless `reply` is a whole one, of a compiler that came to its own end.

    A compiler that rejects its source did; one that the server's kernel killed did not.
    """
    _parsed(reply[:_TOKEN], b"DONE")
    status = _parsed(reply[_TOKEN : 2 * _TOKEN], b"STAT")
    at = 2 * _TOKEN
    parts = []
    for name in (b"SERR", b"SOUT", b"DOTO"):
        start = at + _TOKEN
        at = start + _parsed(reply[at:start], name)
        parts.append(reply[start:at])
    if at != len(reply):
        raise Garbled(f"{len(reply)} bytes where {at} were to come")
    if status & _SIGNAL:
        raise Garbled(f"the compiler got signal {status & _SIGNAL}")
    return Reply(status, *parts)
