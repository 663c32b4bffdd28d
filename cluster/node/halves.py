"""A compile that two hosts share: one preprocesses, another compiles what came of it, and the object is the same.

The preprocessor leaves macros to the compiler (gcc's -fdirectives-only): so lines, columns, comments and the
places of macros are in what is compiled, and the compiler warns of what it would have warned of. With macros
expanded it says nothing about `int x = NULL;`, as the expansion counts as the system header's. What does not come
out the same stays whole.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from cluster.node.commandline import HALVES, Driver, Kind, Language, Option, Request

_DIRECTIVES_ONLY = "-fdirectives-only"  # in DWARF's DW_AT_producer too, which is one reason to leave -g out
_SUFFIXES = {Language.C: ".i", Language.CXX: ".ii"}
_ELSEWHERE = ("-c", "-o", "-x", "")
"""Said in another way in both halves, or in one."""
# Macros that would tell of the preprocessed file; and pragmas of a target or an optimization level, which define
# macros as the compiler runs, too late for the preprocessor's conditions. _Pragma can make one of pieces.
_TIED: Final = re.compile(
    rb"__BASE_FILE__|__INCLUDE_LEVEL__|(?:push|pop|reset)_options"
    rb'|GCC\s+(?:target|optimize)\b|\b(?:target|optimize)[\s(\\]*["\d]'
)


class Away(Protocol):
    """Other hosts' compilers, for one job."""

    def room(self) -> bool:
        """Whether one of them would begin a compile at once."""
        ...

    def compile(self, argv: Sequence[str], source: bytes) -> bytes | None:
        """The object that one of them makes of a preprocessed `source`, if it has not a word to say; None if not.

        The file that `argv` names is `source`, whatever its name. It is bounded in time.
        """
        ...


@dataclass(frozen=True, slots=True)
class Halves:
    """Command lines that together do what one does."""

    preprocess: tuple[str, ...]
    """Writes the preprocessed source to stdout, and the dependency file."""
    compile: tuple[str, ...]
    """Depends on nothing but that source."""


def halves(compiler: str, request: Request) -> Halves | None:
    """The halves of `request`, for which `compiler` was called; None if it has to be done in one."""
    if not _divides(request):
        return None
    suffix = _SUFFIXES[request.sources[0].language]
    kept = tuple(word for option in request.options if option.name not in ("-c", "-o") for word in option.words)
    told = tuple(word for option in request.options if not _is_preprocessors(option) for word in option.words)
    return Halves(
        (compiler, "-E", _DIRECTIVES_ONLY, *_dependencies(request), *kept),
        (posixpath.basename(compiler), _DIRECTIVES_ONLY, *told, "-c", f"source{suffix}", "-o", "object.o"),
    )


def _divides(request: Request) -> bool:
    """Whether it is C or C++ to one object, by options that mean the same in halves."""
    if request.kind is not Kind.COMPILE or len(request.sources) != 1 or request.debug:
        return False
    language = request.sources[0].language
    # What is C for g++, by -x c, has no suffix that says so.
    known = language is Language.CXX or (language is Language.C and request.driver is Driver.C)
    words = {option.text for option in request.options}
    return (
        known
        and request.outputs != ("/dev/null",)
        and not any(word.startswith(tuple(HALVES["refused"])) for word in words)
        and (words.isdisjoint(HALVES["indentation"]) or not words.isdisjoint(HALVES["no_indentation"]))
    )


def _is_preprocessors(option: Option) -> bool:
    return option.name in _ELSEWHERE or option.name in HALVES["preprocessor"]


def _dependencies(request: Request) -> Iterator[str]:
    """What gcc takes from -o as it compiles, and not as it preprocesses."""
    named = {option.name for option in request.options}
    if request.dependency_file is None:
        return
    if "-MF" not in named:
        yield from ("-MF", request.dependency_file)
    if named.isdisjoint(("-MT", "-MQ")):
        yield from ("-MQ", request.outputs[0])


def is_portable(source: bytes) -> bool:
    """Whether a preprocessed `source` means the same under another name, and to a preprocessor that ran before."""
    return _TIED.search(source) is None
