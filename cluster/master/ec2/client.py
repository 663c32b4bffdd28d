"""Calls to AWS: one way to make them, and what their errors say. boto3 is imported when the first is made.

Throttled and failed calls are repeated by botocore itself, in its `adaptive` mode, which slows down as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cluster import lazy
from cluster.errors import InputError, MachineError
from cluster.master.aws import CREDENTIALS, silence

if TYPE_CHECKING:
    import boto3
    from botocore import config, exceptions, parsers
else:
    boto3 = lazy.module("boto3")
    config = lazy.module("botocore.config")
    exceptions = lazy.module("botocore.exceptions")
    parsers = lazy.module("botocore.parsers")

_ATTEMPTS = 8
_CONNECT_S = 10
_READ_S = 60  # of an instant fleet, which answers when its instances are there
_QUOTA = "the account may have no more vCPUs of that kind there: ask AWS for more (service quotas), or end some"
_MENDS = {
    "VcpuLimitExceeded": _QUOTA,
    "MaxSpotInstanceCountExceeded": _QUOTA,
    "AuthFailure": f"the credentials are not valid, or the region is not enabled in this account: {CREDENTIALS}",
    "InvalidClientTokenId": CREDENTIALS,
    "UnrecognizedClientException": CREDENTIALS,
    "SignatureDoesNotMatch": f"the secret key is wrong: {CREDENTIALS}",
    "RequestExpired": "the credentials have expired, or this machine's clock is wrong: renew them",
    "ExpiredToken": "the credentials have expired: renew them",
    "ExpiredTokenException": "the credentials have expired: renew them",
    "UnauthorizedOperation": "`cluster ec2 policy` prints the rights that are needed",
    "AccessDenied": "`cluster ec2 policy` prints the rights that are needed",
    "AccessDeniedException": "`cluster ec2 policy` prints the rights that are needed",
    "OptInRequired": "the region or service is not enabled in this account",
    "Blocked": "AWS has suspended the account",
}
"""How to mend what AWS refuses, by its code: EC2 API reference, "Error codes"."""


class Refused(MachineError):
    """AWS answered a call with the error `code`."""

    def __init__(self, action: str, code: str, message: str) -> None:
        super().__init__(f"AWS refuses {action} ({code})", _MENDS.get(code, message))
        self.code = code


class Cloud:
    """One region of AWS. Calls raise Refused, or InputError if there are no credentials."""

    def __init__(self, region: str) -> None:
        silence()
        with _translated("its regions"):
            session = boto3.Session()
        known = session.get_available_regions("ec2")
        if region not in known:
            raise InputError(f"AWS has no region {region!r}", f"regions: {', '.join(known)}")
        self.region = region
        self._session = session
        self._clients: dict[str, Any] = {}

    def call(self, action: str, /, service: str = "ec2", **parameters: Any) -> dict[str, Any]:
        """What `service` answers to `action`, by their names in boto3."""
        with _translated(action):
            answer: dict[str, Any] = getattr(self._client(service), action)(**parameters)
            return answer

    def each(self, action: str, key: str, /, **parameters: Any) -> Iterator[dict[str, Any]]:
        """What is listed by `key` in every page that EC2 answers to `action`."""
        with _translated(action):
            client = self._client("ec2")
            if not client.can_paginate(action):
                yield from getattr(client, action)(**parameters)[key]
                return
            for page in client.get_paginator(action).paginate(**parameters):
                yield from page[key]

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            settings = config.Config(
                retries={"mode": "adaptive", "total_max_attempts": _ATTEMPTS},
                connect_timeout=_CONNECT_S,
                read_timeout=_READ_S,
            )
            self._clients[service] = self._session.client(service, region_name=self.region, config=settings)
        return self._clients[service]


@contextmanager
def _translated(action: str) -> Iterator[None]:
    """Say errors of boto3 as ours."""
    try:
        yield
    except exceptions.ClientError as error:
        said = error.response.get("Error", {})
        raise Refused(action, said.get("Code", "?"), said.get("Message", str(error))) from error
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.ProfileNotFound) as error:
        raise InputError(f"there are no AWS credentials: {str(error).rstrip('.')}", CREDENTIALS) from error
    except (exceptions.BotoCoreError, parsers.ResponseParserError) as error:
        raise MachineError(f"AWS cannot be asked for {action}", str(error)) from error
