"""What of the stage is part of every package's fingerprint, and the whole way from atoms to a judged plan."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from sessions import session_in

from cluster import target
from cluster.master import binhost, gpkg, planning
from cluster.master.fingerprint import render
from cluster.master.session import Session
from cluster.model import Action, Plan
from cluster.node import stage

ARM64 = target.load("arm64")


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """Over a repository of one package, without a stage or a binhost yet."""
    return session_in(tmp_path)


def with_stage(session: Session, says: str) -> stage.Stage:
    """A finished stage in the cache, whose compiler says `says` of itself."""
    recipe = target.load_recipe()
    place = session.directories.cache / "stages" / f"arm64-{stage.key(ARM64, recipe)}"
    (place / "compiler").mkdir(parents=True, exist_ok=True)
    (place / "compiler/c-macros").write_text(says)
    (place / "stage.json").write_text(json.dumps({"target": "arm64"}))
    return stage.Stage(place)


def admitted(session: Session, plan: Plan) -> None:
    """Put the plan's packages into the binhost's index, as made from what the plan says."""
    binhost.Binhost(session.binhost, ARM64.chost)
    entries = []
    for package in plan.packages:
        file = session.binhost / f"{package.cpv}.gpkg.tar"
        file.parent.mkdir(exist_ok=True)
        file.write_text("-")
        made = render(package.fingerprint)
        values = {"CPV": package.cpv, "SIZE": "1", "SLOT": "0/0", "CHOST": ARM64.chost, gpkg.OURS[0]: made}
        entries.append("".join(f"{key}: {value}\n" for key, value in values.items()))
    (session.binhost / "Packages").write_text("\n".join([f"PACKAGES: {len(entries)}\n", *entries]))


def planned(session: Session) -> tuple[Action, str]:
    (package,) = planning.make_plan(session, ("app/a",)).packages
    return package.action, package.reason


def test_another_compiler_in_the_stage_builds_everything_anew(session: Session) -> None:
    with_stage(session, "gcc 14")
    admitted(session, planning.make_plan(session, ("app/a",)))
    assert planned(session) == (Action.SKIP, "in the binhost")
    with_stage(session, "gcc 15")
    assert planned(session) == (Action.BUILD, "the stage's compiler changed")


def test_a_plan_without_a_stage_takes_on_that_of_the_build(session: Session) -> None:
    made = planning.make_plan(session, ("app/a",))
    assert "toolchain" not in dict(made.packages[0].fingerprint)
    built = planning.with_toolchain(made, with_stage(session, "gcc 14"))
    assert built == planning.make_plan(session, ("app/a",))
    assert planning.with_toolchain(built, with_stage(session, "gcc 14")) == built


def test_another_recipe_is_another_stage(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    admitted(session, planning.make_plan(session, ("app/a",)))
    recipe = target.load_recipe()
    other = recipe.model_copy(update={"packages": (*recipe.packages, "hello")})
    monkeypatch.setattr(target, "load_recipe", lambda: other)
    assert planned(session) == (Action.BUILD, "the stage's recipe changed")


def test_a_package_that_says_nothing_of_its_making_is_judged_by_the_rest(session: Session) -> None:
    made = planning.make_plan(session, ("app/a",))
    silent = replace(made, packages=tuple(replace(package, fingerprint=()) for package in made.packages))
    admitted(session, silent)
    assert planned(session) == (Action.SKIP, "in the binhost")
