"""Rentals that grow and shrink while a build runs, with moto over HTTP: the calls, the records, and the whole."""

from __future__ import annotations

import base64
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from factories import package, plan
from processes import eventually
from scheduling import task
from werkzeug.wrappers import Response

from cluster import paths
from cluster.cli import run as command
from cluster.errors import InputError, NodeLost
from cluster.host.facts import Facts, Rates
from cluster.master import dispatch, rented
from cluster.master.ec2 import (
    catalogue,
    hosting,
    joining,
    notices,
    policy,
    quote,
    reaper,
    renting,
    speeds,
    steward,
    sweeping,
)
from cluster.master.ec2.client import Cloud, Refused
from cluster.master.ec2.estate import Estate
from cluster.master.ec2.ledger import Ledger
from cluster.master.ec2.rental import TAG, Instance, Limits, Market, Rental, Rentals, State, Wish
from cluster.master.ec2.steward import Leave, Steward
from cluster.master.engines.engine import Came, Change, Ended
from cluster.master.hosts import link, setup
from cluster.master.hosts.registry import Machine, Registry
from cluster.master.hosts.registry import State as HostState
from cluster.master.schedule import tasks
from cluster.master.schedule.hosts import Host
from cluster.model import Job, Outcome, Verdict
from tests import amazon as amazons
from tests.amazon import REGION, Amazon, Call, refusal, times

pytestmark = pytest.mark.slow

CATALOGUE = catalogue.read(paths.data(*catalogue.SHIPPED))
MASTER = "ssh-ed25519 MASTER"
TERMS = renting.Terms(source="192.0.2.7/32", silence_min=30, master=MASTER)
LIMITS = Limits(hosts=3, usd_h=5.0, budget_usd=50.0)
HOUR = 3600.0
FACTS = Facts("aarch64", 2, 4000, 90000, "3.11.2", "0.1.0", "Debian 12", False, 0.0, Rates(700.0, 900.0), 1.25)


@pytest.fixture(scope="module")
def server() -> Iterator[Amazon]:
    with amazons.serving() as amazon:
        yield amazon


@pytest.fixture
def amazon(server: Amazon, monkeypatch: pytest.MonkeyPatch) -> Iterator[Amazon]:
    monkeypatch.setattr(joining, "POLL_S", 0.05)
    yield amazons.cleared(server, monkeypatch)
    granted = policy.rights(policy.render())
    assert {call.right.replace("service-quotas", "servicequotas") for call in server.calls} <= granted


@pytest.fixture
def cloud(amazon: Amazon) -> Cloud:
    return amazon.cloud


@dataclass
class Household:
    """A rental of one instance that is up, and what is to be done about it."""

    estate: Estate
    cloud: Cloud
    rentals: Rentals
    registry: Registry
    run: str
    refused: list[str] = field(default_factory=list)
    """Why the next instances do not join."""

    @property
    def rental(self) -> Rental:
        return self.rentals.get(self.run)

    def grown(self, count: int = 1) -> tuple[tuple[Instance, ...], str]:
        quoted = self.estate.quote(self.rental, {"c7g.large": count}, time.time())
        return self.estate.rent(self.rental, quoted)

    def welcome(self, rental: Rental) -> joining.Welcome:
        def take(instance: Instance, deadline_s: float) -> None:
            if self.refused:
                raise NodeLost(self.refused.pop())
            made = hosting.machine(instance, "", {"arm64": 1}, {"arm64": "chroot"})
            self.registry.save(replace(made, state=HostState.READY, reason=""))

        return take


@pytest.fixture
def home(cloud: Cloud) -> Iterator[Household]:
    directories = paths.directories()
    rentals, registry = Rentals(directories.rentals), Registry(directories.hosts)
    made: Household
    estate = Estate(
        rentals, registry, "arm64", lambda region: CATALOGUE, lambda: speeds.NONE, lambda region: cloud,
        lambda known: made.welcome, MASTER,
    )  # fmt: skip
    made = Household(estate, cloud, rentals, registry, "")
    wish = Wish({"c7g.large": 1}, Market.ON_DEMAND, REGION, LIMITS, ("arm64",), grows=True)
    quoted = quote.quote(cloud, wish, CATALOGUE)
    made.run = renting.up(cloud, quoted, TERMS, rentals, made.welcome, lambda text: None).run
    yield made
    if made.rental.state is State.UP:
        renting.down(cloud, rentals, made.run)
    assert not reaper.found(cloud)


