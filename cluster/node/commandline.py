"""A gcc command line, read as gcc 12's driver reads it: what it makes, and of which files.

Nothing is guessed. A word that `commandline.toml` does not list is refused, as is a line whose
meaning hangs on more than itself, its environment and the files that it names.
"""

from __future__ import annotations

import functools
import posixpath
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import Any

_DATA: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())

ENVIRONMENT_PASSED: tuple[str, ...] = tuple(_DATA["environment"]["passed"])
"""Variables that are part of the result: a compiler run elsewhere gets them as they are here."""
HALVES: dict[str, Any] = _DATA["halves"]
"""Which options matter when a compile is done in two (cluster.node.halves)."""

# c89 and c99 are scripts of the distribution's own around gcc, and not the same ones everywhere.
_NAME = re.compile(r"(?:[\w.]+(?:-[\w.]+)+-)?(?P<driver>gcc|cc|g\+\+|c\+\+)(?:-\d+)?", re.ASCII)
_SCRIPTS = ("c89", "c99")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
# In a -D these would put the time, or a file, into what is compiled without any file saying so.
_TELLTALE = re.compile(r"__DATE__|__TIME__|__TIMESTAMP__|__has_include|_Pragma|\.inc(?:bin|lude)")
_DEVICES = ("/dev/", "/proc/", "/sys/")
# Ld takes these for --library, --library-path and --ld-generated-unwind-info, not for -l.
_ABBREVIATED = re.compile(r"-l(?:ib|d$|d-)")
_NATIVE = ("-march=native", "-mcpu=native", "-mtune=native")


class Kind(Enum):
    """How far gcc goes; the value is the option that says so."""

    PREPROCESS = "-E"
    ASSEMBLE = "-S"
    COMPILE = "-c"
    LINK = ""


class Language(Enum):
    """What a source is, by gcc's own name for -x."""

    C = "c"
    CXX = "c++"
    CPP_OUTPUT = "cpp-output"
    CXX_CPP_OUTPUT = "c++-cpp-output"
    ASSEMBLER = "assembler"
    ASSEMBLER_WITH_CPP = "assembler-with-cpp"

    @property
    def preprocessed(self) -> bool:
        """Whether the preprocessor runs over it, and so may include other files."""
        return self in (Language.C, Language.CXX, Language.ASSEMBLER_WITH_CPP)

    @property
    def assembler(self) -> bool:
        """Whether only the assembler compiles it."""
        return self in (Language.ASSEMBLER, Language.ASSEMBLER_WITH_CPP)


class Driver(Enum):
    """Which of the two drivers was called; they differ in what they link and in what .c means."""

    C = "gcc"
    CXX = "g++"


@dataclass(frozen=True, slots=True)
class Source:
    """One file to compile, as written."""

    path: str
    language: Language


@dataclass(frozen=True, slots=True)
class Option:
    """One option, or with `name` empty one positional word."""

    name: str
    value: str = ""
    words: tuple[str, ...] = ()
    """As written, in a compiler's command line."""

    @property
    def text(self) -> str:
        return f"{self.name}{self.value}"


@dataclass(frozen=True, slots=True)
class Request:
    """One run of gcc that may happen elsewhere. Every path is as written: `absolute` resolves it."""

    cwd: PurePosixPath
    driver: Driver
    options: tuple[Option, ...]
    """The whole line."""
    kind: Kind
    sources: tuple[Source, ...]
    objects: tuple[str, ...]
    """Inputs of the linker by name: objects, archives, shared libraries, linker scripts."""
    outputs: tuple[str, ...]
    """What is made, one for each source unless linked; empty when it goes to stdout."""
    dependency_file: str | None
    """Where the make rule goes that -MD and the like ask for."""
    quote_dirs: tuple[str, ...]
    """-iquote"""
    bracket_dirs: tuple[str, ...]
    """-I"""
    system_dirs: tuple[str, ...]
    """-isystem"""
    after_dirs: tuple[str, ...]
    """-idirafter"""
    forced: tuple[str, ...]
    """-include and -imacros: looked up in the working directory, then like a quoted include."""
    library_dirs: tuple[str, ...]
    """-L"""
    libraries: tuple[str, ...]
    """The X of each -lX; `:NAME` stands for that file name."""
    linker_files: tuple[str, ...]
    """Version scripts and the like. Ld looks for one in the working directory, then in -L."""
    rpath: tuple[str, ...]
    """Where ld looks for the libraries that libraries need, after `rpath_link`."""
    rpath_link: tuple[str, ...]
    """Where ld looks first for the libraries that libraries need."""
    debug: bool
    """Whether the working directory is written into the result."""
    shared: bool
    static: bool
    relocatable: bool

    @property
    def include_dirs(self) -> tuple[str, ...]:
        """Every directory in which the line says to look for includes."""
        return self.quote_dirs + self.bracket_dirs + self.system_dirs + self.after_dirs

    def absolute(self, path: str) -> PurePosixPath:
        """`path` from the root and without `.` and `..`, taken by its words: symlinks are not followed."""
        return _absolute(self.cwd, path)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The line has to run where it is."""

    reason: str
    """One short phrase."""


class _Refused(Exception):
    """The reason for a Refusal, on its way to `parse`."""


class _Take(Enum):
    """Where an option's value is."""

    NOTHING = "alone"
    REST = "joined"
    NEXT = "separate"
    REST_OR_NEXT = "either"


