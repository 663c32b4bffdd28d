"""Why a package is in the plan."""

from __future__ import annotations

from factories import package, plan

from cluster.master.chains import Link, Parent, why
from cluster.model import Cpv, Dependency, Kind

META, EDITOR, PLUG, TEXT, GCC = (Cpv(f"c/{name}-1") for name in ("meta", "editor", "plug", "text", "gcc"))
BUILD, RUN, POST = (Kind.BUILD,), (Kind.RUN,), (Kind.POST,)


def need(cpv: Cpv, kinds: tuple[Kind, ...]) -> Dependency:
    return Dependency(cpv, kinds, (cpv.removesuffix("-1"),))


# @all names meta, which needs editor, which needs text; text brings plug, which needs text in turn.
PLAN = plan(
    package(TEXT, dependencies=(need(GCC, BUILD), need(PLUG, POST))),
    package(PLUG, TEXT, dependencies=(need(TEXT, BUILD),)),
    package(EDITOR, TEXT, dependencies=(need(TEXT, (*BUILD, *RUN)),)),
    package(META, requested=True, arguments=("@all",), dependencies=(need(EDITOR, RUN), need(TEXT, RUN))),
)


def test_the_shortest_chain_comes_first_and_every_parent_is_there() -> None:
    found = why(PLAN, TEXT, 5)
    first = Link(META, (), ("@all",))
    assert found.chains == (
        (first, Link(TEXT, RUN, ("c/text",))),
        (first, Link(EDITOR, RUN, ("c/editor",)), Link(TEXT, (*BUILD, *RUN), ("c/text",))),
    )
    assert found.parents == (
        Parent(META, RUN, ("c/text",), 2),
        Parent(EDITOR, (*BUILD, *RUN), ("c/text",), 3),
        Parent(PLUG, BUILD, ("c/text",), None),  # which only text itself brings
    )
    assert (found.planned, found.arguments) == (True, ())


def test_no_more_chains_than_wanted() -> None:
    found = why(PLAN, TEXT, 1)
    assert [len(chain) for chain in found.chains] == [2]
    assert len(found.parents) == 3


def test_what_the_request_names_is_a_chain_of_itself() -> None:
    assert why(PLAN, META, 5).chains == ((Link(META, (), ("@all",)),),)
    assert why(PLAN, META, 5).arguments == ("@all",)


def test_a_package_of_the_stage() -> None:
    found = why(PLAN, GCC, 5)
    assert not found.planned
    assert [[link.cpv for link in chain] for chain in found.chains] == [[META, TEXT, GCC]]
