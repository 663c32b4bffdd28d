"""The compile client's protocol: what a sound message says, and that no other one is taken."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.node import wire

STAMP = bytes(range(40))


def sized(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def request(version: str = wire.VERSION, argv: tuple[str, ...] = ("gcc", "-c", "x.c"), tail: bytes = b"") -> bytes:
    texts = [version, "token", "/var/tmp/p"]
    parts = [sized(text.encode()) for text in texts]
    parts += [struct.pack(">I", len(argv)), *(sized(word.encode()) for word in argv)]
    parts += [struct.pack(">I", 1), sized(b"LANG"), sized(b"C")]
    parts += [struct.pack(">I", 1), sized(b"x.c"), b"\2" + STAMP + b"\0" + sized(b"int x;\n")]
    return b"".join(parts) + tail


def test_a_request_is_read() -> None:
    read = wire.read_request(request())
    assert (read.token, read.cwd, read.argv) == ("token", "/var/tmp/p", ("gcc", "-c", "x.c"))
    assert read.environment == {"LANG": "C"}
    assert read.unasked == (("x.c", wire.File(STAMP, False, b"int x;\n")),)


@pytest.mark.parametrize(
    "frame",
    [
        request(version="portage-cluster compile 0"),
        request(tail=b"x"),
        request()[:-1],
        b"",
        struct.pack(">I", 1 << 31),
        request()[: len(sized(wire.VERSION.encode()))] + sized(b"\xff"),
    ],
)
def test_another_request_is_refused(frame: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.read_request(frame)


def test_a_list_longer_than_any_is_refused_before_it_is_read() -> None:
    head = b"".join(sized(text.encode()) for text in (wire.VERSION, "token", "/"))
    with pytest.raises(wire.WireError, match="too many"):
        wire.read_request(head + struct.pack(">I", 1 << 20))


def test_states_are_read() -> None:
    frame = b"\0" + b"\1" + b"\4" + b"\3" + STAMP + struct.pack(">I", 2) + b"\0" + sized(b"a") + b"\1" + sized(b"b")
    states = wire.read_states(frame, 4)
    assert states == (wire.Absent(), wire.Same(), wire.Other(), wire.Directory(STAMP, frozenset("a"), frozenset("b")))
    with pytest.raises(wire.WireError, match="no known kind"):
        wire.read_states(b"\7", 1)


def test_an_audit_is_read() -> None:
    frame = struct.pack(">I", 1) + sized(b"out") + sized(b"err") + b"\0"
    assert wire.read_local(frame, 1) == wire.Local(1, b"out", b"err", (wire.Absent(),))


@given(st.binary(max_size=300))
def test_no_bytes_do_more_than_raise(data: bytes) -> None:
    for read in (wire.read_request, lambda frame: wire.read_states(frame, 3), lambda frame: wire.read_local(frame, 2)):
        try:
            read(data)
        except wire.WireError:
            continue


@given(st.integers(0, 200), st.integers(0, 255))
def test_a_request_with_one_wrong_byte_is_another_request_or_none(place: int, byte: int) -> None:
    frame = bytearray(request())
    place %= len(frame)
    frame[place] = byte
    try:
        read = wire.read_request(bytes(frame))
    except wire.WireError:
        return
    assert (read == wire.read_request(request())) == (bytes(frame) == request())
