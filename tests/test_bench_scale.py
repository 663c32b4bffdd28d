"""What more hosts bring, cost and move, simulated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scheduling import run, task

from cluster import cli
from cluster.bench import scale
from cluster.errors import InputError
from cluster.master.schedule import core, tasks
from cluster.master.schedule.hosts import Host
from cluster.master.schedule.rules import Earliest
from cluster.master.schedule.state import ranked
from cluster.master.schedule.tasks import Tasks

HISTORY = """\
timestamp,pkgpath,pkgname,outcome,make_jobs,duration,disk_usage
1,cat/a,a-1,success,1,1000000,104857600
1,cat/b,b-1,success,1,2000000,104857600
"""
MIB = 1 << 20


def moved(some: Tasks, *hosts: Host) -> int:
    return scale.moved(run(core.start(some, hosts, ranked(Earliest(), some), attempts=1)))


def test_a_host_gets_each_file_once_and_has_what_it_built() -> None:
    chain = tasks.of(
        [
            task("cat/a-1", disk_mib=100.0),
            task("cat/b-1", "cat/a-1", disk_mib=200.0),
            task("cat/c-1", "cat/b-1", seconds=9.0, disk_mib=400.0),
            task("cat/d-1", "cat/b-1", disk_mib=800.0),
        ]
    )
    sources = scale.SOURCES * 1500
    assert moved(chain, Host("one", ("one",))) == round(sources * MIB)
    two = moved(chain, Host("one", ("one:1", "one:2")))
    assert two == round(sources * MIB)
    apart = moved(chain, Host("one", ("one",)), Host("two", ("two",)))
    assert round(sources * MIB) < apart <= round((sources + scale.BINPKG * 3 * 300) * MIB)


def test_a_package_of_unknown_size_has_the_median() -> None:
    some = tasks.of([task("cat/a-1", disk_mib=100.0), task("cat/b-1", disk_mib=300.0), task("cat/c-1")])
    assert moved(some, Host("one", ("one",))) == round(scale.SOURCES * 600 * MIB)


def test_copies_need_nothing_of_each_other() -> None:
    many = scale.copied(tasks.of([task("cat/a-1"), task("cat/b-1", "cat/a-1")]), 3)
    assert len(many) == 6
    assert sorted(map(len, many.needs)) == [0, 0, 0, 1, 1, 1]
    assert all(many.all[need].cpv[-1] == many.all[place].cpv[-1] for place in range(6) for need in many.needs[place])


def test_the_answer_for_programs_and_for_a_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "graph").write_text("a-1 -> b-1\nnew-1\n")
    (tmp_path / "history.csv").write_text(HISTORY)
    monkeypatch.setattr(scale, "COPIES", (1, 2))
    words = ["bench", "scale", "--graph", str(tmp_path / "graph"), "--history", str(tmp_path / "history.csv")]
    assert cli.run([*words, "--hosts", "1,2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = found["rows"]
    assert [(row["copies"], row["packages"], row["hosts"], row["nodes"]) for row in rows] == [
        (1, 3, 1, 2),
        (1, 3, 2, 4),
        (2, 6, 1, 2),
        (2, 6, 2, 4),
    ]
    assert all(row["makespan_s"] == row["lower_bound_s"] == 1875.0 for row in rows[:2])
    assert rows[0]["cost_usd"] < rows[1]["cost_usd"] < 2 * rows[0]["cost_usd"]
    assert found["critical_s"] == {"1": 1875.0, "2": 1875.0}
    assert cli.run([*words, "--hosts", "1,2"]) == 0
    assert "from 1 hosts on nothing is gained; the longest chain takes 31.2 min" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "0", "-1", "ten", "1,,2", "20000"])
def test_hosts_are_numbers(text: str) -> None:
    with pytest.raises(InputError, match="is no list of numbers"):
        scale.parse(text)
