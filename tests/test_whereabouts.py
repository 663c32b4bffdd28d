"""Which hosts have what, and who is asked for it."""

from __future__ import annotations

from collections import Counter

from cluster.host.store import Blob
from cluster.host.whereabouts import Whereabouts

A, B = Blob("a" * 64, 1), Blob("b" * 64, 2)
MASTER = "https://master"


def known(*hosts: str) -> Whereabouts:
    where = Whereabouts()
    for host in hosts:
        where.came(host, f"https://{host}")
    return where


def test_the_master_is_asked_for_what_no_host_has() -> None:
    assert known("x", "y").sources([A], "x", MASTER) == {A: (MASTER,)}


def test_a_host_is_preferred_over_the_master_and_nobody_asks_itself() -> None:
    where = known("x", "y")
    where.has("x", [A, B])
    assert where.sources([A, B], "y", MASTER) == {A: ("https://x", MASTER), B: ("https://x", MASTER)}
    assert where.sources([A], "x", MASTER) == {A: (MASTER,)}


def test_what_went_or_came_anew_has_nothing() -> None:
    where = known("x", "y", "z")
    where.has("x", [A])
    where.has("y", [A])
    where.went("x")
    where.came("y", "https://y2")
    assert where.sources([A], "z", MASTER) == {A: (MASTER,)}


def test_a_host_that_others_cannot_reach_is_asked_for_nothing() -> None:
    where = known("x")
    where.has("behind-a-tunnel", [A])
    assert where.sources([A], "x", MASTER) == {A: (MASTER,)}


def test_those_that_have_it_share_the_work() -> None:
    holders = [f"holder-{number}" for number in range(4)]
    where = known(*holders)
    for host in holders:
        where.has(host, [A])
    asked = [where.sources([A], f"host-{number}", MASTER)[A] for number in range(100)]
    first = Counter(urls[0] for urls in asked)
    assert set(first) == {f"https://{host}" for host in holders}
    assert max(first.values()) < 50
    assert {len(urls) for urls in asked} == {4}
    assert {urls[-1] for urls in asked} == {MASTER}
