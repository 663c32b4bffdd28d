"""Several plans of one run: what is the same is built once, and what only looks the same is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from factories import package, plan

from cluster.master import variants
from cluster.model import Action, Cpv, Package, Plan

A, B, C = "lib/a-1", "lib/b-1", "app/c-1"
ONE, TWO, THREE = (Path(f"/binhosts/{name}") for name in ("one", "two", "three"))


def three(**changes: dict[str, Any]) -> Plan:
    """a <- b <- c, with some fields of some changed: three(b={"use": ("x",)})."""

    def make(cpv: str, *requires: str) -> Package:
        fields: dict[str, Any] = {"fingerprint": (("ebuild", cpv),), **changes.get(cpv[4], {})}
        return package(cpv, *requires, **fields)

    return plan(make(A), make(B, A), make(C, A, B))


def origins(*plans: Plan) -> list[dict[str, str]]:
    places = zip(("one", "two", "three"), (ONE, TWO, THREE), plans, strict=False)
    found = variants.shared([(name, place, each) for name, place, each in places])
    return [{each.cpv: each.origin.name for each in made.packages if each.origin} for made in found]


def test_the_same_plan_is_built_once() -> None:
    assert origins(three(), three()) == [{}, {A: "one", B: "one", C: "one"}]
    (_, second) = variants.shared([("one", ONE, three()), ("two", TWO, three())])
    taken = second.package(Cpv(A))
    assert (taken.action, taken.reason) == (Action.TAKE, "one has the same")


def test_another_use_flag_is_another_package_and_so_is_all_that_is_built_with_it() -> None:
    assert origins(three(), three(b={"use": ("x",)})) == [{}, {A: "one"}]


def test_all_that_a_package_is_made_from_counts() -> None:
    for field, value in (
        ("slot", "0/2"),
        ("repository", "other"),
        ("fingerprint", (("ebuild", "other"),)),
        ("fingerprint", (("ebuild", C), ("config", "CFLAGS:1"))),
    ):
        assert origins(three(), three(c={field: value})) == [{}, {A: "one", B: "one"}], field


def test_another_target_shares_nothing() -> None:
    assert origins(three(), replace(three(), chost="riscv64-linux-gnu")) == [{}, {}]


def test_a_third_takes_from_whoever_is_the_first_to_have_it() -> None:
    plans = (three(), three(b={"use": ("x",)}), three(b={"use": ("x",)}))
    assert origins(*plans) == [{}, {A: "one"}, {A: "one", B: "two", C: "two"}]


def test_what_a_binhost_has_already_is_not_taken() -> None:
    assert origins(three(), three(a={"action": Action.SKIP})) == [{}, {B: "one", C: "one"}]


def test_another_first_round_makes_all_other() -> None:
    first = plan(package("dev/x-1", fingerprint=(("ebuild", "1"),)))
    other = plan(package("dev/x-1", fingerprint=(("ebuild", "2"),)))
    assert origins(replace(three(), first=first), replace(three(), first=first))[1] == {A: "one", B: "one", C: "one"}
    assert origins(replace(three(), first=first), replace(three(), first=other)) == [{}, {}]
