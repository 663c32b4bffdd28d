"""Files of past builds."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest
from factories import past
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import InputError
from cluster.master import historyfile
from cluster.master.history import RAN, Build
from cluster.model import Cpv, Verdict

BOB = """\
timestamp,pkgpath,pkgname,outcome,stage,make_jobs,duration,disk_usage,configure,build,cpu:configure,cpu:build
1772302376,archivers/brotli,brotli-1.1.0,success,-,4,89267,8388608,5958,-,5944,-
1772295150,chat/zenirc,zenirc-2.112nb4,failed,configure,-,46487,-,-,-,-,-
"""
BROTLI = Build(
    target="",
    cpv=Cpv("archivers/brotli-1.1.0"),
    ended=1772302376.0,
    verdict=Verdict.BUILT,
    seconds=89.267,
    cpu_s=5.944,
    disk_mib=8.0,
    phases=(("configure", 5.958),),
    jobs=4,
)
AMOUNTS = st.none() | st.floats(0, 1e12)
BUILDS = st.builds(
    Build,
    target=st.sampled_from(["arm64", "riscv"]),
    cpv=st.sampled_from([Cpv("sys-libs/zlib-1.3.1-r1"), Cpv("chat/zenirc-2.112nb4")]),
    ended=st.floats(0, 1e10),
    verdict=st.sampled_from(RAN),
    seconds=st.floats(0, 1e9),
    cpu_s=AMOUNTS,
    memory_mib=AMOUNTS,
    disk_mib=AMOUNTS,
    phases=st.lists(st.tuples(st.text(max_size=9), st.floats(0, 1e9))).map(tuple),
    jobs=st.none() | st.integers(1, 999),
    speed=st.floats(0.01, 100),
    source_bytes=st.none() | st.integers(0, 10**12),
    remote=st.integers(0, 10**6),
    local=st.integers(0, 10**6),
)


def complaint(tmp_path: Path, text: str) -> str:
    """What is wrong with a file of `text`, without its name."""
    path = tmp_path / "past"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        historyfile.read(path)
    assert error.value.what.startswith(f"{path}, ")
    return error.value.what.removeprefix(f"{path}, ")


def test_the_history_of_pkgsrcs_builder() -> None:
    first, second = historyfile.pkgsrc(BOB)
    assert first == BROTLI
    assert first.cpv.partition("/")[2] == "brotli-1.1.0"
    assert (second.verdict, second.jobs, second.disk_mib, second.cpu_s) == (Verdict.FAILED, None, None, None)


@pytest.mark.parametrize("name", ["past.jsonl", "past.csv", "past.jsonl.xz", "past.csv.gz"])
@given(builds=st.lists(BUILDS, max_size=3))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, name: str, builds: list[Build]) -> None:
    path = tmp_path_factory.mktemp("past") / name
    historyfile.write(path, builds)
    if builds or "csv" in name:
        assert list(historyfile.read(path)) == builds


@pytest.mark.parametrize("pack", [lambda data: data, lzma.compress, gzip.compress])
def test_format_and_packing_are_told_by_the_content(tmp_path: Path, pack) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "past.txt"
    path.write_bytes(pack(BOB.encode()))
    assert historyfile.read(path)[0] == BROTLI
    assert {build.target for build in historyfile.read(path, "arm64")} == {"arm64"}


def test_a_file_names_only_what_it_knows(tmp_path: Path) -> None:
    (tmp_path / "past").write_text('\n{"cpv": "c/x-1", "ended": 7, "verdict": "built", "seconds": 2.5, "more": 1}\n')
    assert historyfile.read(tmp_path / "past") == tuple(past("c/x-1", 2.5, ended=7.0, target=""))
    (tmp_path / "past").write_text("cpv,ended,verdict,seconds,jobs\nc/x-1,7,built,2.5,\n")
    assert historyfile.read(tmp_path / "past") == tuple(past("c/x-1", 2.5, ended=7.0, target=""))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("89267", "89s", "line 2: duration '89s' is no number"),
        ("89267", "-", "line 2: duration is missing"),
        ("46487", "-46487", "line 3: duration '-46487' is no number"),
        ("5944", "²", "line 2: cpu:configure '²' is no number"),
        ("failed", "lost", "line 3: outcome 'lost' is none of success, failed"),
        ("1772295150", "today", "line 3: ended = 'today': Input should be a valid number"),
        ("chat/zenirc,", "", "line 3: 11 columns, not 12"),
        ("zenirc-2.112nb4", "zenirc", "line 3: 'chat/zenirc' is not CATEGORY/NAME-VERSION"),
        ("pkgname,", "", "line 1: neither our CSV or JSON lines nor bob's history, which have pkgname"),
    ],
)
def test_a_bad_row_of_bobs_is_named(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert complaint(tmp_path, BOB.replace(old, new)).startswith(says)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"cpv": "c/x-1", "ended": 7, "verdict": "built"}', "seconds is missing"),
        ('{"cpv": "c/x-1", "ended": 7, "verdict": "built", "seconds": -1}', "a number is below 0 or not finite"),
        ('{"cpv": "c/x-1", "ended": NaN, "verdict": "built", "seconds": 1}', "a number is below 0 or not finite"),
        ('{"cpv": "c/x-1", "ended": 7, "verdict": "built", "seconds": 1, "speed": 0}', "speed 0 is not above 0"),
        ('{"cpv": "c/x-1", "ended": 7, "verdict": "blocked", "seconds": 1}', "what is blocked never ran"),
        ('{"cpv": "c/x-1", "ended": 7, "verdict": "fine", "seconds": 1}', "verdict = 'fine': Input should be"),
        ("[1]", "it is no JSON object"),
        ("{", "Expecting property name"),
    ],
)
def test_a_bad_line_of_ours_is_named(tmp_path: Path, line: str, says: str) -> None:
    good = '{"cpv": "c/x-1", "ended": 7, "verdict": "built", "seconds": 2.5}'
    assert complaint(tmp_path, f"{good}\n{line}\n").startswith(f"line 2: {says}")


def test_phases_that_are_no_json_are_named(tmp_path: Path) -> None:
    text = "cpv,ended,verdict,seconds,phases\nc/x-1,7,built,2.5,configure\n"
    assert complaint(tmp_path, text).startswith("line 2: Expecting value")


@pytest.mark.parametrize("data", [b"\xfd7zXZ\0half", gzip.compress(b"x" * 99, mtime=0)[:-9], b"\xff\xfe"])
def test_a_damaged_file_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "past").write_bytes(data)
    with pytest.raises(InputError, match="past is damaged, or no text"):
        historyfile.read(tmp_path / "past")


def test_files_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing cannot be read: No such file"):
        historyfile.read(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"past\.xz does not say its format: end it in \.jsonl or \.csv"):
        historyfile.write(tmp_path / "past.xz", [])
    with pytest.raises(InputError, match="cannot be written"):
        historyfile.write(tmp_path / "nowhere/past.csv", [])