def parse(argv: Sequence[str], cwd: PurePosixPath, environ: Mapping[str, str]) -> Request | Refusal:
    """What a compiler's command line asks for, or why it has to run locally. Never raises.

    `argv` includes the name that was called, of which the last component says which driver it is;
    whether a CHOST or version in it is the target's is for the caller to see. `cwd` is the
    working directory as gcc finds it: $PWD if that is the same directory, else getcwd's answer.
    """
    try:
        _refuse_environment(environ, _DATA["environment"]["refused"], _DATA["environment"]["refused_prefixes"])
        driver = _driver(argv)
        if not cwd.is_absolute() or _CONTROL.search(str(cwd)):
            raise _Refused("odd working directory")
        request = _request(cwd, driver, tuple(_options(argv[1:])))
        if request.kind is Kind.LINK:
            _refuse_environment(environ, _DATA["environment"]["refused_at_link"], ())
        return request
    except _Refused as refused:
        return Refusal(str(refused))


def _refuse_environment(environ: Mapping[str, str], names: Iterable[str], prefixes: Iterable[str]) -> None:
    for name in names:
        if environ.get(name):
            raise _Refused(f"{name} is set")
    for prefix in prefixes:
        for name, value in environ.items():
            if name.startswith(prefix) and value:
                raise _Refused(f"{name} is set")


def _driver(argv: Sequence[str]) -> Driver:
    name = posixpath.basename(argv[0]) if argv else ""
    if name in _SCRIPTS:
        raise _Refused(f"{name} is a script that runs gcc")
    match = _NAME.fullmatch(name)
    if match is None:
        raise _Refused("not a name of gcc")
    return Driver.CXX if "+" in match["driver"] else Driver.C


# ---------------------------------------------------------------- words


@functools.cache
def _rules() -> Mapping[str, _Take | str]:
    """Each option's name with where its value is, or with the reason why it is refused."""
    rules: dict[str, _Take | str] = dict(_DATA["refused"])
    for table in ("options", "machine"):
        for take, names in _DATA[table].items():
            rules |= dict.fromkeys(names, _Take(take))
    return rules


_LONGEST = max(map(len, _rules()))


def _rule(word: str) -> tuple[str, _Take]:
    """The name that `word` begins with and where its value is, by the longest name that fits."""
    rules = _rules()
    for length in range(min(len(word), _LONGEST), 1, -1):
        name = word[:length]
        take = rules.get(name)
        if take is None or (take in (_Take.NOTHING, _Take.NEXT) and name != word):
            continue
        if isinstance(take, str):
            raise _Refused(f"{word} {take}")
        return name, take
    raise _Refused(f"unknown option {word}")


def _options(words: Sequence[str]) -> Iterator[Option]:
    rest = iter(words)
    for word in rest:
        _refuse_word(word)
        if not word.startswith("-"):
            yield Option("", word, (word,))
            continue
        if word == "-":
            raise _Refused("reads stdin")
        name, take = _rule(word)
        value = word[len(name) :]
        if take is _Take.NEXT or (take is _Take.REST_OR_NEXT and not value):
            value = next(rest, "")
            _refuse_word(value, missing=f"{name} has no value")
            yield Option(name, value, (word, value))
        else:
            yield Option(name, value, (word,))


