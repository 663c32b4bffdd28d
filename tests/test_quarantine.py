"""Which hosts are at fault."""

from __future__ import annotations

from cluster.master.quarantine import Conduct, due, forgiven, noted
from cluster.model import Cpv, Verdict

A, B = Cpv("cat/a-1"), Cpv("cat/b-1")


def after(*ends: tuple[Cpv, str, Verdict], conduct: Conduct | None = None) -> Conduct:
    conduct = conduct or Conduct()
    for cpv, host, verdict in ends:
        conduct = noted(conduct, cpv, host, verdict)
    return conduct


def test_what_failed_or_was_lost_and_is_built_elsewhere_is_held_against_the_host() -> None:
    ends = [
        (A, "bad", Verdict.FAILED),
        (B, "bad", Verdict.LOST),
        (A, "good", Verdict.BUILT),
        (B, "good", Verdict.BUILT),
    ]
    conduct = after(*ends)
    assert dict(due(conduct, 2)) == {"bad": (A, B)}
    assert dict(due(conduct, 3)) == {}


def test_what_is_built_nowhere_or_at_last_on_the_same_host_is_not() -> None:
    never = after((A, "one", Verdict.FAILED), (A, "two", Verdict.FAILED))
    assert dict(due(never, 1)) == {}
    again = after((A, "one", Verdict.LOST), (A, "one", Verdict.BUILT))
    assert dict(due(again, 1)) == {}


def test_every_host_that_failed_it_is_blamed_and_each_package_once() -> None:
    ends = [(A, host, Verdict.LOST) for host in ("one", "two", "one")]
    conduct = after(*ends, (A, "three", Verdict.BUILT), (A, "three", Verdict.BUILT))
    assert dict(due(conduct, 1)) == {"one": (A,), "two": (A,)}


def test_a_host_that_was_mended_begins_anew() -> None:
    conduct = after((A, "bad", Verdict.LOST), (A, "good", Verdict.BUILT), (B, "bad", Verdict.LOST))
    conduct = after((B, "good", Verdict.BUILT), conduct=forgiven(conduct, "bad"))
    assert dict(due(conduct, 1)) == {}
