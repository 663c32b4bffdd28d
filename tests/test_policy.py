"""The rights that the policy grants are those that are needed: every call of a whole life of rentals is counted."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from werkzeug.wrappers import Response

from cluster import paths
from cluster.cli import run
from cluster.master.ec2 import hosting, joining, policy, reaper, refresh
from cluster.master.ec2.client import Cloud
from cluster.master.ec2.rental import TAG, Instance, Rentals, Span, State
from cluster.master.hosts.registry import Registry
from cluster.master.hosts.registry import State as HostState
from tests import amazon as amazons
from tests.amazon import REGION, Amazon, times

pytestmark = pytest.mark.slow

UP = ["ec2", "up", "--max-price", "5", "--budget", "20", "--from", "192.0.2.7/32"]


@pytest.fixture(scope="module")
def server() -> Iterator[Amazon]:
    with amazons.serving() as amazon:
        yield amazon


@pytest.fixture
def amazon(server: Amazon, monkeypatch: pytest.MonkeyPatch) -> Amazon:
    return amazons.cleared(server, monkeypatch)


@pytest.fixture(autouse=True)
def hosts_that_join(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ssh: every instance answers, and is fit."""

    def welcome(
        host_key: str, registry: Registry, identity: Path, drivers: object, prepare: object, measured: object
    ) -> joining.Welcome:
        def take(instance: Instance, deadline_s: float) -> None:
            made = hosting.machine(instance, host_key, {"arm64": 2}, drivers(instance.type))
            registry.save(replace(made, state=HostState.READY, reason=""))

        return take

    monkeypatch.setattr(hosting, "welcome", welcome)


def only_one_region() -> Response:
    item = f"<item><regionName>{REGION}</regionName></item>"
    text = f"<DescribeRegionsResponse><regionInfo>{item}</regionInfo></DescribeRegionsResponse>"
    return Response(text, content_type="text/xml")