def _refuse_word(word: str, missing: str = "an empty word") -> None:
    if not word:
        raise _Refused(missing)
    if word.startswith("@"):
        raise _Refused("names a response file")
    if _CONTROL.search(word):
        raise _Refused("control characters or not UTF-8")


# ---------------------------------------------------------------- meaning


def _request(cwd: PurePosixPath, driver: Driver, options: Sequence[Option]) -> Request:
    def values(*names: str) -> tuple[str, ...]:
        return tuple(option.value for option in options if option.name in names)

    kind = _kind(options)
    _refuse_values(options, kind)
    sources, objects = _inputs(options, driver)
    linker = _linker(options)
    objects += linker.objects
    _refuse_inputs(kind, sources, objects)
    outputs = _outputs(kind, sources, values("-o"))
    dependency_file = _dependency_file(options, kind, sources, outputs)
    request = Request(
        cwd=cwd,
        driver=driver,
        options=tuple(options),
        kind=kind,
        sources=sources,
        objects=objects,
        outputs=outputs,
        dependency_file=dependency_file,
        quote_dirs=values("-iquote"),
        bracket_dirs=values("-I"),
        system_dirs=values("-isystem"),
        after_dirs=values("-idirafter"),
        forced=values("-include", "-imacros"),
        library_dirs=values("-L") + linker.library_dirs,
        libraries=linker.libraries,
        linker_files=linker.files,
        rpath=linker.rpath,
        rpath_link=linker.rpath_link,
        debug=any(_keeps_cwd(option) for option in options),
        shared=bool(values("-shared")) or "shared" in linker.flags,
        static=bool(values("-static", "-static-pie")),
        relocatable=bool(values("-r")) or not linker.flags.isdisjoint(("r", "relocatable")),
    )
    _refuse_paths(request)
    return request


def _kind(options: Iterable[Option]) -> Kind:
    kinds = {Kind(option.name) for option in options if option.name in ("-E", "-S", "-c")}
    if len(kinds) > 1:
        raise _Refused("more than one of -E, -S and -c")
    return kinds.pop() if kinds else Kind.LINK


def _refuse_values(options: Iterable[Option], kind: Kind) -> None:
    at_link: dict[str, str] = _DATA["refused_at_link"]
    for option in options:
        if option.text.startswith(_NATIVE):
            raise _Refused(f"{option.text} depends on the machine")
        if option.name in ("-I", "-iquote", "-isystem", "-idirafter", "-L") and option.value.startswith(("=", "$")):
            raise _Refused("a directory below the sysroot")
        if option.name == "-D" and _TELLTALE.search(option.value):
            raise _Refused("defines what only a file should hold")
        if kind is Kind.LINK:
            for prefix, reason in at_link.items():
                if option.text.startswith(prefix):
                    raise _Refused(f"{option.text} {reason}")
        if option.name == "-Wa,":
            _refuse_assembler(option.value)
        if option.name == "-Wp,":
            _refuse_preprocessor(option.value)


def _refuse_assembler(text: str) -> None:
    known: list[str] = _DATA["assembler"]["words"]
    for word in text.split(","):
        if word not in known:
            raise _Refused(f"unknown assembler option {word}")


def _refuse_preprocessor(text: str) -> None:
    word, *rest = text.split(",")
    if word in ("-MD", "-MMD"):
        if len(rest) != 1 or not rest[0] or rest[0].startswith("-"):
            raise _Refused(f"unknown preprocessor options {text}")
        return
    for define in (word, *rest):
        if not re.match(r"-[DU][A-Za-z_]", define) or _TELLTALE.search(define):
            raise _Refused(f"unknown preprocessor option {define}")


def _keeps_cwd(option: Option) -> bool:
    """-gz and the like change only how debug information looks, but such a line asks for some somewhere."""
    return (option.name == "-g" and option.value != "0") or option.text == "-fworking-directory"


def _inputs(options: Iterable[Option], driver: Driver) -> tuple[tuple[Source, ...], tuple[str, ...]]:
    """Sources and inputs of the linker, each in order; a -x is for those after it."""
    sources: list[Source] = []
    objects: list[str] = []
    chosen = "none"
    for option in options:
        if option.name == "-x":
            chosen = option.value
            if chosen not in ("none", *(language.value for language in Language)):
                raise _Refused(f"language {chosen}")
        elif not option.name:
            language = Language(chosen) if chosen != "none" else _language(option.value, driver)
            if language is None:
                objects.append(option.value)
            else:
                sources.append(Source(option.value, language))
    return tuple(sources), tuple(objects)


