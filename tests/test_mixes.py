"""Mixes of instances: played to their end, paid by the second."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduling import graphs, task

from cluster import paths
from cluster.master.ec2 import catalogue, mixes
from cluster.master.ec2.catalogue import Catalogue, Offer
from cluster.master.ec2.mixes import Fleet, Limits, Mix, Proposal
from cluster.master.schedule import advice, bound, tasks
from cluster.master.schedule.tasks import Tasks

pytestmark = pytest.mark.slow

SHIPPED = catalogue.read(paths.data(*catalogue.SHIPPED))
SOME = SHIPPED.only(["c7i.large", "c7i.4xlarge", "c7g.large", "c7g.2xlarge", "c7g.16xlarge"])
LIMITS = Limits()
HOUR = 3600.0


def wide(count: int, seconds: float, **more: float) -> Tasks:
    return tasks.of(task(f"cat/w{number}-1", seconds=seconds, **more) for number in range(count))


def chained(count: int, seconds: float, **more: float) -> Tasks:
    return tasks.of(
        task(f"cat/c{number}-1", *([f"cat/c{number - 1}-1"] if number else []), seconds=seconds, **more)
        for number in range(count)
    )


def proposed(
    todo: Tasks,
    limits: Limits = LIMITS,
    some: Catalogue = SOME,
    target: str = "arm64",
) -> Proposal:
    return mixes.propose(todo, catalogue.offers(some, target), some, limits, mixes.MARKETS)


def offer(name: str, target: str = "arm64") -> Offer:
    return next(one for one in catalogue.offers(SHIPPED, target) if one.type == name)


def of(proposal: Proposal, market: str) -> list[Mix]:
    return [mix for mix in proposal.mixes if mix.market == market]


def test_of_each_market_each_mix_is_dearer_and_faster_than_the_one_before() -> None:
    found = proposed(wide(200, 600.0, parallelism=3.5))
    for market in mixes.MARKETS:
        shown = of(found, market)
        assert 2 <= len(shown) <= 8
        for before, after in pairwise(shown):
            assert before.cost_usd < after.cost_usd
            assert before.finish_s > after.finish_s
    assert of(found, "spot")[0].cost_usd < of(found, "on-demand")[0].cost_usd
    assert found.lower_bound_s <= min(mix.finish_s for mix in found.mixes)


def test_an_instance_is_paid_from_its_request_until_it_has_nothing_more_to_do() -> None:
    todo = tasks.of([*chained(4, HOUR).all, *wide(1, 1800.0).all])
    trace = advice.play(todo, Fleet(((offer("c7g.large"), 2),)).hosts())
    until = mixes.busy_until(trace, Fleet(((offer("c7g.large"), 2),)).hosts())
    assert sorted(until.values()) == [1800.0 / 1.6, 4 * HOUR / 1.6]
    one = SOME.only(["c7g.large"])
    (mix,) = (
        mix for mix in proposed(todo, Limits(hosts=2), one).mixes if mix.market == "on-demand" and mix.fleet.count == 2
    )
    start = one.startup.seconds
    paid_s = 2 * start + (4 * HOUR + 1800) / 1.6
    assert mix.finish_s == start + 4 * HOUR / 1.6
    assert mix.cost_usd == pytest.approx(paid_s / HOUR * (0.0725 + one.billing.disk_usd_h))


def test_a_minute_is_paid_at_least() -> None:
    soon = SOME.startup.model_copy(update={"boot_s": 0.0, "setup_s": 0.0})
    found = proposed(wide(1, 1.0), some=SOME.only(["c7g.large"]).model_copy(update={"startup": soon}))
    assert of(found, "on-demand")[0].cost_usd == pytest.approx((0.0725 + SOME.billing.disk_usd_h) / 60)


def test_spot_is_expected_to_end_later_and_to_build_some_twice() -> None:
    often = SOME.model_copy(update={"spot": SOME.spot.model_copy(update={"interruptions_h": 0.2})})
    some = often.only(["c7g.large"])
    ends = {mix.market: mix for mix in proposed(chained(3, HOUR), Limits(hosts=1), some).mixes}
    took = HOUR / 1.6
    late = ends["spot"].finish_s - ends["on-demand"].finish_s
    assert late == pytest.approx(3 * took * took / 2 * 0.2 / HOUR)
    (paid,) = ends["spot"].kept_s.values()
    assert paid > ends["spot"].finish_s


def test_hosts_that_compile_for_others_are_proposed_for_chains_that_compile_much_and_not_for_those_that_do_not() -> (
    None
):
    parallel, serial = (proposed(chained(6, HOUR, parallelism=busy)) for busy in (3.9, 1.0))
    assert any(mix.fleet.compiling for mix in parallel.mixes)
    assert not any(mix.fleet.compiling for mix in serial.mixes)
    assert min(mix.finish_s for mix in parallel.mixes) < 0.6 * min(mix.finish_s for mix in serial.mixes)


def test_what_other_hosts_compile_leaves_the_rest() -> None:
    busy = task("cat/a-1", parallelism=2.5)  # of 4: a half alone, two on four processors
    assert mixes.left(busy, 4, jobs=4, remote=1.0, most=32) == pytest.approx(0.5 + 2 / 8)
    assert mixes.left(busy, 100, jobs=4, remote=1.0, most=16) == pytest.approx(0.5 + 2 / 16)
    assert mixes.left(busy, 4, jobs=4, remote=0.5, most=32) == pytest.approx(0.75 + 1 / 8)
    for alone in (None, 0.9):
        assert mixes.left(task("cat/a-1", parallelism=alone), 100, 4, 1.0, 32) == 1.0


def test_a_processor_of_another_architecture_is_mixed_in_where_it_pays() -> None:
    some = SHIPPED.only(["c7a.xlarge", "c8g.large", "c8g.xlarge"])  # emulating, one is faster, the other cheaper
    found = proposed(tasks.of([*chained(8, HOUR).all, *wide(60, HOUR / 2).all]), some=some, target="riscv")
    assert any({one.arch for one, _ in mix.fleet.building} == {"x86_64", "aarch64"} for mix in found.mixes)


def test_memory_keeps_packages_apart() -> None:
    big = wide(4, HOUR, memory_mib=3000.0)  # an instance of 4 GiB and two nodes, say
    two = SOME.only(["c7g.large"]).types["c7g.large"].model_copy(update={"vcpus": 4})
    some = SOME.model_copy(update={"types": {"c7g.large": two}})
    assert catalogue.offers(some, "arm64")[0].nodes == 2
    (one_by_one,) = of(proposed(big, Limits(hosts=1), some), "on-demand")
    assert one_by_one.finish_s == some.startup.seconds + 4 * HOUR / 1.6


@given(
    graphs(),
    st.integers(1, 6),
    st.none() | st.floats(0.05, 3.0),
    st.none() | st.floats(0.005, 0.2),
    st.none() | st.floats(300.0, 2000.0),
)
@settings(max_examples=40)
def test_limits_hold_and_nothing_beats_its_bound(
    some: list[tasks.Task], most: int, price: float | None, budget: float | None, deadline_s: float | None
) -> None:
    todo, limits = tasks.of(some), Limits(most, price, budget, deadline_s)
    found = proposed(todo, limits)
    for mix in found.mixes:
        assert mix.fleet.count <= most
        assert price is None or mix.usd_h <= price
        assert budget is None or mix.cost_usd <= budget
        assert deadline_s is None or mix.finish_s <= deadline_s
        assert found.lower_bound_s <= mix.bound_s * (1 + 1e-9)
        assert mix.bound_s <= mix.finish_s * (1 + 1e-9)
        if mix.fleet.compiling is None:
            assert mix.bound_s == pytest.approx(SOME.startup.seconds + bound.lower(todo, mix.fleet.hosts()))


def test_a_run_of_nothing_ends_at_once() -> None:
    assert proposed(tasks.of([])).lower_bound_s == SOME.startup.seconds
