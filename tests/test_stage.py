"""Stages in the cache."""

from __future__ import annotations

import threading
from pathlib import Path

from cluster import paths, target
from cluster.node import stage


def test_a_stage_that_is_there_is_taken_while_another_one_is_being_built(tmp_path: Path) -> None:
    wanted, recipe = target.load("arm64"), target.load_recipe()
    there = tmp_path / "stages" / f"arm64-{stage.key(wanted, recipe)}"
    there.mkdir(parents=True)
    (there / "stage.json").write_text("{}")
    found: list[stage.Stage] = []
    taking = threading.Thread(target=lambda: found.append(stage.ensure(wanted, recipe, tmp_path, print)), daemon=True)
    with paths.locked(tmp_path / "stages" / "lock"):
        taking.start()
        taking.join(30)
        assert [one.directory for one in found] == [there]
