"""Give the packages of a history of pkgsrc the sizes of their sources, as Debian has them, by their names.

What estimates by size are worth can be measured so, though the history has no sizes. Run by hand:
/usr/lib/apt/apt-helper cat-file LIST-OF-SOURCES | PYTHONPATH=. python tests/sized.py HISTORY NEW.jsonl
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from cluster.master import historyfile

_UPSTREAM = re.compile(r"^ [0-9a-f]{32} (\d+) \S+\.orig(?:-\S+)?\.tar\.\w+$", re.MULTILINE)


def sizes(text: str) -> dict[str, int]:
    """The bytes of upstream's archives of each source package in Debian's index `text`."""
    found = {}
    for paragraph in text.split("\n\n"):
        name, upstream = re.match(r"Package: (\S+)", paragraph), _UPSTREAM.findall(paragraph)
        if name and upstream:
            found[name[1]] = sum(map(int, upstream))
    return found


def names(pkgbase: str) -> Iterator[str]:
    """What Debian may call pkgsrc's `pkgbase`."""
    yield pkgbase
    yield re.sub("^py[0-9]*-", "python-", pkgbase)
    yield re.sub("^py[0-9]*-", "", pkgbase)
    yield re.sub("^p5-(.*)", lambda found: f"lib{found[1].lower()}-perl", pkgbase)


def size(pkgbase: str, known: dict[str, int]) -> int | None:
    """The bytes of its sources; None if Debian has none of its names."""
    return next((known[name] for name in names(pkgbase) if name in known), None)


def main(words: Iterable[str]) -> None:
    """Read a history, write another."""
    history, new = map(Path, words)
    known = sizes(sys.stdin.read())
    builds = historyfile.read(history, "pkgsrc")
    sized = [replace(build, source_bytes=size(build.name.partition("/")[2], known)) for build in builds]
    historyfile.write(new, sized)
    print(f"{sum(build.source_bytes is not None for build in sized)} of {len(sized)} builds have a size")


if __name__ == "__main__":
    main(sys.argv[1:])
