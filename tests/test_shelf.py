"""The master's files by their content."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filetrees
import pytest

from cluster.host import archive, shelf
from cluster.host.shelf import Shelf
from cluster.host.store import blob_of


@pytest.fixture
def shelved(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "shelf")


def test_a_file_is_found_by_its_content(shelved: Shelf, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    blob = shelved.file(tmp_path / "file")
    assert blob == blob_of(tmp_path / "file")
    assert shelved.find(blob.sha256) == tmp_path / "file"
    assert shelved.find("0" * 64) is None


def test_a_file_is_read_again_only_when_it_changed(
    shelved: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def noted(path: Path) -> object:
        read.append(path)
        return blob_of(path)

    monkeypatch.setattr(shelf, "blob_of", noted)
    file = tmp_path / "file"
    file.write_text("x")
    assert shelved.file(file) == shelved.file(file)
    assert read == [file]
    (tmp_path / "new").write_text("y")
    (tmp_path / "new").rename(file)
    assert shelved.file(file) == blob_of(file)
    assert read == [file, file]


def test_a_file_that_changed_or_went_is_not_offered_as_what_it_was(shelved: Shelf, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    blob = shelved.file(file)
    file.write_text("yy")
    assert shelved.find(blob.sha256) is None
    shelved.file(file)
    file.unlink()
    assert shelved.find(blob.sha256) is None


def test_of_a_directory_the_latest_state_is_kept(shelved: Shelf, tmp_path: Path) -> None:
    source = filetrees.write(tmp_path / "source", {"a": (b"1", 0o644), "news": (b"2", 0o644)})
    blob = shelved.tree(source, ("news",))
    assert shelved.tree(source, ("news",)) == blob
    assert shelved.tree(source) != blob
    found = shelved.find(blob.sha256)
    assert found is not None
    archive.unpack(found, tmp_path / "copy")
    assert filetrees.content(tmp_path / "copy") == {"a": (0o100644, b"1")}
    (source / "b").touch()
    assert shelved.tree(source, ("news",)) != blob
    assert shelved.find(blob.sha256) is None
    assert len(list((tmp_path / "shelf").iterdir())) == 2


def test_an_archive_outlasts_the_master(shelved: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = filetrees.write(tmp_path / "source", {"a": (b"1", 0o644)})
    blob = shelved.tree(source)
    monkeypatch.setattr(archive, "pack", None)
    later = Shelf(tmp_path / "shelf")
    assert later.tree(source) == blob
    assert later.find(blob.sha256) is not None


def test_only_the_user_reads_what_is_of_the_user(shelved: Shelf, tmp_path: Path) -> None:
    assert (tmp_path / "shelf").stat().st_mode & 0o777 == 0o700


def test_a_directory_that_many_want_at_once_stays_to_be_had(shelved: Shelf, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_text("x")
    with ThreadPoolExecutor(16) as pool:
        blobs = set(pool.map(lambda number: shelved.tree(tmp_path / "tree"), range(64)))
    assert len(blobs) == 1
    assert shelved.find(blobs.pop().sha256) is not None
