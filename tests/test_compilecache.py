"""The compile cache: what goes in comes out, damaged or not, and it does not grow without bound."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cluster.node.compilecache import CompileCache, Compiled, Product, key

OBJECT = Compiled(0, b"", b"x.c:1: warning\n", (Product(b"\x7fELF" + bytes(500), False), None, Product(b"#!", True)))


@pytest.fixture
def cache(tmp_path: Path) -> CompileCache:
    return CompileCache(tmp_path / "compiles", limit_bytes=10_000)


def files(cache: CompileCache) -> list[Path]:
    return sorted(path for path in cache.directory.rglob("*") if path.is_file())


def test_what_is_put_is_got(cache: CompileCache) -> None:
    name = key([b"gcc", b"x.c"])
    assert cache.get(name) is None
    cache.put(name, OBJECT)
    assert cache.get(name) == OBJECT
    assert len(files(cache)) == 1


def test_a_key_tells_apart_what_only_its_borders_tell_apart() -> None:
    assert len({key([b"ab", b"c"]), key([b"a", b"bc"]), key([b"abc"]), key([b"abc", b""])}) == 4


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * 300])
def test_what_is_damaged_is_not_there(cache: CompileCache, damage: bytes) -> None:
    cache.put(key([b"a"]), OBJECT)
    files(cache)[0].write_bytes(damage)
    assert cache.get(key([b"a"])) is None
    assert not files(cache)


def test_the_least_lately_used_go_first(cache: CompileCache) -> None:
    names = [key([bytes([number])]) for number in range(6)]
    for number, name in enumerate(names):
        cache.put(name, Compiled(0, os.urandom(4000), b""))
        path = cache.directory / name[:2] / name[2:]
        os.utime(path, (number, number))
    cache.get(names[0])  # used now
    assert cache.prune() == 4
    assert [cache.get(name) is not None for name in names] == [True, False, False, False, False, True]


def test_a_full_disk_keeps_nothing_and_stops_nothing(cache: CompileCache, tmp_path: Path) -> None:
    name = key([b"a"])
    (cache.directory / name[:2]).write_text("not a directory")
    cache.put(name, OBJECT)
    assert cache.get(name) is None
