"""Objects of S3, at moto's server over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from buckets import credentials, made, refusing

from cluster.errors import ClusterError, InputError, MachineError
from cluster.master.s3 import Bucket, Changed, Place, place
from tests.amazon import serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with serving() as amazon:
        yield amazon.url


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Bucket:
    credentials(monkeypatch, endpoint)
    return made(request.node.name, "a/b")


@pytest.mark.parametrize(
    ("text", "bucket", "prefix"),
    [
        ("s3://one", "one", ""),
        ("s3://one/", "one", ""),
        ("s3://one.two-3/a/b/", "one.two-3", "a/b"),
    ],
)
def test_places(text: str, bucket: str, prefix: str) -> None:
    found = place(text)
    assert (found.bucket, found.prefix) == (bucket, prefix)
    assert place(str(found)) == found
    assert found.below("x").key("y") == f"{prefix}/x/y".strip("/")


@pytest.mark.parametrize("text", ["", "s3://", "s3:///x", "https://x/y", "/tmp", "s3://UPPER/x"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no place in S3"):
        place(text)


def test_a_small_object_is_replaced_only_as_it_was_read(bucket: Bucket) -> None:
    assert bucket.read("x") is None
    bucket.replace("x", b"1", None)
    with pytest.raises(Changed):
        bucket.replace("x", b"2", None)
    first = bucket.read("x")
    assert first is not None
    assert first[0] == b"1"
    bucket.replace("x", b"2", first[1])
    with pytest.raises(Changed):
        bucket.replace("x", b"3", first[1])
    second = bucket.read("x")
    assert second is not None
    assert second[0] == b"2"
    assert bucket.sizes() == {"x": 1}


def test_an_object_that_is_gone_has_changed(bucket: Bucket) -> None:
    with pytest.raises(Changed):
        bucket.replace("x", b"2", '"0123456789abcdef0123456789abcdef"')


def test_a_large_file_goes_in_parts_and_comes_back(bucket: Bucket, tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096 * 20
    (tmp_path / "file").write_bytes(content)
    bucket.upload(tmp_path / "file", "deep/large")
    head = boto3.client("s3").head_object(Bucket=bucket.place.bucket, Key="a/b/deep/large", ChecksumMode="ENABLED")
    assert head["ETag"].rstrip('"').endswith("-3")
    assert "ChecksumSHA256" in head
    bucket.download("deep/large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content


def test_only_what_is_at_the_place_is_listed(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    bucket.upload(tmp_path / "file", "x/y")
    Bucket(Place(bucket.place.bucket, "a/bc")).upload(tmp_path / "file", "z")
    assert bucket.sizes() == {"x/y": 5}
    assert Bucket(Place(bucket.place.bucket, "")).sizes() == {"a/b/x/y": 5, "a/bc/z": 5}


def test_a_bucket_that_is_not_there_is_named(bucket: Bucket) -> None:
    absent = Bucket(place("s3://never-made/x"))
    with pytest.raises(InputError, match=r"s3://never-made/x \(NoSuchBucket\): make it first"):
        absent.sizes()
    with pytest.raises(InputError, match="NoSuchBucket"):
        absent.read("x")
    with pytest.raises(InputError, match="NoSuchBucket"):
        absent.upload(Path(__file__), "x")


@pytest.mark.parametrize(
    ("status", "code", "mend"),
    [
        (403, "AccessDenied", "it takes s3:ListBucket"),
        (403, "SignatureDoesNotMatch", "the secret key is wrong"),
        (400, "AuthorizationHeaderMalformed", "AWS_DEFAULT_REGION"),
        (501, "NotImplemented", "no conditional writes"),
        (400, "SomethingNew", "no: SomethingNew"),
    ],
)
def test_what_is_refused_is_one_line_with_its_mend(
    monkeypatch: pytest.MonkeyPatch, status: int, code: str, mend: str
) -> None:
    with refusing(status, code) as url:
        credentials(monkeypatch, url)
        bucket = Bucket(place("s3://some/where"))
        for call in (
            bucket.sizes,
            lambda: bucket.read("x"),
            lambda: bucket.replace("x", b"", None),
            lambda: bucket.upload(Path(__file__), "x"),
        ):
            with pytest.raises(ClusterError, match=code) as caught:
                call()
            assert mend in str(caught.value)
            assert "\n" not in str(caught.value)
            assert caught.value.exit_code == 1


def test_without_credentials_it_is_said_how_to_name_some(monkeypatch: pytest.MonkeyPatch) -> None:
    credentials(monkeypatch, "http://127.0.0.1:1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    with pytest.raises(InputError, match="there are no AWS credentials for s3://some: name some by AWS_PROFILE"):
        Bucket(place("s3://some")).sizes()
    monkeypatch.setenv("AWS_PROFILE", "never")
    with pytest.raises(InputError, match="there are no AWS credentials"):
        Bucket(place("s3://some"))


def test_a_server_that_cannot_be_reached_is_the_machines_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.master.s3._ATTEMPTS", 1)
    credentials(monkeypatch, "http://127.0.0.1:1")
    with pytest.raises(MachineError, match="s3://some cannot be reached"):
        Bucket(place("s3://some")).sizes()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    with pytest.raises(InputError, match="mend AWS_ENDPOINT_URL"):
        Bucket(place("s3://some"))
