"""The catalogue of instance types, what was measured of them, and what AWS says of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from cluster import paths
from cluster.errors import InputError
from cluster.master.ec2 import catalogue, refresh, speeds
from cluster.master.ec2.client import Cloud
from tests import amazon as amazons

SHIPPED = catalogue.read(paths.data(*catalogue.SHIPPED))
NOW = datetime(2026, 11, 27, tzinfo=UTC)


@pytest.fixture
def amazon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """moto's server in Amazon's place, over HTTP."""
    with amazons.serving() as server:
        amazons.configure(monkeypatch, server.url)
        yield


def priced(usd: str) -> dict[str, Any]:
    """An answer of the pricing API, as the price list has it."""
    dimensions = {"a.b.c": {"unit": "Hrs", "pricePerUnit": {"USD": usd}}}
    return {"PriceList": [json.dumps({"terms": {"OnDemand": {"a.b": {"priceDimensions": dimensions}}}})]}


@pytest.fixture
def pricing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stubber]:
    """The pricing API, which moto has not."""
    with stubbed("pricing", monkeypatch) as stub:
        yield stub
        stub.assert_no_pending_responses()


def stubbed(service: str, monkeypatch: pytest.MonkeyPatch) -> Stubber:
    """botocore's own client of `service`, which checks what it is asked, with answers that are added."""
    client = boto3.Session().client(service, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    real = Cloud._client
    monkeypatch.setattr(Cloud, "_client", lambda cloud, name: client if name == service else real(cloud, name))
    return Stubber(client)


def test_what_ships_has_every_sort_of_host() -> None:
    assert 15 <= len(SHIPPED.types) <= 30
    offers = catalogue.offers(SHIPPED, "arm64")
    assert {offer.driver for offer in offers if offer.arch == "aarch64"} == {"native"}
    assert {offer.driver for offer in offers if offer.arch == "x86_64"} == {"emulated"}
    assert max(offer.slots for offer in offers) > 100
    assert all(one.spot_usd_h < one.usd_h for one in SHIPPED.types.values())


def test_what_a_processor_cannot_run_is_emulated_on_it() -> None:
    drivers = {target: {o.type: o.driver for o in catalogue.offers(SHIPPED, target)} for target in ("arm", "riscv")}
    assert drivers["arm"]["c7g.large"] == "native"
    assert drivers["arm"]["c8g.large"] == "emulated"
    assert set(drivers["riscv"].values()) == {"emulated"}


def test_nodes_are_as_many_as_processors_and_memory_bear() -> None:
    little = SHIPPED.types["c7g.4xlarge"].model_copy(update={"memory_gib": 5.0})
    none = little.model_copy(update={"memory_gib": 1.0})
    offers = catalogue.offers(SHIPPED.model_copy(update={"types": {"c7g.4xlarge": little, "c7g.large": none}}), "arm64")
    assert [(offer.type, offer.nodes) for offer in offers] == [("c7g.4xlarge", 2)]
    assert next(o for o in catalogue.offers(SHIPPED, "arm64") if o.type == "c7g.4xlarge").nodes == 8


def test_a_measured_speed_takes_the_place_of_the_estimate_for_its_family_too(tmp_path: Path) -> None:
    file = tmp_path / "ec2" / "speeds.json"
    assert speeds.read(file) == {}
    speeds.note(file, "c7g.large", "arm64", 2.0)
    speeds.note(file, "c7g.large", "arm64", 1.0)
    offers = {offer.type: offer for offer in catalogue.offers(SHIPPED, "arm64", speeds.read(file))}
    assert [(offers[name].speed, offers[name].measured) for name in ("c7g.large", "c7g.16xlarge")] == [(1.5, True)] * 2
    assert not offers["m7g.2xlarge"].measured
    assert {offer.measured for offer in catalogue.offers(SHIPPED, "arm", speeds.read(file))} == {False}


@pytest.mark.parametrize("text", ["[", "[1]", '{"c7g.large": {"arm64": "fast"}}', '{"c7g.large": {"arm64": 0}}'])
def test_a_broken_file_of_speeds_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "speeds.json").write_text(text)
    with pytest.raises(InputError, match=r"speeds\.json has .*: remove it"):
        speeds.read(tmp_path / "speeds.json")


def test_another_region_has_other_prices_and_an_unknown_one_none() -> None:
    there = SHIPPED.there("eu-central-1")
    assert there.types["c7g.large"].usd_h == pytest.approx(0.0725 * 1.14)
    assert there.there("us-east-1").types["c7g.large"].usd_h == pytest.approx(0.0725)
    with pytest.raises(InputError, match="--region mars-north-1 is not in the catalogue: regions: us-east-1"):
        SHIPPED.there("mars-north-1")


