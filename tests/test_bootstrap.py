"""Plans in two rounds: circles broken by USE, and everything built twice; through the real resolver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from factories import package, plan
from repos import Ebuilds, write_repository

from cluster import target
from cluster.master import bootstrap
from cluster.master.refusal import CircularError
from cluster.master.resolver import Order, Request, resolve
from cluster.model import Cpv, Package, Plan
from cluster.node.installed import with_built, write_installed

# tls needs python to build its tests' helper, python needs tls for its ssl module.
CIRCLE: Ebuilds = {
    "dev/python-3": {"IUSE": "+ssl", "DEPEND": "ssl? ( lib/tls ) lib/zip", "RDEPEND": "ssl? ( lib/tls ) lib/zip"},
    "lib/tls-1": {"BDEPEND": "dev/python"},
    "lib/zip-1": {},
    "app/top-1": {"DEPEND": "lib/tls dev/python"},
}

Solve = Callable[..., Plan]


def request(tmp_path: Path, ebuilds: Ebuilds, *atoms: str, stage: tuple[str, ...] = (), **fields: object) -> Request:
    repository = write_repository(tmp_path / "repo", ebuilds)
    installed = write_installed(stage, tmp_path / "stage", "arm64")
    profile = repository.location / "profiles/arm64"
    return Request(target.load("arm64"), atoms, (repository,), profile, installed, **fields)  # type: ignore[arg-type]


def lines(plan: Plan) -> list[str]:
    return [f"{each.cpv} {' '.join(each.use)}".strip() for each in plan.packages]


def test_a_circle_is_named_with_the_use_that_breaks_it(tmp_path: Path) -> None:
    with pytest.raises(CircularError) as raised:
        resolve(request(tmp_path, CIRCLE, "app/top"), tmp_path / "work")
    assert str(raised.value) == (
        "circular dependencies: dev/python-3 -> lib/tls-1 -> dev/python-3: "
        'build dev/python-3 with USE="-ssl" first, and again when the others are there: --break-cycles; '
        "or put `dev/python -ssl` in package.use"
    )


def test_a_circle_is_broken_by_a_first_round(tmp_path: Path) -> None:
    found = bootstrap.unbroken(request(tmp_path, CIRCLE, "app/top"), tmp_path / "work")
    assert found.first is not None
    assert lines(found.first) == ["lib/zip-1", "dev/python-3"]
    assert found.first.packages[1].reason == "breaks a circle with -ssl"
    assert lines(found) == ["lib/zip-1", "lib/tls-1", "dev/python-3 ssl", "app/top-1"]
    reasons = {each.cpv: each.reason for each in found.packages}
    assert reasons[Cpv("app/top-1")] == "requested"
    assert reasons[Cpv("dev/python-3")] == "built once more, with all that it needs"
    assert [each.cpv for each in found.packages if each.requested] == ["app/top-1"]


def test_the_second_round_has_what_the_first_made_unless_it_makes_its_own(tmp_path: Path) -> None:
    found = bootstrap.unbroken(request(tmp_path, CIRCLE, "app/top"), tmp_path / "work")
    base = bootstrap.base(found)
    tls = found.package(Cpv("lib/tls-1"))
    assert base[tls.cpv] == tuple(cpv for cpv in ("lib/zip-1", "dev/python-3") if cpv not in tls.requires)
    assert "dev/python-3" in base[tls.cpv]
    python = found.package(Cpv("dev/python-3"))
    assert set(python.requires) == {"lib/zip-1", "lib/tls-1"}
    assert "dev/python-3" in found.package(Cpv("app/top-1")).requires
    assert "dev/python-3" not in base[Cpv("app/top-1")]


def test_what_a_build_uses_of_the_first_round_is_part_of_what_it_is_made_from(tmp_path: Path) -> None:
    def made(ebuilds: Ebuilds) -> dict[str, str]:
        found = bootstrap.unbroken(request(tmp_path, ebuilds, "app/top"), tmp_path / "work")
        return {each.cpv: dict(each.fingerprint)["first"] for each in found.packages}

    before = made(CIRCLE)
    after = made({**CIRCLE, "dev/python-3": {**CIRCLE["dev/python-3"], "DESCRIPTION": "other"}})
    assert {cpv for cpv in before if before[cpv] != after[cpv]} == {"lib/tls-1"}


def test_two_circles_are_broken_one_after_the_other(tmp_path: Path) -> None:
    ebuilds = {
        **CIRCLE,
        "lib/zip-1": {"IUSE": "+doc", "BDEPEND": "doc? ( app/doc )"},
        "app/doc-1": {"DEPEND": "lib/zip"},
    }
    found = bootstrap.unbroken(request(tmp_path, ebuilds, "app/top"), tmp_path / "work")
    assert found.first is not None
    assert lines(found.first) == ["lib/zip-1", "dev/python-3"]
    assert {"lib/zip-1 doc", "dev/python-3 ssl", "app/doc-1"} <= set(lines(found))


def test_one_package_may_have_to_do_without_more_than_one_flag(tmp_path: Path) -> None:
    ebuilds = {
        "dev/python-3": {"IUSE": "+ssl +doc", "DEPEND": "ssl? ( lib/tls ) doc? ( app/doc )"},
        "lib/tls-1": {"BDEPEND": "dev/python"},
        "app/doc-1": {"BDEPEND": "dev/python"},
    }
    found = bootstrap.unbroken(request(tmp_path, ebuilds, "dev/python"), tmp_path / "work")
    assert found.first is not None
    assert lines(found.first) == ["dev/python-3"]
    assert found.first.packages[0].reason == "breaks a circle with -doc -ssl"
    assert lines(found)[-1] == "dev/python-3 doc ssl"


def test_the_first_round_builds_nothing_that_the_stage_has(tmp_path: Path) -> None:
    asked = request(tmp_path, CIRCLE, "app/top", stage=("lib/zip-1",), emptytree=True)
    found = bootstrap.unbroken(asked, tmp_path / "work")
    assert found.first is not None
    assert lines(found.first) == ["dev/python-3"]
    assert lines(found) == ["lib/zip-1", "lib/tls-1", "dev/python-3 ssl", "app/top-1"]


def test_without_a_circle_there_is_one_round(tmp_path: Path) -> None:
    ebuilds = {**CIRCLE, "lib/tls-1": {}}
    asked = request(tmp_path, ebuilds, "app/top")
    found = bootstrap.unbroken(asked, tmp_path / "work")
    assert found == resolve(asked, tmp_path / "work")
    assert found.first is None


def test_a_circle_that_no_use_breaks_is_an_error_still(tmp_path: Path) -> None:
    ebuilds = {**CIRCLE, "dev/python-3": {"DEPEND": "lib/tls"}}
    with pytest.raises(CircularError, match=r"have the stage provide one of them .*; no USE flag would do"):
        bootstrap.unbroken(request(tmp_path, ebuilds, "app/top"), tmp_path / "work")


def test_what_was_built_first_is_installed_in_the_place_of_the_stages(tmp_path: Path) -> None:
    stage = write_installed(("dev/python-2:0", "dev/tool-1", "lib/x-1:1", "lib/x-2:2"), tmp_path / "stage", "arm64")
    built = (
        package("dev/python-3", use=("ssl",), iuse=("ssl", "x"), ebuild=Path("/repo/dev/python/python-3.ebuild")),
        package("lib/x-3", slot="2/3", ebuild=Path("/repo/lib/x/x-3.ebuild")),
    )
    found = with_built(stage, built, tmp_path / "first", "arm64")
    assert {str(path.relative_to(found)) for path in found.glob("*/*")} == {
        "dev/python-3",
        "dev/tool-1",
        "lib/x-1",
        "lib/x-3",
    }
    assert (found / "dev/python-3/USE").read_text() == "ssl arm64\n"
    assert (found / "dev/python-3/IUSE").read_text() == "ssl x\n"
    assert (found / "lib/x-3/SLOT").read_text() == "2/3\n"
    assert with_built(stage, built, tmp_path / "first", "arm64") == found


# Everything twice.


def two() -> Plan:
    parts = (("ebuild", "1"), ("stage", "2"))
    repo = Path("/repo")
    return plan(
        package("lib/a-1", fingerprint=parts, ebuild=repo / "lib/a/a-1.ebuild"),
        package("app/b-1", "lib/a-1", fingerprint=parts, ebuild=repo / "app/b/b-1.ebuild", requested=True),
    )


def test_the_second_stage_is_what_came_out_of_the_first() -> None:
    before = two()
    found = bootstrap.twice(before)
    assert found.first is not None
    assert [each.cpv for each in found.first.packages] == ["lib/a-1", "app/b-1"]
    assert found.first.packages[1].requires == ("lib/a-1",)
    assert all(each.requires == () for each in found.packages)
    assert bootstrap.base(found) == dict.fromkeys(("lib/a-1", "app/b-1"), ("lib/a-1", "app/b-1"))


def test_another_first_stage_is_another_stage() -> None:
    def parts(plan: Plan) -> list[dict[str, str]]:
        return [dict(each.fingerprint) for each in bootstrap.twice(plan).packages]

    first = two()
    changed: Package = replace(first.packages[0], fingerprint=(("ebuild", "9"), ("stage", "2")))
    other = replace(first, packages=(changed, first.packages[1]))
    assert parts(first) == parts(two())
    assert parts(first)[1]["ebuild"] == parts(other)[1]["ebuild"]
    assert parts(first)[1]["stage"] not in ("2", parts(other)[1]["stage"])


# What a build waits for.


def test_the_most_parallel_order_waits_only_for_what_the_stage_lacks(tmp_path: Path) -> None:
    ebuilds = {
        "app/top-1": {"DEPEND": "lib/plain lib/bound:= >=lib/new-2", "BDEPEND": "dev/tool"},
        "lib/plain-2": {},
        "lib/bound-2": {"SLOT": "0/2"},
        "lib/new-2": {},
        "dev/tool-2": {"RDEPEND": "lib/plain"},
    }
    stage = ("lib/plain-1", "lib/bound-1:0/1", "lib/new-1", "dev/tool-1")
    asked = request(tmp_path, ebuilds, "app/top", stage=stage, emptytree=True)

    def required(order: Order) -> set[str]:
        found = resolve(replace(asked, order=order), tmp_path / order)
        return set(found.package(Cpv("app/top-1")).requires)

    assert required(Order.NEWEST) == {"lib/plain-2", "lib/bound-2", "lib/new-2", "dev/tool-2"}
    assert required(Order.PARALLEL) == {"lib/bound-2", "lib/new-2"}
