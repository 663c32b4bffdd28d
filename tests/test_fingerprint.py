"""Fingerprints: written and read back, and every difference in words; what counts of a configuration."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.master import buildconfig
from cluster.master.fingerprint import Parts, changes, digest, parse, render

LETTERS = st.characters(codec="ascii", categories=("L", "N", "P"), exclude_characters="=")
WORD = st.text(LETTERS, min_size=1)


@given(st.lists(st.tuples(WORD, WORD), max_size=8))
def test_what_is_written_is_read(parts: list[tuple[str, str]]) -> None:
    assert parse(render(tuple(parts))) == tuple(parts)


def test_words_of_another_program_are_passed_over() -> None:
    assert parse("ebuild=1 nonsense files=2") == (("ebuild", "1"), ("files", "2"))


def test_a_digest_tells_one_text_from_two() -> None:
    assert digest("ab") != digest("a", "b")
    assert digest("ab") == digest(b"ab")
    assert len(digest()) == 24


@pytest.mark.parametrize(
    ("had", "wants", "told"),
    [
        ((("ebuild", "1"),), (("ebuild", "1"),), ()),
        ((("ebuild", "1"),), (("ebuild", "2"),), ("its ebuild changed",)),
        ((), (("ebuild", "2"),), ()),
        ((("ebuild", "1"),), (), ()),
        ((("eclasses", "a:1,b:1"),), (("eclasses", "a:2,b:1"),), ("eclass a changed",)),
        ((("eclasses", "a:1"),), (("eclasses", "a:1,b:1"),), ("eclass b is new",)),
        ((("eclasses", "a:1,b:1"),), (("eclasses", "b:1"),), ("eclass a is gone",)),
        ((("config", "CFLAGS:1,other:1"),), (("config", "CFLAGS:2,other:1"),), ("CFLAGS changed",)),
        (
            (("config", "other:1"),),
            (("config", "other:2"),),
            ("another variable of the configuration changed",),
        ),
        ((("slots", "lib/a:0/1"),), (("slots", "lib/a:0/2"),), ("lib/a is 0/2 and was 0/1",)),
        ((("slots", "lib/a:0/1"),), (("slots", ""),), ()),
        ((("tools", ""),), (("tools", "sys-devel/gcc-14"),), ("it was built with the tools of the stage",)),
        ((("tools", "sys-devel/gcc-13"),), (("tools", "x"),), ("it was built with sys-devel/gcc-13",)),
        ((("later", "1"),), (("later", "2"),), ("later changed",)),
    ],
)
def test_each_difference_has_its_words(had: Parts, wants: Parts, told: tuple[str, ...]) -> None:
    assert changes(had, wants) == told


def test_what_has_no_part_in_the_result_is_left_out() -> None:
    variables = {
        "CFLAGS": "-O2   -pipe",
        "LDFLAGS": "",
        "MAKEOPTS": "-j9",
        "ACCEPT_KEYWORDS": "arm64",
        "PORTAGE_NICENESS": "19",
        "USE": "x",
        "PYTHON_TARGETS": "python3_13",
        "FEATURES": "test -sandbox nostrip",
        "MY_SWITCH": "on",
    }
    found = buildconfig.relevant(variables, {"PYTHON_TARGETS"})
    assert found == {"CFLAGS": "-O2 -pipe", "FEATURES": "nostrip", "MY_SWITCH": "on"}
    assert buildconfig.part(found) == (
        f"CFLAGS:{digest('-O2 -pipe')[:12]},FEATURES:{digest('nostrip')[:12]},other:{digest('MY_SWITCH=on')[:12]}"
    )
