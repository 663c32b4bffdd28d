"""The distccds that a host may use: which one is next, who is slow, who is tried again and when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import InputError
from cluster.host.pool import Load, Member, Pace, Pool, Standing, choose, is_slow

NAMES = ("here", "b", "c")


def member(name: str, slots: int = 4) -> Member:
    return Member(name, "127.0.0.1", 3632, slots)


def pace(seconds: float, size: int = 1000, compiles: int = 20) -> Pace:
    done = Pace()
    for _ in range(compiles):
        done = done.after(seconds, size)
    return done


loads = st.builds(
    Load,
    st.builds(member, st.sampled_from(NAMES), st.integers(0, 5)),
    allowed=st.integers(0, 5),
    used=st.integers(0, 5),
    working=st.integers(0, 5),
    doubted=st.booleans(),
)


def test_a_tunnel_ends_on_loopback() -> None:
    assert Member("far", "127.0.0.1", 40000, 4, tunnel=True).tunnel
    with pytest.raises(InputError, match="far ends at 192\\.0\\.2\\.1: let it listen on loopback only"):
        Member("far", "192.0.2.1", 40000, 4, tunnel=True)


def test_an_address_is_no_name() -> None:
    with pytest.raises(InputError, match="farm is no IP address"):
        Member("far", "farm", 40000, 4, tunnel=True)


def test_the_least_loaded_is_next_by_the_part_that_is_in_use() -> None:
    big, small = Load(member("b", 8), 8, 3, 3), Load(member("c", 2), 2, 1, 1)
    assert choose([small, big], "here") is big


def test_the_hosts_own_is_first_among_equals() -> None:
    assert choose([Load(member(name), 4, 1, 1) for name in ("b", "here", "c")], "here") == Load(member("here"), 4, 1, 1)


@given(st.lists(loads, max_size=5))
def test_what_is_chosen_has_a_slot_and_none_is_chosen_only_if_none_has(among: list[Load]) -> None:
    chosen = choose(among, "here")
    assert (chosen is None) == (not any(load.is_free for load in among))
    if chosen is not None:
        assert chosen.used < chosen.allowed
        assert chosen.working < chosen.member.slots
        assert not chosen.doubted


def test_a_package_has_its_part_and_one_that_is_not_named_what_the_host_has() -> None:
    pool = Pool((member("b"),), {"cat/a-1": {"b": 2}, "cat/b-1": {}, "cat/c-1": {"b": 9}})
    allowed = [pool.allowed(package, member("b")) for package in ("cat/a-1", "cat/b-1", "cat/c-1", "cat/d-1")]
    assert allowed == [2, 0, 4, 4]


def test_slow_is_far_slower_for_a_byte_than_the_others() -> None:
    assert is_slow(pace(5.0), [pace(1.0), pace(1.1)])
    assert not is_slow(pace(3.0), [pace(1.0), pace(1.1)])
    assert not is_slow(pace(10.0, size=10_000), [pace(1.0)])


def test_nobody_is_slow_alone_or_by_a_few_compiles() -> None:
    assert not is_slow(pace(50.0), [])
    assert not is_slow(pace(50.0), [pace(1.0, compiles=3)])
    assert not is_slow(pace(50.0, compiles=3), [pace(1.0)])


def test_one_that_fails_again_is_left_alone_for_longer() -> None:
    standing, now, waits = Standing(), 0.0, []
    for _ in range(9):
        standing = standing.failed("refused", now)
        waits.append(standing.wait_s(5.0))
        now += 1
        standing = standing.answered(now)
        assert not standing.out
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300, 300]


def test_failures_of_long_ago_are_forgotten() -> None:
    standing = Standing().failed("refused", 0.0).failed("refused", 5.0).answered(15.0)
    assert standing.failed("refused", 20.0).failures == 3
    assert standing.failed("refused", 2000.0).failures == 1


def test_the_pace_of_before_it_was_out_says_nothing() -> None:
    standing = Standing(pace=pace(5.0))
    assert standing.answered(1.0).pace == pace(5.0)
    assert standing.failed("slow", 1.0).answered(6.0).pace == Pace()
