"""Directories for tests: random ones, and what one holds as a value."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

_NAMES = st.text(
    st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=8
).filter(lambda name: name not in (".", ".."))
_FILES = st.tuples(st.binary(max_size=40), st.sampled_from([0o644, 0o755, 0o600, 0o444]))
_LINKS = st.sampled_from(["nowhere", "../outside", "/etc/hostname", "."])

trees = st.recursive(
    st.dictionaries(_NAMES, _FILES | _LINKS, max_size=3),
    lambda inner: st.dictionaries(_NAMES | st.just("news"), _FILES | _LINKS | inner, max_size=3),
    max_leaves=6,
)
"""A directory: names to files (content and mode), links (where to) and directories."""


def write(directory: Path, tree: dict[str, Any]) -> Path:
    """Make `directory` with the content of `tree`; returns `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, entry in tree.items():
        path = directory / name
        if isinstance(entry, dict):
            write(path, entry)
        elif isinstance(entry, str):
            path.symlink_to(entry)
        else:
            path.write_bytes(entry[0])
            path.chmod(entry[1])
    return directory


def content(directory: Path) -> dict[str, tuple[int, bytes | str | None]]:
    """Mode and content of all that `directory` has, by path."""
    found: dict[str, tuple[int, bytes | str | None]] = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        inside: bytes | str | None = None
        if path.is_symlink():
            inside = str(path.readlink())
        elif stat.S_ISREG(status.st_mode):
            inside = path.read_bytes()
        found[str(path.relative_to(directory))] = (status.st_mode, inside)
    return found
