"""Which package a question is about."""

from __future__ import annotations

import re

import pytest
from factories import package, plan

from cluster.errors import InputError
from cluster.master.subject import find
from cluster.model import Cpv, Dependency, Kind

PLAN = plan(
    package("virtual/zlib-1.3-r1"),
    package("sys-libs/zlib-1.3.1", slot="0/1.3"),
    package("dev-lang/python-3.12.1", slot="3.12"),
    package("dev-lang/python-3.13.0_rc1", slot="3.13"),
    package("app/text-1"),
    package("lib/text-1", dependencies=(Dependency(Cpv("sys-devel/gcc-12"), (Kind.BUILD,), ("sys-devel/gcc",)),)),
)


@pytest.mark.parametrize(
    ("name", "cpv"),
    [
        ("zlib", "sys-libs/zlib-1.3.1"),
        ("virtual/zlib", "virtual/zlib-1.3-r1"),
        (">=sys-libs/zlib-1[static]", "sys-libs/zlib-1.3.1"),
        ("python:3.13", "dev-lang/python-3.13.0_rc1"),
        ("=dev-lang/python-3.12*", "dev-lang/python-3.12.1"),
        ("lib/text", "lib/text-1"),
        ("gcc", "sys-devel/gcc-12"),
        ("gcc:12", "sys-devel/gcc-12"),  # the plan does not know the stage's slots
    ],
)
def test_one_package(name: str, cpv: str) -> None:
    assert find(PLAN, name) == cpv


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("text", "text may be app/text-1 or lib/text-1: name one, as =app/text-1"),
        ("python", "dev-lang/python-3.12.1 or dev-lang/python-3.13.0_rc1"),
        ("pyton", "did you mean dev-lang/python?"),
        ("<sys-libs/zlib-1", "is not in the plan"),
        ("a b", "'a b' is not a package"),
        ("@demo", "'@demo' is not a package"),
    ],
)
def test_none_or_several(name: str, complaint: str) -> None:
    with pytest.raises(InputError, match=re.escape(complaint)):
        find(PLAN, name)