def answer(capsys: pytest.CaptureFixture[str], *argv: str) -> dict:
    assert run([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_policy_grants_exactly_the_calls_that_are_made(
    amazon: Amazon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(capsys, *UP, "--instances", "c7g.4xlarge=1")
    answer(capsys, "ec2", "status")
    answer(capsys, "ec2", "down")
    cloud = Cloud(REGION)
    zone = next(cloud.each("describe_subnets", "Subnets"))["AvailabilityZone"]
    amazon.ec2.create_volume(size=1, zone_name=zone).add_tags({TAG: "another"})
    [request] = amazon.ec2.request_spot_instances(
        "1", amazon.images["arm64"], 1, "persistent", None, None, None, None, None, [], None, "c7g.large", None, None,
        None, False, None, {"spot-instances-request": {TAG: "another"}, "instance": {TAG: "another"}},
    )  # fmt: skip
    assert request.state == "active"
    left = answer(capsys, "ec2", "reap", "--all", "--region", REGION)["left"]
    assert {one["kind"] for one in left} >= {"instance", "spot-instances-request", "volume"}
    amazon.faults.append(times(1, "DescribeRegions", only_one_region))
    answer(capsys, "ec2", "reap", "--all", "--yes")
    assert not reaper.found(cloud)
    rights = {call.right.replace("service-quotas", "servicequotas") for call in amazon.calls}
    granted = policy.rights(policy.render())
    assert granted == rights | policy.IMPLIED | set(refresh.ACTIONS)
    assert rights.isdisjoint(policy.IMPLIED)


def test_what_changes_something_is_allowed_for_tagged_things_alone() -> None:
    made = policy.render("123456789012", REGION)
    for statement in made["Statement"]:
        changes = [right for right in statement["Action"] if not right.split(":")[1].startswith(("Describe", "Get"))]
        assert not changes or statement["Resource"] != "*"
        if any(right.split(":")[1].startswith(("Delete", "Terminate", "Cancel", "Auth")) for right in changes):
            assert statement["Condition"] == {"Null": {f"aws:ResourceTag/{TAG}": "false"}}
    assert "123456789012" in json.dumps(made)


def test_the_policy_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ec2", "policy", "--account", "123456789012", "--region", REGION]) == 0
    assert json.loads(capsys.readouterr().out) == policy.render("123456789012", REGION)


# The verbs


def test_a_rental_that_may_grow_remembers_what_its_instances_are_for(
    amazon: Amazon, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(capsys, *UP, "--instances", "c7g.4xlarge=1", "--grow", "--target", "arm64", "--target", "riscv")
    [rental] = Rentals(paths.directories().rentals).all()
    assert rental.grows
    assert rental.targets == ("arm64", "riscv")
    assert run(["ec2", "status"]) == 0
    assert "--grow" in capsys.readouterr().out
    assert run(["ec2", "down"]) == 0


def test_a_rental_is_shown_with_its_bill_and_let_go(amazon: Amazon, capsys: pytest.CaptureFixture[str]) -> None:
    [made] = answer(capsys, *UP, "--instances", "c7g.4xlarge=2")["rentals"]
    directories = paths.directories()
    assert {one.rented for one in Registry(directories.hosts).all()} == {one["id"] for one in made["instances"]}
    assert {one.drivers["arm64"] for one in Registry(directories.hosts).all()} == {"chroot"}
    [shown] = answer(capsys, "ec2", "status")["rentals"]
    assert shown["state"] == "up"
    assert 0 < shown["bill"]["total"] < 0.1
    assert run(["ec2", "status"]) == 0
    assert "2 c7g" not in (said := capsys.readouterr().out)
    assert made["run"] in said
    assert "--budget 20" in said
    host = made["instances"][0]["name"]
    Rentals(directories.rentals).note(made["run"], [Span("app-arch/gzip-1.13", host, 0.0, 9.0)])
    assert list(answer(capsys, "ec2", "status")["rentals"][0]["bill"]["packages"]) == ["app-arch/gzip-1.13"]
    [ended] = answer(capsys, "ec2", "down", made["run"])["rentals"]
    assert ended["state"] == "ended"
    assert not amazon.running()
    assert Registry(directories.hosts).all() == ()
    assert answer(capsys, "ec2", "status") == {"rentals": []}


def test_hosts_that_are_to_compile_are_rented_without_nodes(
    amazon: Amazon, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [made] = answer(capsys, *UP, "--instances", "c7g.4xlarge=2", "--compiling", "c7g.4xlarge=1")["rentals"]
    assert sorted(one["compiles_only"] for one in made["instances"]) == [False, False, True]
    (smithy,) = [one for one in Registry(paths.directories().hosts).all() if one.compiles_only]
    assert smithy.rented == next(one["id"] for one in made["instances"] if one["compiles_only"])
    assert run(["ec2", "status"]) == 0
    assert capsys.readouterr().out.count("c7g.4xlarge to compile") == 1
    answer(capsys, "ec2", "down", made["run"])
    plan = tmp_path / "plan.json"
    mix = {"instances": {"c7g.large": 2, "c7a.4xlarge": 1}, "compiling": {"c7a.4xlarge": 1}, "market": "spot"}
    plan.write_text(json.dumps({"mixes": [mix]}))
    said = answer(capsys, *UP, "--plan", str(plan), "--dry-run")
    assert (said["instances"], said["compiling"]) == ({"c7g.large": 2, "c7a.4xlarge": 1}, {"c7a.4xlarge": 1})
    assert answer(capsys, *UP, "--compiling", "c7a.4xlarge=1", "--dry-run")["instances"] == {"c7a.4xlarge": 1}


def test_a_mix_of_a_saved_plan_is_rented(amazon: Amazon, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tmp_path / "plan.json"
    mixes = [
        {"instances": {"c7g.large": 1}, "market": "spot"},
        {"instances": {"c7a.4xlarge": 1}, "market": "on-demand"},
    ]
    plan.write_text(json.dumps({"mixes": mixes}))
    said = answer(capsys, *UP, "--plan", str(plan), "--mix", "2", "--dry-run")
    assert said["instances"] == {"c7a.4xlarge": 1}
    assert said["market"] == "on-demand"
    assert said["hours"] * said["usd_h"] <= 20
    assert not amazon.running()
    assert not Rentals(paths.directories().rentals).all()


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--instances", "c7g.large"], "'c7g.large' is not TYPE=N"),
        (["--instances", "c7g.large=0"], "not TYPE=N"),
        (["--instances", "c7g.large=1", "--compiling", "c7g.large"], "--compiling 'c7g.large' is not TYPE=N"),
        ([], "what is to be rented is not said"),
        (["--plan", "/nowhere", "--mix", "1"], "/nowhere cannot be read"),
        (["--instances", "c7g.large=1", "--region", "mars-1"], "mars-1"),
        (["--instances", "c7g.large=1", "--target", "vax"], "vax"),
        (["--instances", "c7g.large=1", "--budget", "0"], "--budget 0"),
        (["--instances", "c7g.large=1", "--silence", "0"], "--silence 0"),
        (["--instances", "c7g.large=1", "--from", "0.0.0.0/0"], "half the world"),
        (["--instances", "c7g.large=1", "--from", "home"], "'home' is not a network"),
    ],
)
def test_bad_words_are_named_and_nothing_is_made(
    amazon: Amazon, capsys: pytest.CaptureFixture[str], words: list[str], names: str
) -> None:
    usual = [UP[n : n + 2] for n in range(2, len(UP), 2) if UP[n] not in words]
    assert run(["ec2", "up", *(word for pair in usual for word in pair), *words]) == 1
    said = capsys.readouterr().err
    assert names in said
    assert said.count("\n") == 1
    assert not amazon.asked("ImportKeyPair")


def test_without_credentials_nothing_is_rented(
    amazon: Amazon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert run([*UP, "--instances", "c7g.large=1"]) == 1
    assert "no AWS credentials" in capsys.readouterr().err


def test_secrets_are_not_logged_even_when_all_is(
    amazon: Amazon, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert run([*UP, "--instances", "c7g.large=1", "--debug"]) == 0
    assert run(["ec2", "down", "--debug"]) == 0
    said = "".join((caplog.text, *capsys.readouterr()))
    [rental] = Rentals(paths.directories().rentals).all()
    host_key = (Rentals(paths.directories().rentals).place(rental.run) / "host_key").read_text().splitlines()[1]
    assert rental.run in said
    assert host_key not in said
    assert "not-to-be-logged" not in said


def test_reap_leaves_what_is_up_and_what_others_have(amazon: Amazon, capsys: pytest.CaptureFixture[str]) -> None:
    [up] = answer(capsys, *UP, "--instances", "c7g.large=1")["rentals"]
    [dead] = answer(capsys, *UP, "--instances", "c7g.large=1")["rentals"]
    rentals = Rentals(paths.directories().rentals)
    rentals.save(replace(rentals.get(dead["run"]), state=State.STARTING))
    listed = answer(capsys, "ec2", "reap")
    assert {one["run"] for one in listed["left"]} == {dead["run"]}
    assert len(amazon.running()) == 2
    assert answer(capsys, "ec2", "reap", "--yes")["removed"]
    assert [one.id for one in amazon.running()] == [up["instances"][0]["id"]]
    assert rentals.get(dead["run"]).state is State.ENDED
    assert answer(capsys, "ec2", "reap", "--yes")["left"] == []
    assert run(["ec2", "down"]) == 0
    assert not amazon.running()
