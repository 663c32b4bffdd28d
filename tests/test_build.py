"""What the marks of a build tell."""

from __future__ import annotations

import re

import pytest

from cluster import paths
from cluster.node.build import phases, unfinished

MARKS = """\
prerequisites 5.10
ebuild 25.60
begin:setup 30.00
end:setup 30.25
begin:unpack 31.00
end:unpack 32.00
begin:compile 33.00
end:compile 83.50
begin:install 84.00
end:install 86.00
end 90.00
"""


def until(line: str) -> str:
    return MARKS[: MARKS.index(line)]


def test_phases_of_a_whole_build() -> None:
    assert phases(MARKS) == (
        ("prerequisites", 20.5),
        ("start", 4.4),
        ("setup", 0.25),
        ("unpack", 1.0),
        ("compile", 50.5),
        ("install", 2.0),
        ("between", 2.25),
        ("package", 4.0),
    )


def test_a_phase_that_did_not_end_has_no_time() -> None:
    assert dict(phases(until("end:compile"))) == {
        "prerequisites": 20.5,
        "start": 4.4,
        "setup": 0.25,
        "unpack": 1.0,
    }


@pytest.mark.parametrize("marks", ["", "prerequisites 5.10\n"])
def test_a_build_that_hardly_began_has_no_phases(marks: str) -> None:
    assert phases(marks) == ()


@pytest.mark.parametrize("marks", ["prereq", "prerequisites", "prerequisites \n", "prerequisites 5.10\nebuild"])
def test_marks_cut_off_by_a_dying_node(marks: str) -> None:
    assert phases(marks) == ()


@pytest.mark.parametrize(
    ("before", "phase"),
    [
        ("prerequisites", "start"),
        ("ebuild", "prerequisites"),
        ("begin:setup", "setup"),
        ("end:setup", "setup"),
        ("end:compile", "compile"),
        ("end:install", "install"),
        ("end 90", "package"),
    ],
)
def test_unfinished_is_the_phase_where_the_marks_stop(before: str, phase: str) -> None:
    assert unfinished(until(before)) == phase


def test_the_guest_marks_the_steps_that_phases_knows() -> None:
    script = paths.data("stage-images", "job", "build").read_text()
    assert re.findall(r"^\s*mark (\w+)$", script, re.MULTILINE) == ["prerequisites", "ebuild", "end"]
    hooks = paths.data("stage-images", "job", "bashrc").read_text()
    assert "begin:${_cluster_phase#*_}" in hooks
    assert "end:${_cluster_phase#*_}" in hooks