def user_data(call: Call) -> str:
    return base64.b64decode(call.parameters["LaunchTemplateData.UserData"]).decode()


def test_a_rental_grows_with_instances_like_its_own_that_end_with_it(amazon: Amazon, home: Household) -> None:
    made, why = home.grown(2)
    assert (len(made), why) == (2, "")
    assert len(amazon.running()) == len(home.rental.living) == 3
    first, second = amazon.asked("CreateLaunchTemplate")
    for key in ("KeyName", "SecurityGroupId.1", "ImageId", "InstanceInitiatedShutdownBehavior"):
        assert second.parameters[f"LaunchTemplateData.{key}"] == first.parameters[f"LaunchTemplateData.{key}"]
    assert {value for key, value in second.parameters.items() if ".Tag." in key} == {TAG, home.run}
    before, after = (int(re.findall(r"--end-s (\d+)", user_data(call))[0]) for call in (first, second))
    assert before - 600 < after <= before
    joined = home.estate.join(home.rental, made)
    assert all(one.joined and one.address for one in joined)
    assert {one.rented for one in home.registry.all()} == {one.id for one in home.rental.living}


def test_one_that_does_not_join_is_ended_and_others_that_were_let_go_stay_so(amazon: Amazon, home: Household) -> None:
    (first, second), _ = home.grown(2)
    home.estate.let_go(home.rental, frozenset({first.name}), "it was needed no more")
    home.refused.append("it answers with another key")
    home.estate.join(home.rental, (first, second))
    ends = {one.id: one.why for one in home.rental.instances if one.until is not None}
    assert ends == {first.id: "it was needed no more", second.id: "it answers with another key"}
    assert len(amazon.running()) == 1


def test_what_is_let_go_is_terminated_and_forgotten(amazon: Amazon, home: Household) -> None:
    [machine] = home.registry.all()
    home.estate.let_go(home.rental, frozenset({machine.name}), "it was needed no more")
    assert not amazon.running()
    assert not home.registry.all()
    [one] = home.rental.instances
    assert one.until is not None
    assert one.why == "it was needed no more"


def test_what_amazon_takes_back_is_seen_and_forgotten(amazon: Amazon, home: Household) -> None:
    amazon.ec2.terminate_instances([home.rental.living[0].id])
    assert not home.estate.seen(home.rental).living
    assert not home.registry.all()


def short() -> Response:
    text = (
        "<CreateFleetResponse><fleetId>fleet-1</fleetId><fleetInstanceSet/><errorSet><item>"
        "<errorCode>InsufficientInstanceCapacity</errorCode><errorMessage>none</errorMessage></item></errorSet>"
        "</CreateFleetResponse>"
    )
    return Response(text, content_type="text/xml")


def test_without_capacity_nothing_is_made_and_the_reason_is_said_not_kept(amazon: Amazon, home: Household) -> None:
    amazon.faults.append(times(9, "CreateFleet", short))
    made, why = home.grown(2)
    assert made == ()
    assert why == "2 of 2 c7g.large: InsufficientInstanceCapacity"
    assert home.rental.missing == ()


def test_a_throttled_request_is_made_once_more_and_a_refused_one_leaves_a_rental_as_it_was(
    amazon: Amazon, home: Household
) -> None:
    own = Cloud(REGION)  # which is slow for a while after it was throttled
    home.estate = replace(home.estate, cloud=lambda region: own)
    amazon.faults.append(times(1, "CreateFleet", lambda: refusal("RequestLimitExceeded", status=503)))
    made, why = home.grown()
    assert (len(made), why, len(amazon.running())) == (1, "", 2)
    amazon.faults.append(times(1, "CreateFleet", lambda: refusal("VcpuLimitExceeded")))
    with pytest.raises(Refused, match="VcpuLimitExceeded"):
        home.grown()
    assert len(home.rental.living) == 2


