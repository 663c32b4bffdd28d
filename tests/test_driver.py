"""What measures process starts, as a node runs it: a file, alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.bench import driver


def test_every_kind_is_started_as_often_as_asked_and_nothing_is_left(tmp_path: Path) -> None:
    alone = tmp_path / "driver.py"
    alone.write_text(Path(driver.__file__).read_text())
    (tmp_path / "scratch").mkdir()
    said = subprocess.run(
        [sys.executable, "-IS", str(alone), "2"],
        env={"TMPDIR": str(tmp_path / "scratch")},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    times = json.loads(said.stdout)
    assert list(times) == list(driver.COMMANDS)
    assert all(len(taken) == 2 and min(taken) > 0 for taken in times.values())
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_command_that_fails_is_named() -> None:
    with pytest.raises(SystemExit, match="false: exit status 1"):
        driver.milliseconds(["/bin/false"])
