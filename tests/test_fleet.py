"""Instances of a quote, from moto over HTTP: what is asked for, what is had, and what is left."""

from __future__ import annotations

import base64
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.servicequotas.models import servicequotas_backends
from werkzeug.wrappers import Response

from cluster import paths
from cluster.errors import ClusterError, InputError, MachineError, NodeLost
from cluster.master.ec2 import catalogue, joining, policy, reaper, renting
from cluster.master.ec2.client import Cloud, Refused
from cluster.master.ec2.quote import Quote, quote
from cluster.master.ec2.rental import TAG, Instance, Limits, Market, Rental, Rentals, State, Wish
from cluster.master.ec2.renting import Terms
from tests import amazon as amazons
from tests.amazon import REGION, Amazon, Call, refusal, times

pytestmark = pytest.mark.slow

CATALOGUE = catalogue.read(paths.data(*catalogue.SHIPPED))
ROOMY = Limits(hosts=10, usd_h=50, budget_usd=500, hours=2)
TERMS = Terms(source="192.0.2.7/32", silence_min=30, master="ssh-ed25519 MASTER")


@pytest.fixture(scope="module")
def server() -> Iterator[Amazon]:
    with amazons.serving() as amazon:
        yield amazon


@pytest.fixture
def amazon(server: Amazon, monkeypatch: pytest.MonkeyPatch) -> Iterator[Amazon]:
    yield amazons.cleared(server, monkeypatch)
    granted = policy.rights(policy.render())
    assert {call.right for call in server.calls} <= granted


@pytest.fixture
def cloud(amazon: Amazon) -> Cloud:
    return amazon.cloud


@pytest.fixture
def rentals(tmp_path: Path) -> Rentals:
    return Rentals(tmp_path / "ec2")


def wish(market: Market = Market.ON_DEMAND, limits: Limits = ROOMY, **instances: int) -> Wish:
    named = {name.replace("_", "."): count for name, count in instances.items()}
    return Wish(named or {"c7g.4xlarge": 2}, market, REGION, limits)


def quoted(cloud: Cloud, wanted: Wish | None = None, image: str = "") -> Quote:
    return quote(cloud, replace(wanted or wish(), image=image), CATALOGUE)


def welcomed(rental: Rental) -> joining.Welcome:
    return lambda instance, deadline_s: None


def up(
    cloud: Cloud,
    rentals: Rentals,
    wanted: Wish | None = None,
    *,
    welcome: Callable[[Rental], joining.Welcome] = welcomed,
    said: list[str] | None = None,
) -> Rental:
    tell = (said if said is not None else []).append
    return renting.up(cloud, quoted(cloud, wanted), TERMS, rentals, welcome, tell, deadline_s=60)


# What is asked for


def test_instances_of_both_architectures_are_rented_and_nothing_is_left_when_they_are_let_go(
    amazon: Amazon, cloud: Cloud, rentals: Rentals
) -> None:
    rental = up(cloud, rentals, wish(c7g_4xlarge=2, c7a_4xlarge=1))
    assert rentals.get(rental.run) == rental
    assert rental.state is State.UP
    assert sorted(one.type for one in rental.living) == ["c7a.4xlarge", "c7g.4xlarge", "c7g.4xlarge"]
    assert {(one.instance_type, one.image_id) for one in amazon.running()} == {
        ("c7g.4xlarge", amazon.images["arm64"]),
        ("c7a.4xlarge", amazon.images["x86_64"]),
    }
    assert all(one.joined and one.address for one in rental.living)
    kinds = {one.kind for one in renting.down(cloud, rentals, rental.run)}
    assert kinds >= {"fleet", "launch-template", "security-group", "key-pair"}
    assert not reaper.found(cloud)
    assert not amazon.running()
    ended = rentals.get(rental.run)
    assert (ended.state, ended.living) == (State.ENDED, ())