def test_a_rental_that_is_ended_meanwhile_does_not_grow(amazon: Amazon, home: Household) -> None:
    quoted = home.estate.quote(home.rental, {"c7g.large": 1}, time.time())
    rental = home.rental
    renting.down(home.cloud, home.rentals, home.run)
    with pytest.raises(InputError, match="is ended"):
        home.estate.rent(rental, quoted)
    assert not amazon.running()


def test_an_instance_that_a_killed_master_rented_and_did_not_record_is_found(
    amazon: Amazon, home: Household, capsys: pytest.CaptureFixture[str]
) -> None:
    before = home.rental
    (lost,), _ = home.grown()
    home.rentals.save(before)  # as if it had been killed when Amazon had answered
    assert sweeping.strays(reaper.instances(home.cloud), home.rentals) == {lost.id}
    with home.rentals.held(home.run):
        assert not sweeping.strays(reaper.instances(home.cloud), home.rentals)
    assert command(["ec2", "reap"]) == 0
    assert f"{lost.id}" in capsys.readouterr().out
    assert home.estate.sweep(home.rental) == (lost.id,)
    assert [one.id for one in amazon.running()] == [one.id for one in before.living]
    (lost,), _ = home.grown()
    home.rentals.save(before)
    assert command(["ec2", "reap", "--yes"]) == 0
    assert [one.id for one in amazon.running()] == [one.id for one in before.living]


def test_all_ends_with_a_build_that_is_to_end_it(amazon: Amazon, home: Household) -> None:
    @dataclass
    class Session:
        """What of one is asked for."""

        directories: paths.Directories
        target: Any

    @dataclass
    class Target:
        name: str

    said: list[str] = []

    class Told:
        step = warn = said.append

    other, own = (Session(paths.directories(), Target(name)) for name in ("riscv64", "arm64"))
    rented.down([other], Told())  # type: ignore[arg-type, list-item]
    assert amazon.running()
    rented.down([own], Told())  # type: ignore[arg-type, list-item]
    assert not amazon.running()
    assert home.rental.state is State.ENDED
    assert said == [f"ending {home.run}"]


def test_limits_of_hosts_and_price_are_looked_at_once_more_when_something_is_rented(
    amazon: Amazon, home: Household
) -> None:
    for count, limits in ((3, LIMITS), (1, replace(LIMITS, usd_h=0.1))):
        home.rentals.save(replace(home.rental, limits=limits))
        with pytest.raises(InputError, match="may have: --max-hosts"):
            home.grown(count)
    assert len(amazon.running()) == 1


def test_two_builds_know_of_each_other(tmp_path: Path) -> None:
    with rented._present(tmp_path / "lock") as first:
        assert first()
        with rented._present(tmp_path / "lock") as second:
            assert not first()
            assert not second()
            assert not first()
        assert first()


# The whole: a run that is dispatched, and its rental.


class Yard:
    """An engine whose hosts are those of the registry, and whose packages end when they are told to."""

    def __init__(self, registry: Registry, hand: Steward, until: Callable[[Job], bool]) -> None:
        self.registry, self.hand, self.until = registry, hand, until
        self.over = threading.Event()

    def attend(self, hear: Callable[[Change], None]) -> tuple[Host, ...]:
        self.hand.attend(hear)
        known = {one.name for one in self.registry.all()}
        threading.Thread(target=self.look, args=(hear, set(known)), daemon=True).start()
        return tuple(map(self.host, sorted(known)))

    def look(self, hear: Callable[[Change], None], known: set[str]) -> None:
        while not self.over.wait(0.02):
            there = {one.name for one in self.registry.all()}
            for name in there - known:
                hear(Came(self.host(name)))
            known |= there

    @staticmethod
    def host(name: str) -> Host:
        return Host(name, (f"{name}:1",), 1.6)

    def expects(self) -> bool:
        return self.hand.expects()

    def start(self, job: Job, node: str, entered: Callable[[str], None], ended: Ended) -> None:
        def work() -> None:
            eventually(lambda: self.until(job) or self.over.is_set(), 60.0)
            ended(Outcome(job.package.cpv, Verdict.BUILT, node=node, attempt=job.attempt))

        threading.Thread(target=work, daemon=True).start()

    def abandon(self, node: str) -> None:
        raise AssertionError(node)

    def quarantine(self, host: str, reason: str) -> None:
        raise AssertionError(host)

    def share(self, slots: Mapping[str, int]) -> None:
        pass

    def stop(self) -> None:
        self.over.set()


