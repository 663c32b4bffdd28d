"""The compile client for this machine's own processor: what a foreign root on its kernel starts without emulation.

clients/KEY/    the client, and the names of a stage's compilers as links to it
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable
from pathlib import Path

from cluster import paths
from cluster.process import find_program, run

_COMPILE_S = 120.0
_NAME = "cc-client"


def compile_to(directory: Path, names: Iterable[str]) -> None:
    """Compile the client into the new `directory`, with links to it of these `names`. Raises MachineError."""
    directory.mkdir()
    client = directory / _NAME
    argv: list[str | Path] = [find_program("gcc", "gcc"), "-O2", "-static", "-s", "-o", client, source()]
    run(argv, deadline_s=_COMPILE_S)
    for name in names:
        (directory / name).symlink_to(_NAME)


def ensure(names: Iterable[str], cache: Path) -> Path:
    """The directory of the client under these `names`, made if `cache` has none. Raises MachineError."""
    names = sorted(names)
    clients = cache / "clients"
    key = hashlib.blake2b("\0".join((source().read_text(), *names)).encode(), digest_size=6).hexdigest()
    with paths.locked(clients / "lock"):
        if not (clients / key).exists():
            with tempfile.TemporaryDirectory(prefix=".new-", dir=clients) as scratch:
                compile_to(Path(scratch) / key, names)
                (Path(scratch) / key).rename(clients / key)
    return clients / key


def source() -> Path:
    """What the client is compiled from."""
    return paths.data("stage-images", "guest", "cc.c")