@functools.cache
def _suffixes() -> Mapping[str, Language | None]:
    """Each suffix that gcc knows with its language, None when that is not one of ours."""
    known: dict[str, Language | None] = {}
    for language, suffixes in _DATA["languages"].items():
        known |= dict.fromkeys(suffixes, None if language == "other" else Language(language))
    return known


def _language(path: str, driver: Driver) -> Language | None:
    """The language of a file by its name; None for an input of the linker."""
    name = posixpath.basename(path)
    _, dot, suffix = name.rpartition(".")
    known = _suffixes()
    if not dot or suffix not in known:
        return None
    language = known[suffix]
    if language is None:
        raise _Refused(f"a .{suffix} file")
    if driver is Driver.CXX and language is Language.CPP_OUTPUT:
        raise _Refused("g++ takes .i for C++ source")
    return Language.CXX if driver is Driver.CXX and language is Language.C else language


def _refuse_inputs(kind: Kind, sources: Sequence[Source], objects: Sequence[str]) -> None:
    if not sources and not objects:
        raise _Refused("no input files")
    if kind is Kind.LINK:
        return
    if objects:
        raise _Refused("inputs of the linker, but nothing is linked")
    for source in sources:
        if kind is Kind.PREPROCESS and not source.language.preprocessed:
            raise _Refused("nothing to preprocess")
        if kind is Kind.ASSEMBLE and source.language.assembler:
            raise _Refused("assembler, but nothing to compile")


def _outputs(kind: Kind, sources: Sequence[Source], named: Sequence[str]) -> tuple[str, ...]:
    if len(named) > 1:
        raise _Refused("more than one -o")
    if named and kind is not Kind.LINK and len(sources) > 1:
        raise _Refused("one -o for many sources")
    if named:
        return tuple(named)
    if kind is Kind.LINK:
        return ("a.out",)
    if kind is Kind.PREPROCESS:
        if len(sources) > 1:
            raise _Refused("many sources to one stdout")
        return ()
    suffix = ".s" if kind is Kind.ASSEMBLE else ".o"
    outputs = tuple(_with_suffix(posixpath.basename(source.path), suffix) for source in sources)
    if len(set(outputs)) != len(outputs):
        raise _Refused("two sources with one output")
    return outputs


def _with_suffix(path: str, suffix: str) -> str:
    """As gcc does it: what follows the last dot goes, even if nothing is before it."""
    directory, name = posixpath.split(path)
    stem, dot, _ = name.rpartition(".")
    return posixpath.join(directory, (stem if dot else name) + suffix)


def _dependency_file(
    options: Sequence[Option], kind: Kind, sources: Sequence[Source], outputs: Sequence[str]
) -> str | None:
    """Where the make rule goes: -MF, or named after -o, or after the source and in the working directory."""
    asked = any(option.name in ("-MD", "-MMD") for option in options)
    kernel_style = [
        option.value.split(",")[1] for option in options if option.text.startswith(("-Wp,-MD,", "-Wp,-MMD,"))
    ]
    named = [option.value for option in options if option.name == "-MF"]
    if kernel_style:
        if asked or named or len(kernel_style) > 1:
            raise _Refused("two dependency files")
        named = kernel_style
    elif not asked:
        if any(option.name in ("-MF", "-MT", "-MQ", "-MP") for option in options):
            raise _Refused("names dependencies but makes none")
        return None
    preprocessed = [source for source in sources if source.language.preprocessed]
    if len(sources) > 1 or len(named) > 1:
        raise _Refused("two dependency files")
    if not preprocessed:
        return None
    if named:
        return named[0]
    if outputs == ("/dev/null",):
        raise _Refused("dependencies beside /dev/null")
    if any(option.name == "-o" for option in options):
        return _with_suffix(outputs[0], ".d")
    if kind is Kind.LINK:
        raise _Refused("dependencies of a program without -o")  # gcc's name for them, a-x.d, has changed over time
    return _with_suffix(posixpath.basename(preprocessed[0].path), ".d")


