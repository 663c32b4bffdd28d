"""Objects in a bucket of Amazon S3, or of another server of its protocol that AWS_ENDPOINT_URL names.

Credentials, region and endpoint are found as every AWS tool finds them. Failed and throttled calls are repeated by
botocore itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster import lazy
from cluster.errors import ClusterError, InputError, MachineError
from cluster.master.aws import CREDENTIALS, silence

if TYPE_CHECKING:
    import boto3
    from boto3 import exceptions as boto3_exceptions
    from botocore import config, exceptions
else:
    boto3 = lazy.module("boto3")
    boto3_exceptions = lazy.module("boto3.exceptions")
    config = lazy.module("botocore.config")
    exceptions = lazy.module("botocore.exceptions")

_ATTEMPTS = 5
_CONNECT_S = 10
_READ_S = 60
_CONNECTIONS = 80  # eight files at once, each in ten parts
_PLACE = re.compile(r"s3://([a-z0-9][a-z0-9.-]+)(?:/(.*))?")
_RIGHTS = "it takes s3:ListBucket of the bucket, s3:GetObject and s3:PutObject of its objects"
_REGION = "name the bucket's region by AWS_DEFAULT_REGION"
_MENDS = {
    "NoSuchBucket": "make it first, or mend the name",
    "AccessDenied": _RIGHTS,
    "403": _RIGHTS,
    "InvalidAccessKeyId": CREDENTIALS,
    "SignatureDoesNotMatch": f"the secret key is wrong: {CREDENTIALS}",
    "ExpiredToken": "the credentials have expired: renew them",
    "RequestTimeTooSkewed": "set this machine's clock",
    "PermanentRedirect": _REGION,
    "301": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "404": "an object that was named is gone: push it again",
    "NotImplemented": "the server knows no conditional writes, without which two masters overwrite each other's index",
}
"""How to mend what S3 refuses, by its code: S3 API reference, "Error responses"."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where objects are: a bucket, and what their keys begin with."""

    bucket: str
    prefix: str
    """Without slashes at its ends."""

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def below(self, name: str) -> Place:
        """The place `name` in this one."""
        return Place(self.bucket, self.key(name))

    def key(self, name: str) -> str:
        """The key of the object `name`."""
        return f"{self.prefix}/{name}".strip("/")


def place(text: str) -> Place:
    """The place that `text`, s3://BUCKET/PREFIX, names. Raises InputError."""
    found = _PLACE.fullmatch(text)
    if found is None:
        raise InputError(f"{text!r} is no place in S3", "write s3://BUCKET/PREFIX")
    return Place(found[1], (found[2] or "").strip("/"))


class Changed(Exception):
    """An object is not any more what it was when it was read."""


class Bucket:
    """The objects at a place. May be used by several threads.

    Its methods raise InputError and MachineError, in one line that says how to mend it.
    """

    def __init__(self, place: Place) -> None:
        silence()
        self.place = place
        retries = {"mode": "standard", "total_max_attempts": _ATTEMPTS}
        with _told(place):
            settings = config.Config(
                connect_timeout=_CONNECT_S, read_timeout=_READ_S, retries=retries, max_pool_connections=_CONNECTIONS
            )
            try:
                self._s3 = boto3.Session().client("s3", config=settings)
            except ValueError as error:
                raise InputError(str(error), "mend AWS_ENDPOINT_URL") from error

    def sizes(self) -> dict[str, int]:
        """The bytes of every object."""
        prefix = self.place.key("") and f"{self.place.prefix}/"
        with _told(self.place):
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.place.bucket, Prefix=prefix)
            return {
                entry["Key"].removeprefix(prefix): entry["Size"] for page in pages for entry in page.get("Contents", ())
            }

    def read(self, name: str) -> tuple[bytes, str] | None:
        """The content of the small object `name`, and what tells that from any other; None without one."""
        with _told(self.place):
            try:
                answer = self._s3.get_object(**self._named(name), ChecksumMode="ENABLED")
                return answer["Body"].read(), answer["ETag"]
            except self._s3.exceptions.NoSuchKey:
                return None

    def replace(self, name: str, content: bytes, before: str | None) -> None:
        """Write the small object `name`, if it is still what `read` said by `before`; Changed if not."""
        condition = {"IfNoneMatch": "*"} if before is None else {"IfMatch": before}
        told = {"ContentType": "text/plain; charset=utf-8", "CacheControl": "no-cache"}
        with _told(self.place):
            try:
                self._s3.put_object(**self._named(name), Body=content, ChecksumAlgorithm="SHA256", **condition, **told)
            except exceptions.ClientError as error:
                if _code(error) in ("PreconditionFailed", "412", "ConditionalRequestConflict", "409", "NoSuchKey"):
                    raise Changed from error
                raise

    def upload(self, file: Path, name: str) -> None:
        """Write `file` to the object `name`, in parts if it is large; S3 checks the SHA-256 of what arrives."""
        with _told(self.place):
            told = {"ChecksumAlgorithm": "SHA256"}
            self._s3.upload_file(str(file), self.place.bucket, self.place.key(name), ExtraArgs=told)

    def download(self, name: str, file: Path) -> None:
        """Write the object `name` to `file`."""
        with _told(self.place):
            told = {"ChecksumMode": "ENABLED"}
            self._s3.download_file(self.place.bucket, self.place.key(name), str(file), ExtraArgs=told)

    def _named(self, name: str) -> dict[str, str]:
        return {"Bucket": self.place.bucket, "Key": self.place.key(name)}


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def _told(place: Place) -> Iterator[None]:
    """Say errors of boto3 as ours."""
    try:
        yield
    except (exceptions.BotoCoreError, exceptions.ClientError, boto3_exceptions.Boto3Error) as error:
        raise _ours(error, place) from error


def _ours(error: Exception, place: Place) -> ClusterError:
    if isinstance(error, boto3_exceptions.S3UploadFailedError) and error.__context__ is not None:
        error = error.__context__ if isinstance(error.__context__, Exception) else error
    if isinstance(error, exceptions.ClientError):
        code = _code(error)
        mend = _MENDS.get(code) or error.response.get("Error", {}).get("Message", "")
        return InputError(f"S3 refuses {place} ({code})", mend)
    credentials = (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.ProfileNotFound)
    if isinstance(error, credentials):
        return InputError(f"there are no AWS credentials for {place}", CREDENTIALS)
    return MachineError(f"{place} cannot be reached", " ".join(str(error).split()))
