"""Calls to AWS, over HTTP to moto's server."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from cluster.errors import InputError, MachineError
from cluster.master.ec2.client import Cloud, Refused
from tests import amazon as amazons
from tests.amazon import REGION, Amazon, refusal, times

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[Amazon]:
    with amazons.serving() as amazon:
        yield amazon


@pytest.fixture
def amazon(server: Amazon, monkeypatch: pytest.MonkeyPatch) -> Amazon:
    return amazons.cleared(server, monkeypatch)


def test_a_call_that_is_throttled_is_repeated(amazon: Amazon) -> None:
    amazon.faults.append(times(2, "DescribeSubnets", lambda: refusal("RequestLimitExceeded", status=503)))
    assert list(Cloud(REGION).each("describe_subnets", "Subnets"))
    assert len(amazon.asked("DescribeSubnets")) == 3


@pytest.mark.parametrize(
    ("code", "mend"),
    [
        ("RequestExpired", "have expired"),
        ("AuthFailure", "not valid"),
        ("UnauthorizedOperation", "cluster ec2 policy"),
        ("SomethingElse", "because"),
    ],
)
def test_a_refusal_says_how_to_mend_it(amazon: Amazon, code: str, mend: str) -> None:
    amazon.faults.append(times(1, "DescribeSubnets", lambda: refusal(code)))
    with pytest.raises(Refused, match=mend) as refused:
        list(Cloud(REGION).each("describe_subnets", "Subnets"))
    assert refused.value.code == code


def test_without_credentials_nothing_is_sent(amazon: Amazon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(InputError, match="no AWS credentials"):
        Cloud(REGION).call("describe_regions")
    assert not amazon.calls


def test_a_profile_that_is_not_there_is_named(amazon: Amazon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(InputError, match="nobody"):
        Cloud(REGION)


def test_an_unknown_region_is_named_before_anything_is_sent(amazon: Amazon) -> None:
    with pytest.raises(InputError, match="no region 'mars-north-1'"):
        Cloud("mars-north-1")
    assert not amazon.calls


def test_an_endpoint_that_is_not_there_is_the_machines_fault(amazon: Amazon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr("cluster.master.ec2.client._ATTEMPTS", 1)
    with pytest.raises(MachineError, match="describe_regions"):
        Cloud(REGION).call("describe_regions")


def test_secrets_are_not_logged_even_when_all_is(amazon: Amazon, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    Cloud(REGION).call("describe_regions")
    assert amazon.calls
    assert "not-to-be-logged" not in caplog.text
    assert not [record for record in caplog.records if record.name.startswith(("boto", "urllib3"))]