def _absolute(cwd: PurePosixPath, path: str) -> PurePosixPath:
    # normpath keeps two leading slashes, which POSIX lets mean something else.
    return PurePosixPath("/" + posixpath.normpath(posixpath.join(str(cwd), path)).lstrip("/"))


def _refuse_paths(request: Request) -> None:
    sources = [source.path for source in request.sources]
    outputs = [*request.outputs, *([request.dependency_file] if request.dependency_file else [])]
    inputs = [*sources, *request.objects, *request.forced, *request.linker_files]
    for path in (*inputs, *outputs):
        if path == "-":
            raise _Refused("names stdin or stdout")
        if path.endswith("/") or posixpath.basename(path) in (".", ".."):
            raise _Refused(f"{path} is a directory")
        where = str(_absolute(request.cwd, path))
        if where != "/dev/null" and where.startswith(_DEVICES):
            raise _Refused(f"{path} is a device")
    written = [_absolute(request.cwd, path) for path in outputs if path != "/dev/null"]
    read = {_absolute(request.cwd, path) for path in inputs}
    if len(set(written)) != len(written) or not read.isdisjoint(written):
        raise _Refused("one file in two roles")


# ---------------------------------------------------------------- words for ld


@dataclass(frozen=True, slots=True)
class _Linker:
    """What the words for ld name."""

    objects: tuple[str, ...]
    flags: frozenset[str]
    library_dirs: tuple[str, ...]
    libraries: tuple[str, ...]
    files: tuple[str, ...]
    rpath: tuple[str, ...]
    rpath_link: tuple[str, ...]


@functools.cache
def _linker_table(key: str) -> frozenset[str]:
    return frozenset(_DATA["linker"][key])


@functools.cache
def _valued() -> frozenset[str]:
    """The long names that take their value after = or in the next word."""
    return frozenset().union(*(_linker_table(key) for key in ("values", "files", "rpath", "rpath_link")))


def _linker(options: Iterable[Option]) -> _Linker:
    words = tuple(_linker_options(options))

    def values(key: str) -> tuple[str, ...]:
        return tuple(word.value for word in words if word.name in _linker_table(key))

    return _Linker(
        objects=tuple(word.value for word in words if not word.name),
        flags=frozenset(word.name for word in words),
        library_dirs=tuple(word.value for word in words if word.name == "L"),
        libraries=tuple(word.value for word in words if word.name == "l"),
        files=values("files"),
        rpath=_directories(values("rpath")),
        rpath_link=_directories(values("rpath_link")),
    )


def _directories(lists: Iterable[str]) -> tuple[str, ...]:
    return tuple(directory for text in lists for directory in text.split(":") if directory)


def _linker_options(options: Iterable[Option]) -> Iterator[Option]:
    """Ld's options by their names without dashes, and gcc's own -l among them, in order.

    Gcc hands -Wl, -Xlinker, -l and files to ld in their order, so that a value may come in the
    next -Wl, but not on the other side of a file.
    """
    waiting = ""
    for option in options:
        if option.name in ("", "-l"):
            if waiting:
                raise _Refused(f"linker option {waiting} has no value")
            if option.name:
                yield Option("l", option.value)
            continue
        if option.name not in ("-Wl,", "-Xlinker"):
            continue
        for word in option.value.split(",") if option.name == "-Wl," else (option.value,):
            _refuse_word(word, missing="an empty linker option")
            if waiting:
                yield Option(waiting, word)
                waiting = ""
                continue
            found = _linker_option(word)
            if isinstance(found, str):
                waiting = found
            else:
                yield found
    if waiting:
        raise _Refused(f"linker option {waiting} has no value")


def _linker_option(word: str) -> Option | str:
    """One of ld's words as an option, or only its name when the next word is its value."""
    if not word.startswith("-"):
        return Option("", word)
    text = word[2:] if word.startswith("--") else word[1:]
    name, equals, value = text.partition("=")
    if not equals and name in _linker_table("flags"):
        return Option(name)
    if name in _valued() and not equals:
        return name
    if name in _valued() and value:
        return Option(name, value)
    if equals and value and name in _linker_table("joined_values"):
        return Option(name, value)
    if not word.startswith("--") and not _ABBREVIATED.match(word):
        if text in _linker_table("letters"):
            return text
        if text[:1] in _linker_table("letters_joined"):
            return Option(text[0], text[1:])
    raise _Refused(f"unknown linker option {word}")
