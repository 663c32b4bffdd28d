"""The installed database of a stage."""

from __future__ import annotations

from pathlib import Path

import pytest
from repos import write_repository

from cluster import target
from cluster.errors import InputError
from cluster.master import portagelib
from cluster.master.solution import Solution
from cluster.node.installed import write_installed

EBUILDS = {
    "cat/needs-gcc-1": {"DEPEND": ">=sys-devel/gcc-12:12 dev-lang/python:3.11="},
}


def test_portage_takes_it_as_installed_without_a_complaint(tmp_path: Path) -> None:
    database = write_installed(
        ["sys-devel/gcc-12.2.0:12", "dev-lang/python-3.11.2:3.11/3.11"], tmp_path / "root", "arm64"
    )
    repository = write_repository(tmp_path / "repo", EBUILDS)
    place = portagelib.Place(tmp_path / "work", (repository,), repository.location / "profiles/arm64", database)
    with portagelib.listening() as said, portagelib.opened(place) as portage:
        answer = portage.solve(["cat/needs-gcc"])
    assert isinstance(answer, Solution)
    assert [node.cpv for node in answer.order] == ["cat/needs-gcc-1"]
    assert said.text == ""


def test_the_stage_recipes_entries_are_all_taken(tmp_path: Path) -> None:
    database = write_installed(target.load_recipe().provides, tmp_path, "arm64")
    assert database == tmp_path / "var/db/pkg"
    assert (database / "sys-devel/gcc-14.2.0/SLOT").read_text() == "14\n"
    assert (database / "sys-devel/m4-1.4.19/SLOT").read_text() == "0\n"


def test_the_same_entries_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_installed(["a/b-1", "a/c-2:3"], tmp_path / name, "arm64") for name in ("1", "2"))
    for path in first.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (second / path.relative_to(first)).read_bytes()


@pytest.mark.parametrize("entry", ["gcc-12", "sys-devel/gcc", "sys-devel/gcc-12:", "", "../x-1"])
def test_what_is_no_package_is_refused_by_name(tmp_path: Path, entry: str) -> None:
    with pytest.raises(InputError, match="is not CATEGORY/NAME-VERSION"):
        write_installed([entry], tmp_path, "arm64")
