"""What a rental has cost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.master.ec2 import bill
from cluster.master.ec2.rental import Instance, Span

ONE = Instance("i-0000aaaa", "c7g.4xlarge", 0.6, since=1000.0)
TWO = Instance("i-0000bbbb", "c7a.8xlarge", 1.8, since=1000.0, until=2800.0)


def test_an_instance_is_paid_by_the_second_until_it_has_ended() -> None:
    assert bill.cost(ONE, 1000.0 + 1800) == pytest.approx(0.3)
    assert bill.cost(TWO, 1e9) == pytest.approx(0.9)


def test_an_instance_that_ran_for_a_second_is_paid_for_a_minute() -> None:
    assert bill.cost(ONE, 1001.0) == pytest.approx(0.01)


def test_packages_share_a_hosts_bill_by_their_nodes_seconds() -> None:
    spans = [Span("a", ONE.name, 1100, 1400), Span("b", ONE.name, 1200, 1300)]
    made = bill.bill((ONE, TWO), spans, 4600.0)
    assert made.packages == pytest.approx({"a": 0.45, "b": 0.15})
    assert made.idle == pytest.approx(0.9)  # of TWO, which built nothing
    assert made.total == pytest.approx(1.5)


@given(
    st.lists(st.tuples(st.floats(0, 10), st.floats(0, 5000)), max_size=5),
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.floats(0, 9e3), st.floats(0, 9e3)), max_size=20),
)
def test_nothing_is_paid_twice_or_forgotten(rented: list[tuple[float, float]], worked: list[tuple]) -> None:
    instances = [Instance(f"i-{n:08}", "t", usd, since) for n, (usd, since) in enumerate(rented)]
    spans = [Span(package, f"ec2-{host:08}", began, ended) for package, host, began, ended in worked]
    made = bill.bill(instances, spans, 10000.0)
    assert sum(made.packages.values()) + made.idle == pytest.approx(made.total)
