"""A directory as one file: a tar packed by zstd.

The same directory gives the same bytes: members are sorted, owners are left out, times are kept in whole seconds.
In a file that has holes, any run of zeros takes no room and is a hole where it is unpacked. Extended attributes are
not kept.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from cluster.process import find_programs, run

_DEADLINE_S = 1800.0
_PROGRAMS = {"tar": "tar", "zstd": "zstd"}


def pack(directory: Path, archive: Path, leave_out: Collection[str] = ()) -> None:
    """Write the content of `directory` into the file `archive`, without anything named in `leave_out`."""
    tar, zstd = find_programs(_PROGRAMS).values()
    argv: list[str | Path] = [tar, "--create", "--file", archive, "--directory", directory]
    # GNU's own format has no times but whole seconds; holes are where zeros are read, not where this disk has them.
    argv += ["--format=gnu", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"]
    argv += ["--sparse", "--hole-detection=raw", f"--use-compress-program={zstd} -3 -T0"]
    argv += ["--no-wildcards", *(f"--exclude={name}" for name in sorted(leave_out)), "."]
    run(argv, deadline_s=_DEADLINE_S)


def unpack(archive: Path, directory: Path) -> None:
    """Write the content of `archive` into `directory`, which is made, as files of this process's own user."""
    tar, zstd = find_programs(_PROGRAMS).values()
    directory.mkdir(parents=True, exist_ok=True)
    argv: list[str | Path] = [tar, "--extract", "--file", archive, "--directory", directory]
    argv += ["--no-same-owner", "--preserve-permissions", f"--use-compress-program={zstd}"]
    run(argv, deadline_s=_DEADLINE_S)


def state(directory: Path, leave_out: Collection[str] = ()) -> str:
    """What changes when `pack` would write something else, without reading a file."""
    digest = hashlib.blake2b(digest_size=16)
    for path, stat in _walk(directory, leave_out):
        digest.update(repr((path, stat.st_mode, stat.st_size, stat.st_mtime_ns, stat.st_ino)).encode())
    return digest.hexdigest()


def _walk(directory: Path, leave_out: Collection[str]) -> Iterator[tuple[str, os.stat_result]]:
    yield "", directory.stat()
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
        if entry.name in leave_out:
            continue
        if entry.is_dir(follow_symlinks=False):
            for path, stat in _walk(directory / entry.name, leave_out):
                yield f"{entry.name}/{path}", stat
        else:
            yield entry.name, entry.stat(follow_symlinks=False)
