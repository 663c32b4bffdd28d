"""A binhost in S3, and backups of the journal: moto's server, real GPKGs, emerge."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import binpkgs
import boto3
import pytest
from buckets import SECRET, credentials, made, refusing
from factories import failure, package
from hypothesis import given
from hypothesis import strategies as st
from repos import write_repository

from cluster import cli
from cluster.errors import InputError, MachineError
from cluster.master import backup, mirror, s3
from cluster.master.binhost import AdmitError, Binhost
from cluster.master.gpkg import portage_user
from cluster.master.journal import Journal
from cluster.master.mirror import entries, newer, pull, push
from cluster.master.s3 import Bucket, Place
from cluster.model import Cpv
from tests.amazon import serving

pytestmark = pytest.mark.slow

CHOST = "aarch64-linux-gnu"
FOO, BAR = "app-misc/foo-1", "dev-libs/bar++-2"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with serving() as amazon:
        yield amazon.url


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Bucket:
    credentials(monkeypatch, endpoint)
    return made(request.node.name, "arm64")


@pytest.fixture
def binhost(tmp_path: Path) -> Binhost:
    return Binhost(tmp_path / "mine", CHOST)


def admit(binhost: Binhost, cpv: str, content: bytes = b"x", built: int = binpkgs.BUILT) -> Path:
    """Put a package with one file, built then, into `binhost`."""
    file = binhost.directory.parent / "built.gpkg.tar"
    facts = {"CHOST": CHOST, "BUILD_TIME": str(built), "KEYWORDS": "arm64", "repository": "test"}
    binpkgs.gpkg(file, cpv, [binpkgs.regular("usr/file", content)], **facts)
    return binhost.admit(file, package(cpv))


def held(bucket: Bucket) -> dict[str, Any]:
    found = bucket.read("Packages")
    assert found is not None
    return entries(found[0].decode())


def test_what_is_pushed_is_pulled_byte_for_byte(bucket: Bucket, binhost: Binhost, tmp_path: Path) -> None:
    for cpv in (FOO, BAR):
        admit(binhost, cpv)
    moved = push(binhost, bucket)
    assert set(moved.packages) == {FOO, BAR}
    assert moved.there == 2
    other = Binhost(tmp_path / "other", CHOST)
    assert pull(bucket, other).size == moved.size
    for cpv in (FOO, BAR):
        assert other.path(Cpv(cpv)).read_bytes() == binhost.path(Cpv(cpv)).read_bytes()
    assert other.records() == binhost.records()
    assert [path.name for path in other.directory.iterdir() if path.name.startswith(".pull")] == []
    for again in (push(binhost, bucket), push(other, bucket), pull(bucket, other)):
        assert (again.packages, again.size, again.there) == ((), 0, 2)


def test_an_index_names_only_objects_that_are_there_and_none_has_a_plus(bucket: Bucket, binhost: Binhost) -> None:
    admit(binhost, BAR)
    push(binhost, bucket)
    first = held(bucket)[BAR]["PATH"]
    admit(binhost, BAR, b"other", binpkgs.BUILT + 5)
    push(binhost, bucket)
    second = held(bucket)[BAR]["PATH"]
    assert first != second
    assert set(bucket.sizes()) == {"Packages", first, second}
    assert "+" not in first + second


def test_the_build_that_is_newer_wins_on_both_sides(bucket: Bucket, binhost: Binhost, tmp_path: Path) -> None:
    other = Binhost(tmp_path / "other", CHOST)
    admit(binhost, FOO, b"old")
    new = admit(other, FOO, b"new", binpkgs.BUILT + 60).read_bytes()
    push(other, bucket)
    assert push(binhost, bucket).packages == ()
    assert pull(bucket, binhost).packages == (FOO,)
    assert binhost.path(Cpv(FOO)).read_bytes() == new


def test_of_two_that_push_at_once_none_loses_a_package(
    bucket: Bucket, binhost: Binhost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Binhost(tmp_path / "other", CHOST)
    admit(binhost, FOO)
    admit(other, BAR)
    replace, refused = Bucket.replace, []

    def late(self: Bucket, name: str, content: bytes, before: str | None) -> None:
        if not refused:  # the other is faster, between this one's reading and its writing
            refused.append(before)
            push(other, bucket)
        replace(self, name, content, before)

    monkeypatch.setattr(Bucket, "replace", late)
    assert push(binhost, bucket).there == 2
    assert set(held(bucket)) == {FOO, BAR}


def test_an_index_that_changes_all_the_time_is_given_up(
    bucket: Bucket, binhost: Binhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(self: Bucket, *arguments: object) -> None:
        raise s3.Changed

    monkeypatch.setattr(Bucket, "replace", changed)
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)
    admit(binhost, FOO)
    with pytest.raises(MachineError, match="changes all the time"):
        push(binhost, bucket)


def test_a_file_that_is_not_what_its_index_says_is_neither_pushed_nor_pulled(
    bucket: Bucket, binhost: Binhost, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    admit(binhost, BAR)
    file = admit(binhost, FOO)
    whole = file.read_bytes()
    file.write_bytes(whole[::-1])
    assert push(binhost, bucket).packages == (BAR,)
    assert "foo-1.gpkg.tar is not what its index says" in caplog.text
    file.write_bytes(whole)
    push(binhost, bucket)
    file.write_bytes(whole[::-1])
    bucket.upload(file, held(bucket)[FOO]["PATH"])
    with pytest.raises(MachineError, match=f"{FOO} in s3://.* is not what its index says"):
        pull(bucket, Binhost(tmp_path / "other", CHOST))


def test_a_package_under_anothers_name_is_not_brought(binhost: Binhost) -> None:
    file = admit(binhost, FOO)
    with pytest.raises(AdmitError, match=f"it is {FOO} for CHOST {CHOST}"):
        binhost.bring(file, Cpv(BAR))


@pytest.mark.parametrize("cpv", ["../../etc/passwd-1", "app-misc/../foo-1", "foo-1", "a/b/c-1", ""])
def test_an_entry_that_leads_elsewhere_is_passed_by(cpv: str) -> None:
    entry = f"CPV: {cpv}\nSHA1: {'0' * 40}\nSIZE: 1\n"
    assert entries(f"CHOST: x\n\n{entry}\n\n{entry.replace(cpv or ' ', 'c/p-1')}\n\n").keys() <= {"c/p-1"}


builds = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 3).map(lambda built: {"BUILD_TIME": str(built)}))


@given(mine=builds, theirs=builds)
def test_merged_both_ways_two_indexes_agree_and_lose_nothing(mine: Any, theirs: Any) -> None:
    merged = {**theirs, **newer(mine, theirs)}
    assert merged == {**mine, **newer(theirs, mine)}
    assert merged.keys() == mine.keys() | theirs.keys()
    assert newer(mine, merged) == newer(theirs, merged) == {}


def test_a_place_of_another_chost_or_without_a_binhost_is_refused(
    bucket: Bucket, binhost: Binhost, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="there is no binhost at s3://"):
        pull(bucket, binhost)
    admit(binhost, FOO)
    push(binhost, bucket)
    other = Binhost(tmp_path / "other", "riscv64-linux-gnu")
    for move in (lambda: push(other, bucket), lambda: pull(bucket, other)):
        with pytest.raises(InputError, match=f"is a binhost for CHOST {CHOST}, not riscv64"):
            move()


def test_emerge_installs_from_what_was_pushed(bucket: Bucket, binhost: Binhost, endpoint: str, tmp_path: Path) -> None:
    for cpv in (FOO, BAR):
        admit(binhost, cpv)
    push(binhost, bucket)
    grant = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject"}
    statement = {**grant, "Resource": f"arn:aws:s3:::{bucket.place.bucket}/*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    boto3.client("s3").put_bucket_policy(Bucket=bucket.place.bucket, Policy=policy)
    root = tmp_path / "root"
    repository = write_repository(root / "repo", {})
    files = {
        "repos.conf": f"[DEFAULT]\nmain-repo = test\n[test]\nlocation = {repository.location}\n",
        "make.conf": 'FEATURES="-sandbox -usersandbox -userfetch -userpriv -news -binpkg-request-signature"\n'
        f'PKGDIR="{root}/binpkgs"\nPORTAGE_TMPDIR="{root}"\n',
        "binrepos.conf": f"[s3]\nsync-uri = {endpoint}/{bucket.place.bucket}/arm64\nverify-signature = false\n"
        f"location = {root}/binpkgs\n",
    }
    (root / "etc/portage").mkdir(parents=True)
    for name, text in files.items():
        (root / "etc/portage" / name).write_text(text)
    (root / "etc/portage/make.profile").symlink_to(repository.location / "profiles/arm64")
    words = ("--fetchonly", "--nodeps", "--getbinpkgonly", "--color=n", f"={FOO}", f"={BAR}")
    argv = [sys.executable, str(Path(sys.executable).with_name("emerge")), *words]
    env = {"PATH": os.environ["PATH"], "PORTAGE_CONFIGROOT": str(root), "NO_PROXY": "*", **portage_user()}
    told = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    fetched = sorted(path.read_bytes() for path in (root / "binpkgs").rglob("*.gpkg.tar"))
    assert fetched == sorted(binhost.path(Cpv(cpv)).read_bytes() for cpv in (FOO, BAR))


# The journal.


def test_a_lost_journal_comes_back_from_its_backups(
    bucket: Bucket, tmp_path: Path, session: Callable[..., Any]
) -> None:
    kept = session(bucket.place)
    journal = Journal(kept.journal)
    journal.record("arm64", failure(Cpv(FOO)))
    root = Place(bucket.place.bucket, "")
    backup.make(kept, root)
    lost = Journal(tmp_path / "lost.sqlite")
    lost.record("arm64", failure(Cpv(BAR)))
    restored = backup.restore(lost, root)
    assert (len(restored.backups), restored.added, restored.known) == (1, 1, 0)
    assert {build.cpv for build in lost.builds()} == {FOO, BAR}
    assert backup.restore(lost, root).known == 1


def test_where_there_is_no_backup_it_is_said(bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no backup of a journal at s3://"):
        backup.restore(Journal(tmp_path / "journal.sqlite"), bucket.place)


# At the end of a build, and by hand.


@pytest.fixture
def session(tmp_path: Path) -> Callable[..., Any]:
    from cluster.options import Common, What, open_one

    def opened(where: Place | None) -> Any:
        config = tmp_path / "config.toml"
        mirrored = str(Place(where.bucket, "")) if where else ""
        config.write_text(f'[binhost]\nmirror = "{mirrored}"\n')
        return open_one(What(), Common(config=config, state=tmp_path / "state", binhost=tmp_path / "mine"))

    return opened


class Told:
    """A reporter."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.warnings: list[str] = []
        self.step, self.warn = self.steps.append, self.warnings.append


