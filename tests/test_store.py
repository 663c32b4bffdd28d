"""Files by their content: fetched once, checked, pruned. Real HTTPS is in test_blobs."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import filetrees
import pytest

from cluster.errors import MachineError, NodeLost
from cluster.host import archive
from cluster.host.store import Blob, Store, TransferFailed, blob_of

CONTENT = b"some content\n" * 1000


@dataclass
class Sources:
    """A client whose sources each give some bytes, then break off unless these are all; counts transfers."""

    gives: dict[str, bytes]
    piece: int = 1 << 30
    """So much comes before a transfer breaks off."""
    asked: list[tuple[str, int]] = field(default_factory=list)
    """Source, and at which byte."""

    def download(self, source: str, blob: Blob, part: Path) -> None:
        with part.open("ab") as stream:
            self.asked.append((source, stream.tell()))
            stream.write(self.gives[source][stream.tell() :][: self.piece])
            if stream.tell() < blob.size:
                raise TransferFailed("broke off")

    def best(self, sources: Sequence[str]) -> Sequence[str]:
        return sources


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def blob(tmp_path: Path) -> Blob:
    (tmp_path / "content").write_bytes(CONTENT)
    return blob_of(tmp_path / "content")


def test_what_is_fetched_is_there(store: Store, blob: Blob) -> None:
    assert store.path(blob) is None
    path = store.fetch(blob, ["a"], Sources({"a": CONTENT}))
    assert path.read_bytes() == CONTENT
    assert store.path(blob) == store.find(blob.sha256) == path


def test_what_is_there_is_not_fetched(store: Store, blob: Blob, tmp_path: Path) -> None:
    assert store.add(tmp_path / "content") == blob
    client = Sources({})
    assert store.fetch(blob, ["a"], client).read_bytes() == CONTENT
    assert client.asked == []


def test_of_many_that_ask_at_once_one_fetches(tmp_path: Path, blob: Blob) -> None:
    client = Sources({"a": CONTENT})
    ready = threading.Barrier(8)

    def fetch(_: int) -> Path:
        store = Store(tmp_path / "store")  # as in processes of their own
        ready.wait(10)
        return store.fetch(blob, ["a"], client)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(fetch, range(8)))) == 1
    assert client.asked == [("a", 0)]


def test_a_wrong_file_is_thrown_away_and_its_source_named(
    store: Store, blob: Blob, caplog: pytest.LogCaptureFixture
) -> None:
    client = Sources({"liar": CONTENT[::-1], "b": CONTENT})
    assert store.fetch(blob, ["liar", "b"], client).read_bytes() == CONTENT
    assert client.asked == [("liar", 0), ("b", 0)]
    assert "liar gave something else" in caplog.text


def test_where_all_sources_are_wrong_the_error_names_them(store: Store, blob: Blob) -> None:
    with pytest.raises(NodeLost, match=r"x: what it gave has another SHA-256; y: broke off"):
        store.fetch(blob, ["x", "y"], Sources({"x": CONTENT[::-1], "y": b""}))
    with pytest.raises(NodeLost, match="nobody has it"):
        store.fetch(blob, [], Sources({}))
    assert store.path(blob) is None


def test_a_transfer_that_breaks_off_goes_on_where_it_was(store: Store, blob: Blob) -> None:
    client = Sources({"a": CONTENT}, piece=5000)
    assert store.fetch(blob, ["a"], client).read_bytes() == CONTENT
    assert client.asked == [("a", 0), ("a", 5000), ("a", 10000)]


def test_what_one_source_began_another_ends(store: Store, blob: Blob) -> None:
    client = Sources({"a": CONTENT[:700], "b": CONTENT})
    assert store.fetch(blob, ["a", "b"], client).read_bytes() == CONTENT
    assert client.asked == [("a", 0), ("a", 700), ("b", 700)]


def test_who_ends_what_a_liar_began_is_not_blamed(store: Store, blob: Blob, caplog: pytest.LogCaptureFixture) -> None:
    client = Sources({"liar": b"lies" * 100, "b": CONTENT})
    assert store.fetch(blob, ["liar", "b"], client).read_bytes() == CONTENT
    assert client.asked[-2:] == [("b", 400), ("b", 0)]
    assert "gave something else" not in caplog.text


@pytest.mark.parametrize("name", ["", "..", "../parts/x", "A" * 64, "0" * 63, "0" * 64])
def test_only_what_it_has_is_found(store: Store, name: str) -> None:
    assert store.find(name) is None


def test_a_tree_is_unpacked_once(store: Store, tmp_path: Path) -> None:
    source = filetrees.write(tmp_path / "source", {"a": {"b": (b"1", 0o644)}})
    archive.pack(source, tmp_path / "archive")
    blob, client = blob_of(tmp_path / "archive"), Sources({"a": (tmp_path / "archive").read_bytes()})
    with ThreadPoolExecutor(4) as pool:
        (tree,) = set(pool.map(lambda _: store.tree(blob, ["a"], client), range(4)))
    assert filetrees.content(tree) == filetrees.content(source)
    assert client.asked == [("a", 0)]


def aged(path: Path | None, seconds: float) -> None:
    assert path is not None
    when = path.stat().st_mtime - seconds
    os.utime(path, (when, when))


def test_what_was_used_longest_ago_is_pruned_first(store: Store, tmp_path: Path) -> None:
    blobs = []
    for number in range(4):
        (tmp_path / "file").write_bytes(bytes([number]) * 8192)
        blobs.append(store.add(tmp_path / "file"))
    for blob, hours in zip(blobs, (3, 4, 2, 0), strict=True):
        aged(store.path(blob), hours * 3600)
    assert store.prune(3 * 8192) == 8192
    assert store.prune(0) == 2 * 8192
    assert [store.path(blob) is not None for blob in blobs] == [False, False, False, True]


def test_use_keeps_from_being_pruned_and_trees_are_pruned_too(store: Store, tmp_path: Path) -> None:
    source = filetrees.write(tmp_path / "source", {"a": (bytes(range(256)) * 64, 0o644)})
    os.utime(source, (0, 0))
    archive.pack(source, tmp_path / "archive")
    blob, client = blob_of(tmp_path / "archive"), Sources({"a": (tmp_path / "archive").read_bytes()})
    tree = store.tree(blob, ["a"], client)
    assert store.prune(0) == 0
    aged(tree, 3600)
    assert store.prune(0) > 0
    assert not tree.exists()
    assert store.tree(blob, [], client) == tree


def test_a_full_or_forbidden_disk_is_the_machines_fault(store: Store, blob: Blob, tmp_path: Path) -> None:
    (tmp_path / "store/locks").rmdir()
    (tmp_path / "store/locks").write_text("")
    with pytest.raises(MachineError, match="cannot write in"):
        store.fetch(blob, ["a"], Sources({"a": CONTENT}))
