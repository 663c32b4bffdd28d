"""Many questions to emerge, each answered by its own main() in a process of its own, with the imports shared."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.bench.emerge import Prefix, options
from cluster.master.resolver import Request

# A line of JSON in, one out. The parent imports and does nothing else, so that a child is as good as a new process.
_SERVER = """
import json, os, runpy, signal, sys
import portage
portage._internal_caller = True
portage._disable_legacy_globals()
import _emerge.main, _emerge.actions, _emerge.depgraph, _emerge.resolver.output, _emerge.resolver.slot_collision
import _emerge.resolver.circular_dependency, portage.dbapi.bintree, portage.dbapi.porttree, portage.dbapi.vartree
import portage._sets.base, portage._sets.profiles, portage._sets.files, portage._sets.ProfilePackageSet

main = runpy.run_path(sys.argv[1], run_name="emerge")["main"]
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if child == 0:
        signal.alarm(asked["deadline_s"])
        for number in (1, 2):
            os.dup2(os.open(asked["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.clear()
        os.environ.update(asked["environment"])
        sys.argv = ["emerge", *asked["words"]]
        status = 70
        try:
            main()
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
_DEADLINE_S = 600  # a busy machine takes its time


@dataclass(frozen=True, slots=True)
class Answer:
    """What emerge printed, and its exit status."""

    status: int
    printed: str

    @property
    def merges(self) -> tuple[Merge, ...]:
        """The packages it would build or install, in its order."""
        return tuple(_merges(self.printed))


@dataclass(frozen=True, slots=True)
class Merge:
    """A line of emerge's list."""

    cpv: str
    slot: str
    """As the plan writes it."""
    repository: str
    flags: Mapping[str, bool]
    """The USE flags it shows, and whether they are on."""


class Emerge:
    """emerge over one prefix. One question at a time."""

    def __init__(self, prefix: Prefix, child: subprocess.Popen[str]) -> None:
        self.prefix = prefix
        self._child = child

    def pretend(self, request: Request, *more: str, **environment: str) -> Answer:
        """What emerge says to `request`; `more` words come first."""
        return self.ask(request, (*more, *options(request)), **environment)

    def ask(self, request: Request, words: Sequence[str], **environment: str) -> Answer:
        """What `emerge WORDS` says under the configuration of `request`."""
        output = self.prefix.root / "output"
        output.unlink(missing_ok=True)
        asked = {
            "words": words,
            "environment": {**self.prefix.configure(request), **environment},
            "output": str(output),
            "deadline_s": _DEADLINE_S,
        }
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        print(json.dumps(asked), file=self._child.stdin, flush=True)
        status = int(self._child.stdout.readline())
        return Answer(status, output.read_text())


@contextmanager
def running(root: Path) -> Iterator[Emerge]:
    """emerge with a prefix in the directory `root`, ended with the context."""
    prefix = Prefix.create(root)
    environment: dict[str, Any] = {"PATH": "/usr/bin:/bin", "PYTHONPATH": _site_packages(), "LC_ALL": "C.UTF-8"}
    argv = [prefix.python, "-c", _SERVER, prefix.program]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as child:
        try:
            yield Emerge(prefix, child)
        finally:
            child.kill()


def _site_packages() -> str:
    import portage

    return str(Path(portage.__file__).parents[1])


_LINE = re.compile(r"\[(?:ebuild|binary)[^]]*\] ([^:\s]+?)(?::([^:\s]+))?::(\S+)")


def _merges(printed: str) -> Iterator[Merge]:
    for line in printed.splitlines():
        if found := _LINE.match(line):
            yield Merge(found[1], found[2] or "0", found[3], dict(_flags(line)))


def _flags(line: str) -> Iterator[tuple[str, bool]]:
    for variable, shown in re.findall(r'(\w+)="([^"]*)"', line):
        prefix = "" if variable == "USE" else f"{variable.lower()}_"
        for flag in re.findall(r"-?[\w+@.-]+", re.sub(r"[%*(){}]", "", shown)):
            yield prefix + flag.removeprefix("-"), not flag.startswith("-")
