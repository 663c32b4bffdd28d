"""What the preprocessor may open: a superset, by reading files' directives and directories' listings.

Nothing is evaluated. Every #include counts whatever #if it stands in, in every directory in which
such a name exists, so the set is too large but never too small; where it would be, as with an
#include of a macro, the answer is `Opaque`. No I/O happens here: a `Tree` answers, or does not
yet, and then `Missing` says what to ask for.
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Protocol

_NOTHING: frozenset[str] = frozenset()

# Gcc opens it before the first line of a C or C++ source, along the same path as any header.
_IMPLICIT = frozenset(("stdc-predef.h",))

# ---------------------------------------------------------------- one file

# libcpp takes these for blanks inside a line; \r and NUL it at most warns of.
_BLANK = rb"[ \t\f\v\0\r]"
_GAP = rb"(?:" + _BLANK + rb"|/\*(?s:.*?)\*/)*+"
_HASH = rb"(?:\#|%:|\?\?=)"
_TARGET = rb'(?:"(?P<quoted>[^"\n]*)"|<(?P<bracketed>[^>\n]*)>)?'

# A space between backslash and newline is warned of, and spliced all the same.
_SPLICE = re.compile(rb"\\" + _BLANK + rb"*+\n")
_TRIGRAPH_SPLICE = re.compile(rb"\?\?/" + _BLANK + rb"*+\n")
# What follows is only looked at: what seems a comment after one # may hold the next one.
# A macro's name or nothing: only a macro can stand for a header (and "#include's" is prose).
_MACRO = rb"(?P<macro>[A-Za-z_$\\\x80-\xff])?"
_INCLUDE = re.compile(_HASH + rb"(?=" + _GAP + rb"(?:include(?:_next)?|import)(?!\w)" + _GAP + _TARGET + _MACRO + rb")")
_HAS_INCLUDE = re.compile(
    rb"(?P<only_named>(?<!\w)(?:defined" + _BLANK + rb"*+\(?|(?:el)?ifn?def|define|undef)" + _BLANK + rb"*+)?"
    rb"(?<!\w)__has_include(?:_next)?(?:__)?(?!\w)(?=" + _GAP + rb"\(?" + _GAP + _TARGET + rb")"
)
_ASKING = re.compile(_HASH + _GAP + rb"(?:if|elif|define)(?!\w)|\*/")
# Of gcc -E too, which leaves out the word.
_LINE = re.compile(_HASH + _GAP + rb"(?:line(?!\w)" + _GAP + rb")?\d++" + _GAP + rb'"(?P<name>[^"\n]*)"')
# An assembler's directive, in an asm statement too, where it may be cut in two.
_ASSEMBLER_READS = re.compile(rb"\.inc(?:bin|lude(?!\w)|\\)", re.IGNORECASE)
_PRAGMA_READS = re.compile(rb"GCC" + _GAP + rb"(?:dependency|pch_preprocess)(?!\w)")
# Gcc 12's -E -fdirectives-only carries these out, or drops them, and writes a blank line; and it leaves _Pragma alone,
# whose macros the conditions after it then see too late.
_PRAGMA_UNKEPT = re.compile(
    rb"(?:push|pop)_macro(?!\w)|pragma" + _GAP + rb"(?:GCC" + _GAP + rb"poison|redefine_extname|message)(?!\w)"
)


@dataclass(frozen=True, slots=True)
class Includes:
    """What one file may make the preprocessor open."""

    quoted: frozenset[str] = _NOTHING
    """Names in "": looked up beside the file first."""
    bracketed: frozenset[str] = _NOTHING
    """Names in <>."""
    computed: bool = False
    """A name comes from a macro."""
    opaque: str = ""
    """Why the names are not all that matters, or empty."""
    volatile: bool = False
    """The time of day may be part of the result, which is then the node's to tell."""
    unkept: bool = False
    """It has a pragma to which gcc -E -fdirectives-only does not do justice."""
    lines: frozenset[str] = _NOTHING
    """Files that #line says lines to be of, as Autoconf once did of `configure`: messages quote them."""

    @property
    def trouble(self) -> str:
        """Why nobody can tell what this file makes the compiler read, or empty."""
        return self.opaque or ("an include of a macro" if self.computed else "")


