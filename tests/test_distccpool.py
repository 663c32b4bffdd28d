"""Who compiles for whom."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from cluster.host.pool import Member
from cluster.master.distccpool import (
    LZO_BYTES_S,
    LZO_LEAVES,
    Handed,
    Host,
    Link,
    Links,
    Want,
    hand_out,
    most_lent,
    moving_s,
    neighbours,
    pays,
    pool_of,
    spread,
)
from cluster.model import Cpv

SAME, OTHER = "same", "other"
FAST = Link("192.0.2.9", 3632, False, 0.0005, 100e6)


def host(name: str, cores: int = 8, nodes: int = 1, busy: float = 0.0, signature: str = SAME) -> Host:
    return Host(name, cores, nodes, busy, signature, port=3632)


def linked(hosts: list[Host], link: Link = FAST) -> Links:
    return {(a.name, b.name): link for a in hosts for b in hosts if a is not b}


def want(number: int, host: str, jobs: int = 4) -> Want:
    return Want(Cpv(f"cat/p{number}-1"), host, jobs)


@st.composite
def farms(draw: st.DrawFn) -> tuple[list[Host], list[Want]]:
    hosts = [
        host(
            name,
            draw(st.integers(1, 64)),
            draw(st.integers(0, 8)),
            draw(st.floats(0, 64)),
            draw(st.sampled_from([SAME, SAME, OTHER, ""])),
        )
        for name in "abcde"[: draw(st.integers(1, 5))]
    ]
    names = st.sampled_from([one.name for one in hosts])
    wants = [want(number, draw(names), draw(st.integers(1, 32))) for number in range(draw(st.integers(0, 12)))]
    return hosts, wants


def given_by(handed: Handed) -> Counter[str]:
    total: Counter[str] = Counter()
    for slots in handed.slots.values():
        total.update(slots)
    return total


@given(farms(), st.booleans())
def test_no_host_gives_more_than_it_has_and_one_that_is_out_nothing(
    farm: tuple[list[Host], list[Want]], is_linked: bool
) -> None:
    hosts, wants = farm
    handed = hand_out(hosts, linked(hosts) if is_linked else {}, wants, SAME)
    for one in hosts:
        own = sum(each.host == one.name for each in wants)
        assert given_by(handed)[one.name] <= (one.left + own if one.signature == SAME else 0)
    for (mine, _), slots in handed.slots.items():
        assert not any((mine, name) in handed.out for name in slots)


@given(farms())
def test_no_package_has_more_than_it_can_use_and_each_has_one_on_its_own_host(
    farm: tuple[list[Host], list[Want]],
) -> None:
    hosts, wants = farm
    handed = hand_out(hosts, linked(hosts), wants, SAME)
    right = {one.name for one in hosts if one.signature == SAME}
    for each in wants:
        slots = handed.slots[each.host, each.cpv]
        assert sum(slots.values()) <= each.jobs
        assert slots.get(each.host, 0) >= (each.host in right)


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 64)), st.integers(0, 400))
def test_slots_are_spread_in_proportion_to_what_hosts_have_left(left: dict[str, int], count: int) -> None:
    slots = spread(count, left, "a")
    total = sum(left.values())
    assert sum(slots.values()) == min(count, total)
    for name, number in slots.items():
        assert number <= left[name]
        assert abs(number - min(count, total) * left[name] / total) < 1


@given(st.lists(st.integers(9, 64), min_size=1, max_size=4), st.lists(st.integers(1, 8), min_size=1, max_size=6))
def test_packages_together_take_of_each_host_in_proportion(cores: list[int], jobs: list[int]) -> None:
    hosts = [host(f"h{place}", count) for place, count in enumerate(cores)]
    wants = [want(place, "h0", most) for place, most in enumerate(jobs)]
    total = given_by(hand_out(hosts, linked(hosts), wants, SAME))
    total["h0"] -= len(wants)  # one of each package's own
    left = sum(one.left for one in hosts)
    for one in hosts:
        assert abs(total[one.name] - total.total() * one.left / left) < 1 + len(wants)


def test_equal_remainders_go_to_the_hosts_own_first() -> None:
    assert spread(1, {"a": 4, "b": 4}, "b")["b"] == 1


def test_where_there_is_too_little_the_most_urgent_has_what_it_wants() -> None:
    hosts = [host("a", 8, nodes=3)]
    handed = hand_out(hosts, {}, [want(0, "a", 4), want(1, "a", 4), want(2, "a", 4)], SAME)
    assert [slots["a"] for slots in handed.slots.values()] == [4, 2, 2]


def test_a_host_uses_those_with_the_most_processors_and_among_equals_each_is_used_alike() -> None:
    cores = {**dict.fromkeys("abcdef", 4), "big": 64}
    assert neighbours(cores, "e", most=3) == ("big", "f", "a")
    assert neighbours(cores, "big", most=2) == ("c", "d")
    assert neighbours({"a": 4}, "a") == ()
    used = Counter(name for mine in "abcdef" for name in neighbours(dict.fromkeys("abcdef", 4), mine, most=2))
    assert set(used.values()) == {2}


def test_where_there_is_no_way_nothing_is_given() -> None:
    hosts = [host("a", 4), host("b", 64)]
    handed = hand_out(hosts, {}, [want(0, "a", 32)], SAME)
    assert handed.slots == {("a", "cat/p0-1"): {"a": 4}}
    assert [one.name for one in pool_of("a", hosts, {}, handed).members] == ["a"]


def test_who_is_out_is_said_and_why() -> None:
    hosts = [host("a"), host("b", signature=OTHER), host("c", signature=""), host("d"), host("e")]
    links = {**linked(hosts), ("a", "d"): replace(FAST, bytes_s=50e3)}
    del links["a", "e"]  # type: ignore[attr-defined]
    out = hand_out(hosts, links, [want(0, "a")], SAME).out
    assert {name: why for (mine, name), why in out.items() if mine == "a"} == {
        "b": "its compiler is not the nodes' own",
        "c": "it has no cross compiler",
        "d": "moving a compile there takes 0.5 s, and doing it in the node 0.5 s",
    }


@given(st.floats(1e4, 1e10), st.floats(0, 0.3))
def test_a_faster_way_never_takes_longer(bytes_s: float, round_trip_s: float) -> None:
    link = replace(FAST, bytes_s=bytes_s, round_trip_s=round_trip_s)
    assert moving_s(replace(link, bytes_s=2 * bytes_s)) <= moving_s(link)


def test_nodes_compress_where_the_way_is_slower_than_lzo() -> None:
    even = LZO_BYTES_S * (1 - LZO_LEAVES)
    assert pays([(4, 0.9 * even)])
    assert not pays([(4, 1.1 * even)])


def test_nodes_do_not_compress_for_their_own_host() -> None:
    assert not pays([(4, math.inf)])
    assert not pays([])
    assert not pays([(9, math.inf), (1, 100e6)])
    assert pays([(9, math.inf), (1, 1e6)])


def test_a_host_is_told_whom_it_may_use_and_where_they_are() -> None:
    hosts = [host("a", 4), replace(host("b", 9), port=4000, address="192.0.2.2"), host("c", signature=OTHER)]
    links = {("a", "b"): Link("127.0.0.1", 40001, True, 0.02, 10e6), ("b", "a"): FAST}
    handed = hand_out(hosts, links, [want(0, "a", 12), want(1, "b", 1)], SAME)
    pool = pool_of("a", hosts, links, handed)
    assert pool.members == (Member("a", "127.0.0.1", 3632, 4), Member("b", "127.0.0.1", 40001, 8, tunnel=True))
    assert pool.packages == {"cat/p0-1": {"a": 4, "b": 8}}
    assert pool.lzo
    other = pool_of("b", hosts, links, handed)
    assert [(one.address, one.port, one.slots) for one in other.members] == [
        ("192.0.2.9", 3632, 0),
        ("192.0.2.2", 4000, 1),
    ]


def test_the_most_that_is_lent_is_what_is_idle_where_the_best_placed_host_reaches() -> None:
    hosts = [host("a", cores=4, nodes=4), host("b", cores=4, nodes=1), host("smithy", cores=16, nodes=0)]
    links = {("a", "smithy"): FAST, ("b", "a"): FAST}
    assert most_lent(["a", "b"], hosts, links, {}) == 1 + 16
    assert most_lent(["b"], hosts, links, {}) == 1 + 3
    assert most_lent(["a", "b"], hosts, links, {("a", "smithy"): "slow"}) == 1 + 3
    assert most_lent([], hosts, links, {}) == 0
