"""Graphs, plans and past builds that simulations are given."""

from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path

import pytest
from factories import package, plan

from cluster import report
from cluster.errors import InputError
from cluster.master import historyfile, workload
from cluster.master.estimate import UNKNOWN_S
from cluster.master.history import Build
from cluster.model import Action, Cpv

GRAPH = """\
# what B needs stands on the left
zlib-1 -> png-1   # a remark

png-1 -> viewer-1
zlib-1 -> viewer-1
alone-1
"""
COLUMNS = "timestamp,pkgpath,pkgname,outcome,stage,make_jobs,duration,disk_usage,build,cpu:configure,cpu:build"
HISTORY = f"""\
{COLUMNS}
200,devel/zlib,zlib-1,success,-,1,8000,1048576,7000,4000,8000
100,devel/zlib,zlib-1,success,-,1,1000,1048576,700,400,800
300,devel/zlib,zlib-1,failed,build,1,500,0,400,-,-
100,graphics/png,png-1,success,-,1,2000,-,1000,-,-
100,graphics/viewer,viewer-1,failed,build,1,9000,0,400,-,-
"""


def write(directory: Path, text: str | bytes, name: str = "graph") -> Path:
    path = directory / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def builds(directory: Path) -> tuple[Build, ...]:
    return historyfile.read(write(directory, HISTORY, "history"))


def test_lines_say_what_needs_what(tmp_path: Path) -> None:
    read = workload.read(write(tmp_path, GRAPH), ())
    assert {task.cpv: task.needs for task in read.tasks.all} == {
        "zlib-1": (),
        "png-1": ("zlib-1",),
        "viewer-1": ("png-1", "zlib-1"),
        "alone-1": (),
    }
    assert {task.seconds for task in read.tasks.all} == {UNKNOWN_S}
    assert read.unknown == 4


def test_the_latest_build_that_succeeded_says_what_a_package_takes(tmp_path: Path) -> None:
    read = workload.read(write(tmp_path, GRAPH), builds(tmp_path))
    found = {task.cpv: (task.seconds, task.disk_mib, task.parallelism) for task in read.tasks.all}
    assert found[Cpv("zlib-1")] == (8.0, 1.0, 1.5)
    assert found[Cpv("png-1")] == (2.0, 0.0, None)
    assert found[Cpv("viewer-1")][0] == UNKNOWN_S
    assert read.unknown == 2


@pytest.mark.parametrize("pack", [lzma.compress, gzip.compress])
def test_what_is_packed_is_told_by_its_content(tmp_path: Path, pack: type[bytes]) -> None:
    packed = workload.read(write(tmp_path, pack(GRAPH.encode())), ())
    assert packed.tasks.all == workload.read(write(tmp_path, GRAPH), ()).tasks.all


def test_a_saved_plan_gives_what_it_builds_by_cpv(tmp_path: Path) -> None:
    kept = package("devel/kept-1", action=Action.SKIP)
    made = plan(kept, package("devel/zlib-1", kept.cpv), package("graphics/png-1", "devel/kept-1", "devel/zlib-1"))
    saved = write(tmp_path, json.dumps(report.plan_json(made)))
    read = workload.read(saved, builds(tmp_path))
    assert [(task.cpv, task.seconds) for task in read.tasks.all] == [("devel/zlib-1", 8.0), ("graphics/png-1", 2.0)]
    assert read.tasks.needs == ((), (0,))


def test_a_plan_is_taken_as_it_is_expected(tmp_path: Path) -> None:
    made = plan(package("devel/zlib-1"), package("graphics/png-2", "devel/zlib-1"), package("other/new-1"))
    found = workload.of_plan(made, builds(tmp_path))
    assert [(task.cpv, task.seconds) for task in found.tasks.all][:2] == [
        ("devel/zlib-1", 8.0),
        ("graphics/png-2", 2.0),
    ]
    assert found.unknown == 1


@pytest.mark.parametrize(
    ("graph", "complaint"),
    [
        ("a\nb -> \n", "line 2: 'b ->' is neither `A -> B`"),
        ("a -> b -> c\n", "line 1: 'a -> b -> c' is neither"),
        ("a b\n", "line 1: 'a b' is neither"),
        ("->\n", "line 1: '->' is neither"),
        ("a -> b\nb -> c\nc -> a\n", "need each other in a circle"),
        ('{"packages": [{"cpv": "a/b-1"}]}', "is no plan, it has no 'action'"),
        ('{\n"packages": [,]}', "line 2: Expecting value"),
        ('{"packages": [], "first": {}}', "two rounds"),
        (b"\xfd7zXZ\0rubbish", "is damaged"),
        (b"\xff\xff\xff", "is damaged, or no text"),
    ],
)
def test_a_graph_that_is_none_is_refused_with_its_line(tmp_path: Path, graph: str | bytes, complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        workload.read(write(tmp_path, graph), ())
    assert complaint in str(caught.value)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere cannot be read: No such file"):
        workload.read(tmp_path / "nowhere", ())
