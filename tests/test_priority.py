"""Which packages --priority names."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories import package, plan

from cluster.errors import InputError
from cluster.master.priority import urgent
from cluster.model import Package


def named(name: str) -> Package:
    return package(f"{name}-1", ebuild=Path(f"/repo/{name}/{name.partition('/')[2]}-1.ebuild"))


NANO, MANUAL, LIBRARY = named("app/nano"), named("app/nano-doc"), named("lib/nano")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], set()),
        (["nano"], {"app/nano-1", "lib/nano-1"}),
        (["app/nano"], {"app/nano-1"}),
        (["app/nano-doc-1"], {"app/nano-doc-1"}),
        (["lib/nano", "nano-doc"], {"lib/nano-1", "app/nano-doc-1"}),
    ],
)
def test_a_package_is_named_with_and_without_category_and_version(words: list[str], expected: set[str]) -> None:
    assert urgent([plan(NANO, MANUAL, LIBRARY)], words) == expected


def test_packages_of_every_plan_and_of_the_first_round_are_meant() -> None:
    plans = [plan(NANO), plan(MANUAL, first=plan(LIBRARY))]
    assert urgent(plans, ["app/nano", "nano-doc", "lib/nano"]) == {"app/nano-1", "app/nano-doc-1", "lib/nano-1"}


def test_a_word_that_names_nothing_is_an_error() -> None:
    with pytest.raises(InputError, match="--priority vim names no package of the plan: name one of"):
        urgent([plan(NANO)], ["nano", "vim"])