def scan(text: bytes) -> Includes:
    """What C, C++ or assembler text may include, whatever its dialect and its conditions.

    Comments and strings count too where they look like a directive at the start of a line. Only
    an assembler directive that macros or adjacent strings put together from parts is not seen.
    """
    opaque = "a trigraph that joins lines" if b"??/" in text and _TRIGRAPH_SPLICE.search(text) else ""
    if b"\\" in text:
        text = _SPLICE.sub(b"", text)
    quoted: set[bytes] = set()
    bracketed: set[bytes] = set()
    computed = False
    for include in _INCLUDE.finditer(text):
        if not _starts_line(text, include.start()) or _collect(include, quoted, bracketed):
            continue
        computed |= include["macro"] is not None and not _in_comment(text, include.start())
    if b"__has_include" in text:
        for has in _HAS_INCLUDE.finditer(text):
            named = _collect(has, quoted, bracketed) or has["only_named"]
            computed |= not named and _asks(text, has.start())
    return Includes(
        frozenset(map(_name, quoted)),
        frozenset(map(_name, bracketed)),
        computed,
        opaque or _opaque(text),
        b"__DATE__" in text or b"__TIME__" in text,
        (b"pragma" in text or b"_macro" in text) and _PRAGMA_UNKEPT.search(text) is not None,
        frozenset(_name(line["name"]) for line in _LINE.finditer(text) if _starts_line(text, line.start())),
    )


