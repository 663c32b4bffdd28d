"""Directories that go to a host as one compressed tar."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.errors import MachineError
from cluster.host.receive import CONTENT, receive
from cluster.master.hosts.parts import Part

pytestmark = pytest.mark.slow


@pytest.fixture
def part(tmp_path: Path) -> Part:
    directory = tmp_path / "cache/stages/arm64"
    (directory / "keys").mkdir(parents=True)
    (directory / "keys/id").write_text("secret")
    (directory / "keys/id").chmod(0o600)
    (directory / "disk").write_bytes(os.urandom(3_000_000))
    (directory / "link").symlink_to("/absolute")
    os.link(directory / "disk", directory / "hard")
    for made in ("kernels/own", "warm-1", "kvm-2"):
        (directory / made).mkdir(parents=True)
    return Part("stages/arm64", directory)


def test_a_directory_arrives_as_it_is_but_for_what_hosts_make_themselves(part: Part, tmp_path: Path) -> None:
    place = tmp_path / "host/stages/arm64"
    sealed = part.sealed()
    with part.compressed() as source:
        receive(source, place, sealed.sha256)
    assert sorted(path.name for path in place.iterdir()) == sorted([CONTENT, "disk", "hard", "keys", "link"])
    assert (place / "disk").read_bytes() == (part.directory / "disk").read_bytes()
    assert (place / "hard").samefile(place / "disk")
    assert (place / "link").readlink() == Path("/absolute")
    assert (place / "keys/id").stat().st_mode & 0o777 == 0o600
    assert (place / CONTENT).read_text() == sealed.sha256
    assert Part("", place).sealed() == type(sealed)(Part("", place), sealed.sha256, sealed.size_mib)


def test_what_hosts_make_changes_no_digest_and_all_else_does(part: Part) -> None:
    before = part.sealed()
    (part.directory / "warm-3").mkdir()
    (part.directory / "kvm-2").rmdir()
    assert part.sealed() == before
    (part.directory / "keys/id").write_text("other!")
    assert part.sealed().sha256 != before.sha256


def test_one_that_is_not_whole_leaves_what_was_there(part: Part, tmp_path: Path) -> None:
    place = tmp_path / "host/arm64"
    place.mkdir(parents=True)
    (place / "old").touch()
    with part.compressed() as source:
        whole = source.read()
    for sent, sha256 in ((whole, "0" * 64), (whole[:-100], part.sealed().sha256)):
        with (tmp_path / "sent").open("w+b") as stream:
            stream.write(sent)
            stream.flush()
            stream.seek(0)
            with pytest.raises(MachineError, match=r"did not come whole|could not be unpacked"):
                receive(stream, place, sha256)
    assert [path.name for path in place.parent.iterdir()] == ["arm64"]
    assert [path.name for path in place.iterdir()] == ["old"]


def test_the_new_one_takes_the_place_of_the_old_one(part: Part, tmp_path: Path) -> None:
    place = tmp_path / "host/arm64"
    place.mkdir(parents=True)
    (place / "old").touch()
    words = [sys.executable, "-m", "cluster.host.receive", str(place), part.sealed().sha256]
    with part.compressed() as source:
        subprocess.run(words, stdin=source, check=True, timeout=60)
    assert not (place / "old").exists()
    said = subprocess.run([*words[:-1], "0"], stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
    assert said.returncode == 1
    assert said.stderr.splitlines()[-1].startswith(b"arm64 could not be unpacked: ")
