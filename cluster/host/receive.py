"""A directory that comes to a host as a compressed tar: `python -m cluster.host.receive PLACE SHA256 < TAR.ZST`."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from cluster.errors import ClusterError, MachineError

CONTENT: Final = ".content"
"""In such a directory: the SHA-256 of the tar that it came as."""
_CHUNK = 1 << 20


def receive(source: IO[bytes], place: Path, sha256: str) -> None:
    """Unpack the zstd-compressed tar that `source` gives as the directory `place`, in the place of what is there.

    Raises MachineError, and changes nothing, unless the tar's SHA-256 is `sha256`.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=place.parent) as scratch:
        new = Path(scratch) / "new"
        new.mkdir()
        digest = _unpack(source, new)
        if digest is None:
            raise MachineError(
                f"{place.name} could not be unpacked", "see whether the host's disk is full, and try again"
            )
        if digest != sha256:
            raise MachineError(f"{place.name} did not come whole", "try again")
        (new / CONTENT).write_text(sha256)
        if place.exists():
            place.rename(Path(scratch) / "old")
        new.rename(place)


def _unpack(source: IO[bytes], directory: Path) -> str | None:
    """Unpack into `directory`; returns its SHA-256, None if it is no tar. Its sender ends it, with the connection."""
    digest = hashlib.sha256()
    with (
        subprocess.Popen(["zstd", "-qdc"], stdin=source, stdout=subprocess.PIPE) as whole,
        subprocess.Popen(["tar", "-x", "--no-same-owner", "-C", str(directory)], stdin=subprocess.PIPE) as tar,
    ):
        assert whole.stdout is not None
        assert tar.stdin is not None
        with suppress(BrokenPipeError):  # tar has ended, and its status says so
            while data := whole.stdout.read(_CHUNK):
                digest.update(data)
                tar.stdin.write(data)
            tar.stdin.close()
    return None if whole.returncode or tar.returncode else digest.hexdigest()


if __name__ == "__main__":
    try:
        receive(sys.stdin.buffer, Path(sys.argv[1]), sys.argv[2])
    except (ClusterError, OSError) as error:
        sys.exit(str(error))