def test_a_template_asks_for_what_keeps_an_instance_closed_and_ends_it(
    amazon: Amazon, cloud: Cloud, rentals: Rentals
) -> None:
    rental = up(cloud, rentals)
    [asked] = amazon.asked("CreateLaunchTemplate")
    data = {key.removeprefix("LaunchTemplateData."): value for key, value in asked.parameters.items()}
    tagged = [value for key, value in asked.parameters.items() if key.endswith("ResourceType")]
    assert sorted(tagged) == ["instance", "launch-template", "network-interface", "volume"]
    assert {value for key, value in asked.parameters.items() if ".Tag." in key} == {TAG, rental.run}
    expected = {
        "MetadataOptions.HttpTokens": "required",
        "MetadataOptions.HttpPutResponseHopLimit": "1",
        "InstanceInitiatedShutdownBehavior": "terminate",
        "BlockDeviceMapping.1.DeviceName": "/dev/xvda",
        "BlockDeviceMapping.1.Ebs.Encrypted": "true",
        "BlockDeviceMapping.1.Ebs.DeleteOnTermination": "true",
        "BlockDeviceMapping.1.Ebs.VolumeType": "gp3",
        "BlockDeviceMapping.1.Ebs.VolumeSize": "100",
        "ImageId": amazon.images["arm64"],
    }
    assert {key: data.get(key) for key in expected} == expected
    user_data = base64.b64decode(data["UserData"]).decode()
    assert "ssh-ed25519 MASTER" in user_data
    assert "--silence-s 1800 --end-s 6900" in user_data
    assert "IamInstanceProfile.Name" not in data


def test_nothing_comes_in_but_ssh_from_the_master(amazon: Amazon, cloud: Cloud, rentals: Rentals) -> None:
    up(cloud, rentals)
    [group] = cloud.each("describe_security_groups", "SecurityGroups", Filters=[{"Name": "tag-key", "Values": [TAG]}])
    [rule] = group["IpPermissions"]
    assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) == ("tcp", 22, 22)
    assert [one["CidrIp"] for one in rule["IpRanges"]] == ["192.0.2.7/32"]


@pytest.mark.parametrize("market", list(Market))
def test_amazon_itself_is_told_the_most_that_may_be_paid(
    amazon: Amazon, cloud: Cloud, rentals: Rentals, market: Market
) -> None:
    rental = up(cloud, rentals, wish(market))
    [asked] = amazon.asked("CreateFleet")
    option = "SpotOptions" if market is Market.SPOT else "OnDemandOptions"
    most = float(asked.parameters[f"{option}.MaxTotalPrice"])
    assert most <= sum(one.usd_h for one in rental.living) <= rental.limits.usd_h
    assert asked.parameters["Type"] == "instant"
    strategy = "price-capacity-optimized" if market is Market.SPOT else "lowest-price"
    assert asked.parameters[f"{option}.AllocationStrategy"] == strategy
    subnets = {value for key, value in asked.parameters.items() if key.endswith("SubnetId")}
    assert len(subnets) > 2
    assert ("LaunchTemplateConfigs.1.Overrides.1.MaxPrice" in asked.parameters) is (market is Market.SPOT)


# Bad input, before anything is made

MAKING = {"CreateFleet", "CreateLaunchTemplate", "CreateSecurityGroup", "ImportKeyPair"}


@pytest.mark.parametrize(
    ("wanted", "image", "names"),
    [
        (wish(c9z_large=1), "", "c9z.large is not in the catalogue"),
        (wish(limits=Limits(1, 50, 500)), "", "--max-hosts 1"),
        (wish(limits=Limits(9, 1.0, 500)), "", "--max-price 1"),
        (wish(limits=Limits(9, 50, 1.0)), "", "too small for one hour"),
        (wish(limits=Limits(9, 50, 5, hours=10)), "", "--budget 5"),
        (wish(), "ami-00000000", "has no image ami-00000000"),
        (wish(), "x86_64", "is for x86_64, and c7g.4xlarge is arm64"),
    ],
)
def test_bad_input_is_said_before_anything_is_made(
    amazon: Amazon, cloud: Cloud, wanted: Wish, image: str, names: str
) -> None:
    with pytest.raises(InputError, match=names):
        quoted(cloud, wanted, amazon.images.get(image, image))
    assert MAKING.isdisjoint(call.action for call in amazon.calls)


def test_a_type_that_the_region_has_not_is_named(amazon: Amazon, cloud: Cloud) -> None:
    nothing = "<DescribeInstanceTypesResponse><instanceTypeSet/></DescribeInstanceTypesResponse>"
    amazon.faults.append(times(1, "DescribeInstanceTypes", lambda: Response(nothing, content_type="text/xml")))
    with pytest.raises(InputError, match=r"us-east-1 has no instance type c7g\.4xlarge"):
        quoted(cloud)


