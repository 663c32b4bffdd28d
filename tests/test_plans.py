"""How planning is timed against emerge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster import cli
from cluster.bench.plans import COMMAND, EMERGE, Report, System


def test_the_ratio_is_that_of_turns_taken_together() -> None:
    system = System(276, {COMMAND: (2.0, 4.0, 9.0), EMERGE: (1.0, 4.0, 3.0)})
    assert system.ratio(COMMAND) == 2.0
    assert system.median(EMERGE) == 3.0
    printed = json.loads(json.dumps(Report(3, {"arm64": system}, {"cores": 2}).json()))
    assert printed["systems"]["arm64"]["ratio_to_emerge"] == {COMMAND: 2.0}
    assert printed["systems"]["arm64"]["seconds"][COMMAND] == {"median_s": 4.0, "min_s": 2.0, "max_s": 9.0}


def test_without_a_tree_one_line_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["bench", "plan", "--tree", str(tmp_path / "none")]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"cluster: there is no Gentoo tree at {tmp_path}/none: name an ebuild repository")
    assert said.count("\n") == 1