def test_unknown_types_are_named() -> None:
    assert list(SHIPPED.only(["c7g.large"]).types) == ["c7g.large"]
    with pytest.raises(InputError, match=r"--types z9\.large is not in the catalogue"):
        SHIPPED.only(["c7g.large", "z9.large"])


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("usd_h = 0.34, ", "usd_h = -1.0, ", r"types\.c5\.2xlarge\.usd_h: .*greater than 0"),
        ("least_s", "most_s", r"billing\.least_s: Field required"),
        ('"c5.2xlarge"', '"d5.2xlarge"', r"type d5\.2xlarge is of no family"),
        (", native = 1.30", "", r"families\.c6g: .*targets need `native`"),
        ('region = "us-east-1"', 'region = "moon"', "region moon is not in"),
        ("[startup]", "[startup", "is not TOML"),
    ],
)
def test_a_broken_catalogue_names_its_key(tmp_path: Path, before: str, after: str, complaint: str) -> None:
    text = paths.data(*catalogue.SHIPPED).read_text()
    assert before in text
    (tmp_path / "own.toml").write_text(text.replace(before, after, 1))
    with pytest.raises(InputError, match=complaint):
        catalogue.read(tmp_path / "own.toml")


@pytest.mark.slow
@pytest.mark.usefixtures("amazon")
def test_aws_is_asked_for_what_types_are_there_and_what_they_cost(pricing: Stubber) -> None:
    some = SHIPPED.only(["c5.2xlarge", "c6g.16xlarge", "c5.9xlarge"])
    types = {**some.types, "c5.77xlarge": some.types["c5.9xlarge"]}
    some = some.model_copy(update={"types": types})
    for usd in ("0.5", "2.5", "1.25"):
        pricing.add_response("get_products", priced(usd))
    said: list[str] = []
    found = refresh.refreshed(some, Cloud("us-east-1"), NOW, said.append)
    assert found.dated == NOW.date()
    assert {name: (one.vcpus, one.memory_gib, one.usd_h) for name, one in found.types.items()} == {
        "c5.2xlarge": (8, 16.0, 0.5),
        "c6g.16xlarge": (64, 128.0, 2.5),
        "c5.9xlarge": (36, 72.0, 1.25),
    }
    assert said[0] == "us-east-1 has no c5.77xlarge: left out"


@pytest.mark.slow
def test_spot_prices_are_the_median_of_a_day_in_all_zones(monkeypatch: pytest.MonkeyPatch, pricing: Stubber) -> None:
    described = {"InstanceType": "c7g.large", "VCpuInfo": {"DefaultVCpus": 2}, "MemoryInfo": {"SizeInMiB": 4096}}
    history = [{"InstanceType": "c7g.large", "SpotPrice": price} for price in ("0.03", "0.05", "0.031")]
    pricing.add_client_error("get_products", "AccessDeniedException", "no pricing:GetProducts")
    said: list[str] = []
    with stubbed("ec2", monkeypatch) as ec2:
        ec2.add_response("describe_instance_types", {"InstanceTypes": [described]})
        ec2.add_response("describe_spot_price_history", {"SpotPriceHistory": history})
        found = refresh.refreshed(SHIPPED.only(["c7g.large"]), Cloud("us-east-1"), NOW, said.append)
    assert (found.types["c7g.large"].spot_usd_h, found.types["c7g.large"].usd_h) == (0.031, 0.0725)
    assert "AWS refuses get_products (AccessDeniedException)" in said[0]
    assert said[1] == "no on-demand price of c7g.large: the one of 2025-06-01 stays"


@pytest.mark.slow
def test_a_region_without_any_of_the_types_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with stubbed("ec2", monkeypatch) as ec2:
        ec2.add_response("describe_instance_types", {"InstanceTypes": []})
        with pytest.raises(InputError, match="eu-west-1 has none of the catalogue's types"):
            refresh.refreshed(SHIPPED, Cloud("eu-west-1"), NOW, [].append)


def test_a_refreshed_catalogue_takes_the_place_of_the_shipped_one_in_its_region_alone() -> None:
    directories = paths.directories()
    dear = {name: one.model_copy(update={"usd_h": 99.0}) for name, one in SHIPPED.types.items()}
    own = SHIPPED.there("eu-west-1").model_copy(update={"dated": NOW.date(), "types": dear})
    catalogue.write(catalogue.refreshed_file(directories, "eu-west-1"), own)
    assert catalogue.load(directories, "eu-west-1") == own
    assert catalogue.load(directories) == SHIPPED