def test_more_than_the_quota_is_refused(amazon: Amazon, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = type(servicequotas_backends[DEFAULT_ACCOUNT_ID][REGION])
    monkeypatch.setattr(backend, "get_service_quota", lambda self, service_code, quota_code: {"Value": 16.0})
    with pytest.raises(InputError, match=r"32 vCPUs are more than the 16 .* on-demand in us-east-1"):
        quoted(cloud)
    assert quoted(cloud, wish(c7g_4xlarge=1)).hours == 2


# Not all is to be had


def short(count: int, action: str = "CreateFleet") -> Callable[[], Response]:
    text = (
        "<CreateFleetResponse><fleetId>fleet-1</fleetId><fleetInstanceSet/><errorSet><item>"
        "<errorCode>InsufficientInstanceCapacity</errorCode><errorMessage>none</errorMessage></item></errorSet>"
        "</CreateFleetResponse>"
    )
    return lambda: Response(text, content_type="text/xml")


def test_types_that_are_alike_and_no_dearer_stand_in(amazon: Amazon, cloud: Cloud, rentals: Rentals) -> None:
    amazon.faults.append(times(1, "CreateFleet", short(2)))
    rental = up(cloud, rentals, wish(c8g_4xlarge=2))
    assert {one.type for one in rental.living} == {"c7g.4xlarge"}
    assert rental.missing == ()
    assert sum(one.usd_h for one in rental.living) <= quoted(cloud, wish(c8g_4xlarge=2)).usd_h


def test_a_part_of_a_fleet_is_taken_and_what_is_missing_is_said(amazon: Amazon, cloud: Cloud, rentals: Rentals) -> None:
    def one_less(call: Call) -> Response | None:
        """As if Amazon had one less: the second instance is asked for in vain."""
        if call.action != "CreateFleet":
            return None
        if call.parameters["LaunchTemplateConfigs.1.Overrides.1.InstanceType"] == "c7a.4xlarge":
            return short(1)()
        return None

    amazon.faults.append(one_less)
    rental = up(cloud, rentals, wish(c7g_4xlarge=1, c7a_4xlarge=1))
    standing_in = [one.type for one in rental.living if one.type != "c7g.4xlarge"]
    assert standing_in == ["c6i.4xlarge"]
    amazon.faults[:] = [times(9, "CreateFleet", short(1))]
    with pytest.raises(MachineError, match=r"no instance is to be had.*InsufficientInstanceCapacity"):
        up(cloud, rentals, wish(c7g_4xlarge=1))


def test_a_throttled_fleet_is_asked_for_again_and_not_twice_made(
    amazon: Amazon, cloud: Cloud, rentals: Rentals
) -> None:
    amazon.faults.append(times(1, "CreateFleet", lambda: refusal("RequestLimitExceeded", status=503)))
    up(cloud, rentals)
    tokens = {call.parameters["ClientToken"] for call in amazon.asked("CreateFleet")}
    assert len(amazon.asked("CreateFleet")) == 2
    assert len(tokens) == 1
    assert len(amazon.running()) == 2


@pytest.mark.parametrize("action", ["CreateSecurityGroup", "CreateLaunchTemplate", "CreateFleet"])
def test_after_an_error_all_that_was_made_is_removed(
    amazon: Amazon, cloud: Cloud, rentals: Rentals, action: str
) -> None:
    amazon.faults.append(times(1, action, lambda: refusal("UnauthorizedOperation")))
    with pytest.raises(Refused, match="cluster ec2 policy"):
        up(cloud, rentals)
    assert not reaper.found(cloud)
    [rental] = rentals.all()
    assert rental.state is State.ENDED


def test_an_interrupted_rental_is_ended(amazon: Amazon, cloud: Cloud, rentals: Rentals) -> None:
    def interrupted(rental: Rental) -> joining.Welcome:
        raise KeyboardInterrupt

    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        up(cloud, rentals, welcome=interrupted, said=said)
    assert not amazon.running()
    assert not reaper.found(cloud), said


def test_an_instance_that_does_not_join_is_ended_and_said(amazon: Amazon, cloud: Cloud, rentals: Rentals) -> None:
    def choosy(rental: Rental) -> joining.Welcome:
        refused = rental.living[0].id

        def take(instance: Instance, deadline_s: float) -> None:
            if instance.id == refused:
                raise NodeLost("it answers with another key")

        return take

    rental = up(cloud, rentals, welcome=choosy)
    [gone] = [one for one in rental.instances if one.until]
    assert gone.why == "it answers with another key"
    assert [one.id for one in amazon.running()] == [one.id for one in rental.living]


def test_if_none_joins_there_is_no_rental(amazon: Amazon, cloud: Cloud, rentals: Rentals) -> None:
    def never(rental: Rental) -> joining.Welcome:
        def take(instance: Instance, deadline_s: float) -> None:
            raise NodeLost("silence")

        return take

    with pytest.raises(MachineError, match="silence"):
        up(cloud, rentals, welcome=never)
    assert not amazon.running()


def test_what_ends_by_itself_is_seen(amazon: Amazon, cloud: Cloud, rentals: Rentals) -> None:
    rental = up(cloud, rentals)
    amazon.ec2.terminate_instances([rental.instances[0].id])
    after = joining.seen(cloud, rental)
    assert len(after.living) == 1
    assert "shutdown" in next(one.why for one in after.instances if one.until)


# Killed anywhere


def killed_up(own: Cloud, rentals: Rentals, event: str, at: int) -> int:
    """Run `up` in a process that gets SIGKILL at its `at`-th `event` of botocore; returns how it ended."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    try:
        seen = [0]

        def kill(**_: object) -> None:
            seen[0] += 1
            if seen[0] == at:
                os.kill(os.getpid(), signal.SIGKILL)

        own._client("ec2").meta.events.register(event, kill)
        up(own, rentals, wish(c7g_4xlarge=1, c7a_4xlarge=1))
    except ClusterError:
        os._exit(1)
    os._exit(0)


@pytest.mark.parametrize(
    ("event", "calls"),
    [
        ("response-received.ec2.CreateFleet", 2),
        pytest.param("before-send.ec2", 12, marks=pytest.mark.vm),
        pytest.param("response-received.ec2", 12, marks=pytest.mark.vm),
    ],
)
def test_a_master_killed_at_any_call_leaves_nothing_that_reap_misses(
    amazon: Amazon, cloud: Cloud, tmp_path: Path, event: str, calls: int
) -> None:
    own = Cloud(REGION)  # of the children: it has its clients, and no connection that they would share
    for service in ("ec2", "ssm", "service-quotas"):
        own._client(service)
    left_behind = set()
    for at in range(1, 100):
        amazon.clear()
        rentals = Rentals(tmp_path / f"{event}-{at}")
        ended = killed_up(own, rentals, event, at)
        runs = {one.run for one in rentals.all()}
        left_behind |= {one.kind for one in reaper.found(cloud)}
        reaper.remove(cloud, runs)
        assert everything(cloud) == [], f"killed at call {at}"
        if ended == 0:
            break
        assert ended == signal.SIGKILL
    assert at > calls
    assert left_behind == {"fleet", "instance", "volume", "launch-template", "security-group", "key-pair"}


def everything(cloud: Cloud) -> list[str]:
    """All that is there, tagged or not, by asking for it without a filter."""
    instances = [
        one["InstanceId"]
        for some in cloud.each("describe_instances", "Reservations")
        for one in some["Instances"]
        if one["State"]["Name"] != "terminated"
    ]
    groups = [one["GroupId"] for one in cloud.each("describe_security_groups", "SecurityGroups")]
    own = [one for one in groups if one not in DEFAULT_GROUPS(cloud)]
    pairs = [one["KeyName"] for one in cloud.each("describe_key_pairs", "KeyPairs")]
    templates = [one["LaunchTemplateId"] for one in cloud.each("describe_launch_templates", "LaunchTemplates")]
    fleets = [one["FleetId"] for one in cloud.each("describe_fleets", "Fleets") if "deleted" not in one["FleetState"]]
    volumes = [one["VolumeId"] for one in cloud.each("describe_volumes", "Volumes")]
    requests = [
        one["SpotInstanceRequestId"] for one in cloud.each("describe_spot_instance_requests", "SpotInstanceRequests")
    ]
    return [*instances, *own, *pairs, *templates, *fleets, *volumes, *requests]


def DEFAULT_GROUPS(cloud: Cloud) -> set[str]:  # noqa: N802
    named = [{"Name": "group-name", "Values": ["default"]}]
    return {one["GroupId"] for one in cloud.each("describe_security_groups", "SecurityGroups", Filters=named)}
