"""A directory of programs that is a test's whole PATH: a few real tools, and fakes."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path


def write_programs(directory: Path, tools: Iterable[str], fakes: Mapping[str, str]) -> Path:
    """Make `directory` of links to the machine's `tools` and of `fakes`, by name the text of a shell script."""
    directory.mkdir()
    for name in tools:
        found = shutil.which(name)
        assert found is not None
        (directory / name).symlink_to(found)
    for name, text in fakes.items():
        (directory / name).write_text(f"#!/bin/sh\n{text}\n")
        (directory / name).chmod(0o755)
    return directory
