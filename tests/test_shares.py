"""Who may use how many nodes, by example and over random runs that share them."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.master.shares import URGENT, Claim, shares

WEIGHTS = st.sampled_from((0.1, 0.3, 0.5, 1.0, 2.0, 3.0, 10.0))


@st.composite
def crowds(draw: st.DrawFn) -> tuple[list[Claim], int]:
    """Claims that hold no more than there is, and how many nodes there are."""
    nodes = left = draw(st.integers(1, 12))
    claims = []
    for number in range(draw(st.integers(1, 6))):
        holds = draw(st.integers(0, left))
        left -= holds
        wants = holds + draw(st.integers(0, 12))
        served = draw(st.floats(0, 100))
        claims.append(Claim(str(number), draw(WEIGHTS), draw(st.booleans()), wants, holds, served))
    return claims, nodes


def idle(claims: list[Claim]) -> list[Claim]:
    return [replace(claim, holds=0) for claim in claims]


# Of one moment.


@pytest.mark.parametrize(
    ("wants", "nodes", "expected"),
    [
        ((5,), 4, (4,)),
        ((1,), 4, (1,)),
        ((5, 5), 4, (2, 2)),
        ((1, 5), 4, (1, 3)),
        ((0, 5), 4, (0, 4)),
        ((1, 2, 9, 9), 9, (1, 2, 3, 3)),
        ((0, 0), 4, (0, 0)),
    ],
)
def test_equal_claims_have_equal_shares_and_what_one_does_not_want_goes_to_the_others(
    wants: tuple[int, ...], nodes: int, expected: tuple[int, ...]
) -> None:
    claims = [Claim(str(number), wants=count) for number, count in enumerate(wants)]
    assert tuple(shares(claims, nodes).values()) == expected


def test_twice_the_weight_is_twice_the_nodes() -> None:
    claims = [Claim("one", 1.0, wants=9), Claim("two", 2.0, wants=9)]
    assert shares(claims, 6) == {"one": 2, "two": 4}


def test_weights_that_floating_point_cannot_hold_are_no_part_of_a_node_off() -> None:
    claims = [Claim(str(weight), weight, wants=9) for weight in (0.1, 0.2, 0.3)]
    assert shares(claims, 6) == {"0.1": 1, "0.2": 2, "0.3": 3}


def test_the_part_of_a_node_goes_to_who_has_had_least_for_its_weight() -> None:
    claims = [Claim("a", wants=9, served=7.0), Claim("b", wants=9, served=5.0)]
    assert shares(claims, 3) == {"a": 1, "b": 2}


def test_one_that_holds_more_than_its_share_keeps_it_and_the_rest_is_shared() -> None:
    claims = [Claim("old", wants=9, holds=3), Claim("new", wants=9), Claim("newer", wants=9, served=1.0)]
    assert shares(claims, 4) == {"old": 1, "new": 1, "newer": 0}


def test_of_two_that_hold_a_node_each_none_goes_on_while_a_third_has_had_less() -> None:
    claims = [Claim("long", wants=9, holds=1, served=9.0), Claim("short", wants=9, holds=1, served=5.0)]
    assert shares([*claims, Claim("waits", wants=9)], 2) == {"long": 0, "short": 0, "waits": 0}
    ended = replace(claims[1], holds=0)
    assert shares([claims[0], ended, Claim("waits", wants=9)], 2) == {"long": 0, "short": 0, "waits": 1}


def test_an_urgent_claim_counts_for_more() -> None:
    claims = [Claim("urgent", urgent=True, wants=9), Claim("other", wants=9)]
    assert shares(claims, 5) == {"urgent": int(URGENT), "other": 1}


@given(crowds())
def test_nobody_may_use_more_than_it_wants_or_than_there_is(crowd: tuple[list[Claim], int]) -> None:
    claims, nodes = crowd
    allowed = shares(claims, nodes)
    assert all(0 <= allowed[claim.id] <= claim.wants for claim in claims)
    assert sum(max(claim.holds, allowed[claim.id]) for claim in claims) <= nodes


@given(crowds())
def test_no_node_is_left_idle_that_one_wants(crowd: tuple[list[Claim], int]) -> None:
    claims, nodes = crowd
    allowed = shares(claims, nodes)
    used = sum(max(claim.holds, allowed[claim.id]) for claim in claims)
    assert used == min(nodes, sum(claim.wants for claim in claims))


@given(crowds())
def test_weights_are_kept_within_one_node(crowd: tuple[list[Claim], int]) -> None:
    claims, nodes = idle(crowd[0]), crowd[1]
    allowed = shares(claims, nodes)
    for one in claims:
        for other in claims:
            if allowed[one.id] < one.wants:  # it could have had more, at the cost of the other
                assert (allowed[other.id] - 1) / other.pull < (allowed[one.id] + 1) / one.pull + 1e-6


@given(crowds())
def test_the_order_of_claims_does_not_matter(crowd: tuple[list[Claim], int]) -> None:
    claims, nodes = crowd
    assert shares(claims, nodes) == shares(claims[::-1], nodes)


# Over time.


@dataclass
class Machine:
    """Nodes that runs share, in simulated time; every run asks whenever a package ends anywhere."""

    nodes: int
    claims: dict[str, Claim]
    seconds: Mapping[str, float]
    """What a package of each run takes."""
    now: float = 0.0
    ends: list[tuple[float, str]] = field(default_factory=list)
    starts: list[tuple[float, str]] = field(default_factory=list)

    def join(self, claim: Claim) -> None:
        self.claims[claim.id] = claim.among(self.claims.values())

    def run(self, until: float) -> None:
        while self.now < until:
            self._fill()
            at, name = heapq.heappop(self.ends)
            self.claims = {claim.id: claim.after(at - self.now) for claim in self.claims.values()}
            self.now = at
            self.claims[name] = replace(self.claims[name], holds=self.claims[name].holds - 1)

    def had(self, name: str) -> float:
        """Node-seconds."""
        return sum(self.seconds[name] for _, started in self.starts if started == name)

    def _fill(self) -> None:
        for name, allowed in shares(self.claims.values(), self.nodes).items():
            for _ in range(allowed - self.claims[name].holds):
                heapq.heappush(self.ends, (self.now + self.seconds[name], name))
                self.starts.append((self.now, name))
            self.claims[name] = replace(self.claims[name], holds=max(self.claims[name].holds, allowed))
        assert len(self.ends) == self.nodes == sum(claim.holds for claim in self.claims.values())


def machine(nodes: int, weights: tuple[float, ...], seconds: tuple[float, ...]) -> Machine:
    """One whose runs all have work for every node."""
    claims = {str(number): Claim(str(number), weight, wants=nodes) for number, weight in enumerate(weights)}
    return Machine(nodes, claims, dict(zip(claims, seconds, strict=True)))


runs = st.lists(st.tuples(WEIGHTS, st.floats(5, 60)), min_size=2, max_size=4)


@given(st.integers(1, 4), runs)
def test_over_time_each_has_its_share_and_none_starves(nodes: int, some: list[tuple[float, float]]) -> None:
    weights, seconds = zip(*some, strict=True)
    shared = machine(nodes, weights, seconds)
    until = 2000.0
    shared.run(until)
    for name, claim in shared.claims.items():
        fair = nodes * until * claim.weight / sum(weights)
        assert abs(shared.had(name) - fair) <= 2 * nodes * max(seconds) * len(weights)


@given(st.integers(1, 4), runs, st.floats(0, 500))
def test_an_urgent_run_has_the_node_of_the_next_package_that_ends(
    nodes: int, some: list[tuple[float, float]], joins: float
) -> None:
    weights, seconds = zip(*some, strict=True)
    shared = machine(nodes, tuple(1.0 for _ in weights), seconds)
    shared.run(joins)
    shared.seconds = {**shared.seconds, "urgent": 5.0}
    next_end = min((end for end, _ in shared.ends), default=shared.now)
    shared.join(Claim("urgent", urgent=True, wants=1))
    shared.run(next_end + 1e-6)
    assert min(at for at, name in shared.starts if name == "urgent") <= next_end


@given(st.integers(1, 4), runs)
def test_no_run_waits_for_good_beside_an_urgent_one(nodes: int, some: list[tuple[float, float]]) -> None:
    weights, seconds = zip(*some, strict=True)
    shared = machine(nodes, tuple(1.0 for _ in weights), seconds)
    shared.seconds = {**shared.seconds, "urgent": 5.0}
    shared.join(Claim("urgent", urgent=True, wants=nodes))
    shared.run(600.0)
    assert all(shared.had(name) > 0 for name in shared.claims)


def test_one_node_goes_from_run_to_run_by_weight() -> None:
    shared = machine(1, (1.0, 2.0), (1.0, 1.0))
    shared.run(30.0)
    assert (shared.had("0"), shared.had("1")) == (10.0, 20.0)


def test_who_had_all_that_it_wanted_saves_nothing_up() -> None:
    modest = Claim("modest", wants=1, holds=1)
    greedy = Claim("greedy", wants=9, holds=3)
    assert modest.after(60.0).among([greedy.after(60.0)]).served == 180.0
    assert greedy.after(60.0).among([modest]).served == 180.0


def test_who_waits_keeps_what_it_is_owed() -> None:
    waits = Claim("waits", wants=1, served=5.0)
    assert waits.after(60.0).among([Claim("other", wants=1, served=180.0)]) == waits


def test_a_new_run_begins_beside_the_one_that_is_furthest_behind() -> None:
    others = [Claim("a", wants=1, served=50.0), Claim("b", wants=1, served=40.0), Claim("new too")]
    assert Claim("new").among(others).served == 40.0
    assert Claim("new").among([]).served == 0.0