class Told:
    """What a person sees."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.tell = self.warn = self.said.append

    def dispatched(self, job: Job, node: str) -> None:
        pass

    def ended(self, outcome: Outcome) -> None:
        pass

    def tick(self) -> None:
        pass


def test_a_build_rents_what_it_can_use_lets_it_go_and_is_billed(
    amazon: Amazon, home: Household, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("LOOK_S", 0.3), ("_SOON_S", 0.05), ("_TICK_S", 0.05), ("_SHARE", 1.0), ("_PAUSES_S", (0.2,))):
        monkeypatch.setattr(steward, name, value)
    amazon.faults += [times(4, "CreateFleet", short)]
    wide = [package(f"cat/p{number}-1") for number in range(9)]
    last = package("cat/last-1", *(one.cpv for one in wide))
    told, rights = Told(), Leave(let_go=True, rent=True)
    hand = Steward(home.estate, Ledger(home.rentals), lambda: rights, told)  # type: ignore[arg-type]

    was_wide = threading.Event()

    def gone() -> int:
        return sum("is gone: ended" in text for text in told.said)

    def ready(job: Job) -> bool:
        if job.package.cpv != last.cpv and len(home.registry.all()) == 3:
            was_wide.set()
        return was_wide.is_set() if job.package.cpv != last.cpv else gone() == 2

    yard = Yard(home.registry, hand, ready)
    outcomes = dispatch.run(
        plan(*wide, last),
        yard,
        attempts=3,
        todo=tasks.of([*(task(one.cpv, seconds=HOUR) for one in wide), task(last.cpv, *last.requires, seconds=HOUR)]),
        compiles=dispatch.Compiles(2, 4, 4),
        progress=told,  # type: ignore[arg-type]
        record=lambda outcome: None,
        watchers=(hand,),
    )
    yard.stop()
    hand.stop()
    assert {one.verdict for one in outcomes} == {Verdict.BUILT}
    assert len(amazon.running()) == len(home.rental.living) == 1, told.said
    assert len(home.rental.instances) == 3
    assert sum("InsufficientInstanceCapacity" in text for text in told.said) == 1
    spans = home.rentals.spans(home.run)
    assert {span.package for span in spans} == {one.cpv for one in outcomes}
    assert {span.host for span in spans} <= {one.name for one in home.rental.instances}
    assert command(["ec2", "status", "--json"]) == 0
    assert "cat/last-1" in capsys.readouterr().out


# What a host is measured at.


def test_what_a_host_that_joins_is_measured_at_is_kept_for_its_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def nothing(*_: object, **__: object) -> Iterator[None]:
        yield

    def prepare(machine: Machine, *_: object, **__: object) -> Machine:
        return replace(machine, nodes={"arm64": 2}, facts=FACTS, state=HostState.READY, reason="")

    monkeypatch.setattr(link, "connect", nothing)
    monkeypatch.setattr(link, "command", nothing)
    monkeypatch.setattr(notices, "watching", nothing)
    monkeypatch.setattr(setup, "prepare", prepare)
    directories = paths.directories()
    rental = Rental("run", REGION, Market.SPOT, {}, LIMITS, 1.0, 30, "::/0", 0.0, targets=("arm64",))
    place = Rentals(directories.rentals).place("run")
    place.mkdir(parents=True)
    (place / "host_key.pub").write_text("ssh-ed25519 KEY\n")
    take = hosting.reception(directories, CATALOGUE, Told(), 1536)(rental)  # type: ignore[arg-type]
    take(Instance("i-0000aaaa", "c7g.large", 0.1, 0.0, address="192.0.2.1"), 1.0)
    [machine] = Registry(directories.hosts).all()
    assert machine.drivers == {"arm64": "chroot"}
    known = speeds.read(speeds.file(directories))
    assert known["c7g.large"]["arm64"] > 1.0
