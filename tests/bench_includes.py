"""How long one closure takes when everything is known: `python tests/bench_includes.py`.

A source as autoconf and gnulib make them: 60 headers in 3 directories of the build tree, which
among them include 24 headers of the machine's own C library, half of the names in both places.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from functools import cache
from pathlib import Path

from cluster.node.includes import ABSENT, Closure, Includes, Listing, Sealed, closure, scan

SYSTEM = """stdio stdlib string unistd errno fcntl limits stdint stddef stdarg stdbool sys/types sys/stat sys/time
time ctype locale wchar signal inttypes assert sys/wait dirent pwd""".split()  # noqa: SIM905
COMPILERS_OWN = [str(path) for path in Path("/usr/lib/gcc").glob("*/[0-9]*/include")][:1]
STANDARD = [*COMPILERS_OWN, "/usr/local/include", *map(str, Path("/usr/include").glob("*-linux-gnu")), "/usr/include"]
ROUNDS = 200


class Known:
    """A file system of which every answer is remembered; all but `root` is sealed."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.listing = cache(self._listing)
        self.includes = cache(self._includes)

    def sealed(self, path: str) -> bool:
        return not path.startswith(self.root)

    def _listing(self, directory: str) -> Listing:
        if not Path(directory).is_dir():
            return ABSENT
        entries = list(Path(directory).iterdir())
        return Listing.of([e.name for e in entries if e.is_file()], [e.name for e in entries if e.is_dir()])

    def _includes(self, path: str) -> Includes:
        return scan(Path(path).read_bytes())


def write_tree(root: Path) -> None:
    """gnulib's own stdio.h and others in lib/, headers that include each other, config.h, main.c."""
    for directory in ("lib", "src", "inc"):
        (root / directory).mkdir()
    for name in (*SYSTEM[:11], "time", "wchar"):
        (root / "lib" / f"{name}.h").write_text(f"#include_next <{name}.h>\n#include <stddef.h>\n")
    for number in range(46):
        below = [f'#include "h{n}.h"' for n in (number * 2 + 1, number * 2 + 2) if n < 46]
        system = [f"#include <{SYSTEM[(number + n) % len(SYSTEM)]}.h>" for n in range(4)]
        text = "\n".join([*below, *system, *(f"int f{number}_{n}(void);" for n in range(60))])
        (root / ("src" if number % 2 else "inc") / f"h{number}.h").write_text(text)
    (root / "config.h").write_text("#define HAVE 1\n" * 400)
    (root / "src" / "main.c").write_text('#include <config.h>\n#include "h0.h"\n')


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_tree(root)
        tree, sealed, spent = Known(name), Sealed(), []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            found = closure(["src/main.c"], [], [".", "lib", "inc", "src", *STANDARD], name, tree, sealed)
            spent.append(time.perf_counter() - start)
        assert isinstance(found, Closure), found
        print(f"{len(found.files)} files in {len(found.directories)} directories of the build tree")
        print(f"first {spent[0] * 1e3:.1f} ms (reads, scans), then {statistics.median(spent[1:]) * 1e3:.2f} ms")


if __name__ == "__main__":
    main()