def _name(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _collect(match: re.Match[bytes], quoted: set[bytes], bracketed: set[bytes]) -> bool:
    """Whether the directive says its name."""
    if match["quoted"] is not None:
        quoted.add(match["quoted"])
    elif match["bracketed"] is not None:
        bracketed.add(match["bracketed"])
    else:
        return False
    return True


def _starts_line(text: bytes, position: int) -> bool:
    """Whether nothing but blanks and maybe a comment comes before `position` in its line."""
    while position and text[position - 1] in b" \t\f\v\0\r":
        position -= 1
    before = text[max(0, position - 3) : position]
    return before[-1:] in (b"", b"\n") or before.endswith(b"*/") or (position == 3 and before == b"\xef\xbb\xbf")


def _in_comment(text: bytes, position: int) -> bool:
    """Whether `position` is inside a comment for certain, as prose about #include often is.

    A comment that begins its line is one for certain, unless that is a line of a raw string.
    """
    start = text.rfind(b"/*", 0, position)
    if start < 0 or text.find(b"*/", start + 2, position) >= 0 or text.find(b'R"', 0, position) >= 0:
        return False
    return not text[text.rfind(b"\n", 0, start) + 1 : start].strip(b" \t")


def _asks(text: bytes, position: int) -> bool:
    """Whether the line up to `position` can be a condition or a macro, or end one's comment."""
    return _ASKING.search(text, text.rfind(b"\n", 0, position) + 1, position) is not None


def _opaque(text: bytes) -> str:
    if _ASSEMBLER_READS.search(text):
        return "the assembler includes a file"
    if b"GCC" in text and _PRAGMA_READS.search(text):
        return "a pragma that reads a file"
    return "__TIMESTAMP__" if b"__TIMESTAMP__" in text else ""


# ---------------------------------------------------------------- the tree


@dataclass(frozen=True, slots=True)
class Listing:
    """The names in one directory, by what they are when links are followed."""

    files: frozenset[str] = _NOTHING
    directories: frozenset[str] = _NOTHING
    precompiled: frozenset[str] = _NOTHING
    """Headers that have a NAME.gch, which gcc would read in their place."""
    exists: bool = True

    @classmethod
    def of(cls, files: Iterable[str], directories: Iterable[str]) -> Listing:
        """The listing of a directory that has these files and directories."""
        files, directories = frozenset(files), frozenset(directories)
        found = frozenset(name.removesuffix(".gch") for name in files | directories if name.endswith(".gch"))
        return cls(files, directories, found)


ABSENT = Listing(exists=False)
"""The listing of what is no directory."""


class Tree(Protocol):
    """What is known of a file system. All paths are absolute and normal; no directory is a symlink."""

    def sealed(self, path: str) -> bool:
        """Whether nothing at `path` ever changes."""

    def listing(self, directory: str) -> Listing | None:
        """What is in a directory, or `ABSENT`; None when that is not known."""

    def includes(self, path: str) -> Includes | None:
        """`scan` of a file that a listing names, None when it is not known."""


@dataclass(frozen=True, slots=True)
class Closure:
    """Everything is known."""

    files: frozenset[str]
    """Every file that is not sealed and that the preprocessor may open."""
    directories: frozenset[str]
    """Every existing directory that is not sealed and that the preprocessor may look into or pass through."""
    names: frozenset[str]
    """Every name that is looked up along the search path."""
    volatile: bool
    """The time of day may be part of the result."""
    unkept: bool
    """As `Includes.unkept`."""
    unsure: bool
    """Messages may quote a file that is in no sealed directory and yet in the node."""


@dataclass(frozen=True, slots=True)
class Missing:
    """To be learnt from the node first. More may turn out to be missing then."""

    directories: frozenset[str]
    files: frozenset[str]


@dataclass(frozen=True, slots=True)
class Opaque:
    """What is read cannot be told."""

    path: str
    reason: str


# ---------------------------------------------------------------- the walk


@dataclass(frozen=True, slots=True)
class _Reach:
    """What an included name leads to by way of sealed files."""

    names: frozenset[str] = _NOTHING
    """All that those files include, to be looked up in directories that are not sealed."""
    outside: frozenset[str] = _NOTHING
    """Paths that those files name and that are not sealed."""
    volatile: bool = False
    unkept: bool = False
    opaque: Opaque | None = None
    lines: frozenset[str] = _NOTHING


_NOWHERE = _Reach()


class Sealed:
    """What names lead to in sealed directories, remembered as long as the root is the same one.

    One compile includes the same few hundred system headers as the next, by way of a few names.
    """

    def __init__(self) -> None:
        self._known: defaultdict[tuple[str, ...], dict[str, _Reach]] = defaultdict(dict)

    def known(self, directories: tuple[str, ...]) -> dict[str, _Reach]:
        """The memory for one search path, of sealed directories only."""
        return self._known[directories]


class _Walk:
    """Follows includes from directory to directory: what is common to sealed files and others."""

    def __init__(self, tree: Tree, directories: tuple[str, ...]) -> None:
        self.tree = tree
        self.directories = directories
        self.names: set[str] = set()
        self.files: set[str] = set()
        self.unknown_directories: set[str] = set()
        self.unknown_files: set[str] = set()
        self.existing: set[str] = set()
        self.volatile = False
        self.unkept = False
        self.opaque: Opaque | None = None
        self.lines: set[str] = set()
        self._looked: defaultdict[str, set[str]] = defaultdict(set)
        self._waiting: list[str] = []

    def follow(self) -> None:
        """Read what was found, and what is found by that, until nothing is new or something is opaque."""
        while self._waiting and self.opaque is None:
            path = self._waiting.pop()
            includes = self.tree.includes(path)
            if includes is None:
                self.unknown_files.add(path)
                continue
            self.volatile |= includes.volatile
            self.unkept |= includes.unkept
            self.lines |= includes.lines
            if includes.trouble:
                self.opaque = Opaque(path, includes.trouble)
            if includes.quoted:
                self.look(posixpath.dirname(path), includes.quoted)
            self.include(includes.quoted | includes.bracketed)

    def include(self, names: Set[str]) -> None:
        """Look names up along the search path."""
        fresh = names - self.names
        self.names |= fresh
        for directory in self.directories:
            self.look(directory, fresh)
        for name in fresh:
            if name.startswith("/"):
                self.look_at(name)

    def look_at(self, path: str) -> None:
        """Look for one absolute path."""
        normal, left = _normal(path)
        for directory in left:
            self.look(directory, _NOTHING)
        directory, name = posixpath.split(normal)
        self.look(directory, {name})

    def look(self, directory: str, names: Set[str]) -> None:
        """Look for names in one directory."""
        fresh = names - self._looked[directory]
        if not fresh and directory in self.existing:
            return
        self._looked[directory] |= fresh
        listing = self.tree.listing(directory)
        if listing is None:
            self.unknown_directories.add(directory)
            return
        if not listing.exists:
            return
        self.existing.add(directory)
        for name in fresh & listing.files:
            self.found(_join(directory, name))
        for name in fresh & listing.precompiled:
            self.opaque = Opaque(_join(directory, name), "a precompiled header")
        below: defaultdict[str, set[str]] = defaultdict(set)
        for name in fresh:
            if "/" in name:
                head, _, rest = name.partition("/")
                below[head].add(rest)
        for head, rests in below.items():
            if head in ("", "."):
                self.look(directory, rests)
            elif head == "..":
                self.look(posixpath.dirname(directory), rests)
            elif head in listing.directories:
                self.look(_join(directory, head), rests)

    def found(self, path: str) -> None:
        """One existing file that may be opened."""
        if path not in self.files:
            self.files.add(path)
            self._waiting.append(path)


class _SealedWalk(_Walk):
    """Through sealed files only; what leads out of them is noted."""

    def __init__(self, tree: Tree, directories: tuple[str, ...], known: Mapping[str, _Reach]) -> None:
        super().__init__(tree, directories)
        self._known = known
        self._outside: set[str] = set()

    def include(self, names: Set[str]) -> None:
        fresh = names - self.names
        for name in fresh & self._known.keys():
            reach = self._known[name]
            self.names |= reach.names
            self._outside |= reach.outside
            self.volatile |= reach.volatile
            self.unkept |= reach.unkept
            self.opaque = self.opaque or reach.opaque
            self.lines |= reach.lines
        super().include(fresh)

    def look(self, directory: str, names: Set[str]) -> None:
        if self.tree.sealed(directory):
            super().look(directory, names)
        else:
            self._outside |= {_join(directory, name) for name in names}

    def reach(self) -> _Reach:
        """What was found."""
        names, outside, lines = map(frozenset, (self.names, self._outside, self.lines))
        return _Reach(names, outside, self.volatile, self.unkept, self.opaque, lines)


class _OpenWalk(_Walk):
    """Through files that are not sealed, and by what `Sealed` remembers through the others."""

    def __init__(self, tree: Tree, search: Iterable[str], sealed: Sealed) -> None:
        directories = tuple(dict.fromkeys(search))
        super().__init__(tree, tuple(directory for directory in directories if not tree.sealed(directory)))
        self._sealed = tuple(directory for directory in directories if tree.sealed(directory))
        self._known = sealed.known(self._sealed)
        self._shown: set[str] = set()
        self._unsure = False

    def include(self, names: Set[str]) -> None:
        fresh = names - self.names
        super().include(fresh)
        for name in fresh:
            self._take(self._known.get(name) or self._reach(name))

    def found(self, path: str) -> None:
        if self.tree.sealed(path):
            self.include({path})
        else:
            super().found(path)

    def start(self, source: str) -> None:
        """Begin with a source, that has to exist."""
        directory, name = posixpath.split(source)
        self.look(directory, {name})
        listing = self.tree.listing(directory)
        if listing is not None and name not in listing.files:
            self.opaque = Opaque(source, "no such file")

    def pass_through(self, directory: str) -> None:
        """A directory that a `..` leaves again has to exist for that."""
        self.look(directory, _NOTHING)

    def show(self, cwd: str) -> None:
        """Find, once all is read, the files that messages may quote: by their names, from `cwd`, and nothing else."""
        for name in self.lines:
            path, left = _normal(posixpath.join(cwd, name))
            for directory in left:
                self.pass_through(directory)
            directory, base = posixpath.split(path)
            listing = self.tree.listing(directory)
            if listing is None:
                self.unknown_directories.add(directory)
            elif base in listing.files and not self.tree.sealed(path):
                self._shown.add(path)
                if self.tree.includes(path) is None:
                    self.unknown_files.add(path)
            elif base not in listing.files and self.tree.sealed(path):
                self._unsure = True

    def answer(self) -> Closure | Missing | Opaque:
        """What the walk came to."""
        if self.opaque is not None:
            return self.opaque
        if self.unknown_directories or self.unknown_files:
            return Missing(frozenset(self.unknown_directories), frozenset(self.unknown_files))
        existing = frozenset(directory for directory in self.existing if not self.tree.sealed(directory))
        files = frozenset(self.files | self._shown)
        return Closure(files, existing, frozenset(self.names), self.volatile, self.unkept, self._unsure)

    def _reach(self, name: str) -> _Reach:
        """What a name leads to in sealed directories; remembered once everything there is known."""
        walk = _SealedWalk(self.tree, self._sealed, self._known)
        walk.include({name})
        walk.follow()
        self.unknown_directories |= walk.unknown_directories
        self.unknown_files |= walk.unknown_files
        reach = walk.reach()
        if walk.opaque is not None or not (walk.unknown_directories or walk.unknown_files):
            self._known[name] = reach
        return reach

    def _take(self, reach: _Reach) -> None:
        self.volatile |= reach.volatile
        self.unkept |= reach.unkept
        self.opaque = self.opaque or reach.opaque
        self.lines |= reach.lines
        for directory in self.directories:
            self.look(directory, reach.names)
        for path in reach.outside:
            self.look_at(path)


def _join(directory: str, name: str) -> str:
    return f"/{name}" if directory == "/" else f"{directory}/{name}"


def _normal(path: str) -> tuple[str, tuple[str, ...]]:
    """An absolute path without `.` and `..`, and the directories that a `..` in it leaves."""
    normal, left = "/", []
    for part in path.split("/"):
        if part == "..":
            left.append(normal)
            normal = posixpath.dirname(normal)
        elif part not in ("", "."):
            normal = _join(normal, part)
    return normal, tuple(left)


def closure(
    sources: Iterable[str],
    forced: Iterable[str],
    search: Iterable[str],
    cwd: str,
    tree: Tree,
    sealed: Sealed,
) -> Closure | Missing | Opaque:
    """All that the preprocessor may open when it compiles `sources` in `cwd`.

    `sources`, `forced` (-include and -imacros) and `search` are as written on the command line.
    `search` holds every directory of the include path in any order, `Request.include_dirs` and the
    compiler's own: to take one kind for another only makes the set larger. `sealed` is one object
    for each state of the sealed part of `tree`.
    """

    def normal(path: str) -> str:
        found, left = _normal(posixpath.join(cwd, path))
        passed.extend(left)
        return found

    passed: list[str] = []
    walk = _OpenWalk(tree, [normal(directory) for directory in search], sealed)
    for source in sources:
        if source != "/dev/null":
            walk.start(normal(source))
    for directory in passed:
        walk.pass_through(directory)
    beside = frozenset(forced)
    walk.look(cwd, beside)
    walk.include(_IMPLICIT | beside)
    walk.follow()
    walk.show(cwd)
    return walk.answer()