def test_a_build_that_ends_is_mirrored_below_its_targets_name(
    bucket: Bucket, binhost: Binhost, session: Callable[..., Any]
) -> None:
    reporter: Any = Told()
    with mirror.kept(session(bucket.place), binhost, reporter):
        admit(binhost, FOO)
    assert set(held(bucket)) == {FOO}
    (kept,) = Bucket(Place(bucket.place.bucket, "journal")).sizes()
    assert kept.startswith("arm64-")
    assert reporter.steps == [f"1 package (0.0 MB) and the journal copied to {bucket.place}, which has 1 now"]


def test_without_a_mirror_nothing_is_asked(binhost: Binhost, session: Callable[..., Any]) -> None:
    reporter: Any = Told()
    with mirror.kept(session(None), binhost, reporter):
        admit(binhost, FOO)
    assert reporter.steps == reporter.warnings == []


def test_a_mirror_that_cannot_be_used_stops_a_build_before_it_begins_and_warns_after_it(
    bucket: Bucket, binhost: Binhost, session: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    reporter: Any = Told()
    opened = session(bucket.place)
    with mirror.kept(opened, binhost, reporter):
        admit(binhost, FOO)
        boto3.client("s3").delete_bucket(Bucket=bucket.place.bucket)
    assert len(reporter.warnings) == 1
    assert "NoSuchBucket" in reporter.warnings[0]
    with pytest.raises(InputError, match="NoSuchBucket"), mirror.kept(opened, binhost, reporter):
        pytest.fail("it began")


def test_by_hand(
    bucket: Bucket, binhost: Binhost, tmp_path: Path, capsys: pytest.CaptureFixture[str], session: Callable[..., Any]
) -> None:
    admit(binhost, FOO)
    session(bucket.place)
    options = ["--config", str(tmp_path / "config.toml"), "--state", str(tmp_path / "state")]
    assert cli.run(["binhost", "push", *options, "--binhost", str(tmp_path / "mine")]) == 0
    assert f"copied to {bucket.place}; there are 1 now" in capsys.readouterr().out
    (tmp_path / "new").mkdir()
    argv = ["binhost", "pull", str(bucket.place), "--json", "--state", str(tmp_path / "state")]
    assert cli.run([*argv, "--binhost", str(tmp_path / "new")]) == 0
    assert f'"{FOO}"' in capsys.readouterr().out
    assert cli.run(["history", "restore", *options]) == 1
    assert f"there is no backup of a journal at s3://{bucket.place.bucket}/journal" in capsys.readouterr().err
    assert cli.run(["binhost", "push", "--state", str(tmp_path / "state"), "--binhost", str(tmp_path / "new")]) == 1
    assert "name s3://BUCKET/PREFIX, or set binhost.mirror" in capsys.readouterr().err


def test_secrets_are_not_logged(
    tmp_path: Path, binhost: Binhost, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: Any
) -> None:
    with refusing(403, "AccessDenied") as url:
        credentials(monkeypatch, url)
        caplog.set_level("DEBUG")
        argv = ["binhost", "push", "s3://some/where", "--binhost", str(tmp_path / "mine"), "--debug"]
        assert cli.run(argv) == 1
    said = "".join(capfd.readouterr()) + caplog.text
    assert "S3 refuses s3://some/where (AccessDenied)" in said
    assert SECRET not in said
    assert "Signature" not in said
