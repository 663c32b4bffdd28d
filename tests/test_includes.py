"""What the preprocessor may open, against what it does open."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cluster.node.includes import ABSENT, Closure, Includes, Listing, Missing, Opaque, Sealed, closure, scan

# ---------------------------------------------------------------- one file


def names(*quoted: str, bracketed: tuple[str, ...] = ()) -> Includes:
    return Includes(frozenset(quoted), frozenset(bracketed))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"", names()),
        (b'#include "x.h"', names("x.h")),
        (b"#include <sys/x.h>\n", names(bracketed=("sys/x.h",))),
        (b'\t # \t include\f"x.h"\r\n#include <y>\r\n', names("x.h", bracketed=("y",))),
        (b'#include"x"\n#import<y>\n#include_next <z>\n', names("x", bracketed=("y", "z"))),
        (b'%:include "x"\n??=include "y"\n%: import "z"\n', names("x", "y", "z")),
        (b'#inc\\\nlude "x"\n#include \\\r\n"y"\n#\\ \t\ninclude "z.\\\nh"\n', names("x", "y", "z.h")),
        (b'/* a */ /* b\n */ # /* c\n d */ include /**/ "x" // e\n', names("x")),
        (b'\xef\xbb\xbf#include "bom"\n', names("bom")),
        (b'#include "\xff\xe4.h"\n', names(b"\xff\xe4.h".decode("utf-8", "surrogateescape"))),
        (b'#\0include "nul"\n', names("nul")),
        (b'#if 0\n#include "x"\n#endif\n', names("x")),
        (b'// see #include /*\n#include "x"\n// */\n', names("x")),
        (b'/*\n#include /* */\n#include "x"\n/* */\n', names("x")),
        (b"#include <a>b\n#include <c> // <d>\n", names(bracketed=("a", "c"))),
        (b'#if __has_include(<a>) || __has_include_next ( /**/ "b")\n', names("b", bracketed=("a",))),
        (b"#if defined(__has_include) && \\\n  __has_include(<a>)\n#endif // __has_include\n", names(bracketed=("a",))),
        (b"#ifdef __has_include\n# define H __has_include(<a>)\n#endif\n", names(bracketed=("a",))),
        (b"#ifndef __has_include\n#define __has_include(x) 0\n#endif\n", names()),
        (b'#includes "x"\n#include_x "y"\n# included\n', names()),
        (b"/* Do not #include FOO; never\n   #include'd, and\n * #include BAR\n */\n", names()),
        (b"int i; /*\n*/\n  /* Please\n   #include this file last */\n#include <a>\n", names(bracketed=("a",))),
        (b'int dependency; char *s = "__has_include(X)"; #include FOO\n', names()),
        (
            b'# 1 "x.c"\n  %: line /**/ 2 "y" 3\n#line 3\n#lines 4 "z"\n#pragma GCC system_header\n',
            replace(names(), lines=frozenset(("x.c", "y"))),
        ),
        (b"x.include_dirs();\n", names()),
    ],
)
def test_names_are_found_wherever_the_preprocessor_would(text: bytes, found: Includes) -> None:
    assert scan(text) == found


@pytest.mark.parametrize(
    "text",
    [
        b"#include HEADER\n",
        b"# /* */ include /*\n*/ HEADER(x)\n",
        b"#inc\\\nlude \\\n HEADER\n",
        b"%:include_next H\n",
        b"/* */\n#include H\n/* */\n",
        b'char *s = "/*";\n#include H\n',
        b'char *s = R"(\n/* )";\n#include H\n',
        b'char *s = "*/ /*";\n#include H\n',
        b"// /*\n#include H\n",
        b"/*/ */\n#include H\n",
        b"#include \\u00e9\n",
        b"#if __has_include(HEADER)\n",
        b"#define HAS __has_include\n",
        b"#define HAS(x) __has_include(x)\n",
        b"#if 1 /*\n*/ && __has_include HEADER\n",
        b"#elif defined(__has_include) && __has_include(HEADER)\n",
    ],
)
def test_an_include_of_a_macro_is_computed(text: bytes) -> None:
    assert scan(text).computed
    assert scan(text).trouble == "an include of a macro"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'asm(".incbin \\"x\\"");', "the assembler includes a file"),
        (b'\t.INCLUDE "x.s"\n', "the assembler includes a file"),
        (b'.inc\\\\()bin "x"\n', "the assembler includes a file"),
        (b'asm(".inc\\\nbin x");', "the assembler includes a file"),
        (b'#pragma GCC dependency "x"\n', "a pragma that reads a file"),
        (b'_Pragma("GCC  dependency <x>")', "a pragma that reads a file"),
        (b"#define P(x) _Pragma(#x)\nP(GCC /**/ dependency X)\n", "a pragma that reads a file"),
        (b'#pragma GCC pch_preprocess "x.gch"\n', "a pragma that reads a file"),
        (b"char *s = __TIMESTAMP__;", "__TIMESTAMP__"),
        (b'#inc??/\nlude "x"\n', "a trigraph that joins lines"),
    ],
)
def test_what_reads_more_than_names_say_is_opaque(text: bytes, reason: str) -> None:
    assert scan(text).opaque == scan(text).trouble == reason


@pytest.mark.parametrize(
    "text",
    [
        b'#pragma push_macro("A")',
        b'_Pragma("pop_macro(\\"A\\")")',
        b"# pragma /* a */ GCC  poison x",
        b"%:pra\\\ngma redefine_extname a b",
        b'#pragma message "hello"',
    ],
)
def test_pragmas_that_get_lost_are_found(text: bytes) -> None:
    assert scan(text).unkept
    assert not scan(text).trouble


def test_pragmas_that_are_kept_are_not_taken_for_such() -> None:
    assert not scan(b"#pragma once\n#pragma GCC diagnostic push\n#pragma omp parallel\n// a message, poison\n").unkept


@pytest.mark.parametrize("text", [b"__DATE__", b"x = __TIME__;", b"__DA\\\nTE__"])
def test_the_time_of_day_is_volatile(text: bytes) -> None:
    assert scan(text).volatile
    assert not scan(text).trouble


@given(st.binary(max_size=60))
def test_any_bytes_can_be_scanned(text: bytes) -> None:
    assert isinstance(scan(text), Includes)


# ---------------------------------------------------------------- a tree


@dataclass
class Files:
    """A tree of files, in which only `known` paths have been asked for; None stands for all."""

    texts: dict[str, str]
    sealed_below: tuple[str, ...] = ("/usr",)
    known: set[str] | None = None
    unread: set[str] = field(default_factory=set)
    """Sealed files that are not known yet all the same."""
    read: list[str] = field(default_factory=list)
    """Paths in the order in which they were asked for."""

    def sealed(self, path: str) -> bool:
        return any(path == root or path.startswith(f"{root}/") for root in self.sealed_below)

    def listing(self, directory: str) -> Listing | None:
        if not (self.known is None or directory in self.known or self.sealed(directory)):
            return None
        prefix = directory.rstrip("/") + "/"
        below = [path.removeprefix(prefix) for path in self.texts if path.startswith(prefix)]
        if not below:
            return ABSENT
        return Listing.of([p for p in below if "/" not in p], [p.split("/")[0] for p in below if "/" in p])

    def includes(self, path: str) -> Includes | None:
        if path in self.unread or not (self.known is None or path in self.known or self.sealed(path)):
            return None
        self.read.append(path)
        return scan(self.texts[path].encode())


def answer(tree: Files, search: list[str], *, forced: tuple[str, ...] = (), sealed: Sealed | None = None) -> object:
    return closure(["main.c"], forced, search, "/b", tree, sealed or Sealed())


def files(*args: object, **kwargs: object) -> set[str]:
    found = answer(*args, **kwargs)  # type: ignore[arg-type]
    assert isinstance(found, Closure), found
    return set(found.files)


def test_a_file_that_line_names_is_needed_and_not_followed() -> None:
    """As Autoconf 2.13 says of each test program that it is a part of configure, which messages then quote."""
    texts = {"/b/main.c": '#line 7 "configure"\n#include "x.h"\n#line 1 "../y.y"\n# 1 "<built-in>"', "/b/x.h": ""}
    texts |= {"/b/configure": "#include <$header>\n#include MACRO", "/y.y": "", "/b/0": ""}
    tree = Files(texts, known={"/b", "/b/main.c", "/b/x.h"})
    missing = answer(tree, [])
    assert missing == Missing(directories=frozenset("/"), files=frozenset(("/b/configure",)))
    tree.known = None
    found = answer(tree, [])
    assert isinstance(found, Closure)
    assert set(found.files) == {"/b/main.c", "/b/x.h", "/b/configure", "/y.y"}
    assert not found.unsure


@pytest.mark.parametrize(("name", "unsure"), [("/usr/include/a.h", False), ("/usr/share/bison/c.skel", True)])
def test_a_file_that_only_the_node_may_have_makes_messages_unsure(name: str, unsure: bool) -> None:
    tree = Files({"/b/main.c": f'#line 7 "{name}"', "/usr/include/a.h": ""})
    found = answer(tree, ["/usr/include"])
    assert isinstance(found, Closure)
    assert (found.files, found.unsure) == (frozenset(("/b/main.c",)), unsure)


def test_a_name_counts_in_every_directory_that_has_it() -> None:
    tree = Files({"/b/main.c": "#include <x.h>", "/b/1/x.h": "", "/b/2/x.h": "", "/b/x.h": "", "/usr/include/x.h": ""})
    assert files(tree, ["1", "2", "/usr/include"]) == {"/b/main.c", "/b/1/x.h", "/b/2/x.h"}


def test_a_quoted_name_counts_beside_the_file_that_has_it() -> None:
    tree = Files({"/b/main.c": '#include "s/x.h"', "/b/s/x.h": '#include "y.h"', "/b/s/y.h": "", "/b/y.h": ""})
    assert files(tree, []) == {"/b/main.c", "/b/s/x.h", "/b/s/y.h"}


def test_a_sealed_header_may_lead_back_into_the_tree() -> None:
    """As gnulib's stdio.h stands in front of the system's, and a library's header asks for config.h."""
    texts = {"/b/main.c": "#include <lib.h>", "/b/config.h": '#include "deep.h"', "/b/deep.h": ""}
    texts |= {"/usr/include/lib.h": '#include "more.h"', "/usr/include/more.h": "#include <config.h>"}
    assert files(Files(texts), [".", "/usr/include"]) == {"/b/main.c", "/b/config.h", "/b/deep.h"}


def test_sealed_headers_are_read_once_for_all_compiles() -> None:
    texts = {"/b/main.c": "#include <a.h>\n#include <c.h>"}
    texts |= {f"/usr/include/{a}.h": f"#include <{b}.h>" for a, b in ("ab", "bc", "ca")}
    tree, sealed = Files(texts), Sealed()
    assert files(tree, ["/usr/include"], sealed=sealed) == {"/b/main.c"}
    tree.read.clear()
    assert files(tree, ["/usr/include"], sealed=sealed) == {"/b/main.c"}
    assert tree.read == ["/b/main.c"]


def test_what_an_opaque_sealed_header_is_stays_known() -> None:
    tree, sealed = Files({"/b/main.c": "#include <x.h>", "/usr/include/x.h": "#include H"}), Sealed()
    for _ in range(2):
        assert answer(tree, ["/usr/include"], sealed=sealed) == Opaque("/usr/include/x.h", "an include of a macro")


def test_paths_lead_in_and_out_of_sealed_directories() -> None:
    texts = {"/b/main.c": '#include "../usr/x/a.h"\n#include "//b/./abs.h"', "/b/abs.h": "", "/b/back.h": ""}
    texts |= {"/usr/x/a.h": '#include "../../b/back.h"\n#include "/b/s/t.h"', "/b/s/t.h": ""}
    assert files(Files(texts), []) == {"/b/main.c", "/b/abs.h", "/b/back.h", "/b/s/t.h"}


def test_what_is_forced_is_looked_up_in_the_working_directory_first() -> None:
    tree = Files({"/b/main.c": "", "/b/f/config.h": "", "/b/inc/m.h": '#include "n.h"', "/b/inc/n.h": ""})
    assert files(tree, ["inc"], forced=("f/config.h", "m.h")) == {
        "/b/main.c",
        "/b/f/config.h",
        "/b/inc/m.h",
        "/b/inc/n.h",
    }


def test_gccs_own_first_include_counts() -> None:
    tree = Files({"/b/main.c": "", "/b/inc/stdc-predef.h": ""})
    assert files(tree, ["inc"]) == {"/b/main.c", "/b/inc/stdc-predef.h"}


def test_directories_that_must_exist_are_told() -> None:
    texts = {"/b/main.c": '#include "s/t/../x.h"', "/b/s/x.h": "", "/b/s/t/y": "", "/b/inc/z": "", "/b/o/z": ""}
    found = answer(Files(texts), ["o/../inc", "none", "gone/../inc", "/usr/include"])
    assert isinstance(found, Closure)
    assert found.directories == {"/b", "/b/s", "/b/s/t", "/b/inc", "/b/o"}


def test_a_directory_that_is_not_there_is_not_passed_through() -> None:
    tree = Files({"/b/main.c": '#include "none/../x.h"', "/b/x.h": ""})
    assert files(tree, []) == {"/b/main.c"}


@pytest.mark.parametrize("holder", ["/b/main.c", "/b/x.h", "/usr/include/x.h"])
def test_the_time_of_day_and_pragmas_that_get_lost_count_anywhere(holder: str) -> None:
    for text, volatile in (("__TIME__", True), ("#pragma redefine_extname a b", False)):
        texts = {"/b/main.c": "#include <x.h>", "/b/x.h": "", "/usr/include/x.h": ""}
        texts[holder] += f"\n{text}"
        found = answer(Files(texts), [".", "/usr/include"])
        assert isinstance(found, Closure)
        assert (found.volatile, found.unkept) == (volatile, not volatile)


@pytest.mark.parametrize(
    ("texts", "opaque"),
    [
        ({"/b/other.c": ""}, Opaque("/b/main.c", "no such file")),
        ({"/b/main.c": "#include X"}, Opaque("/b/main.c", "an include of a macro")),
        ({"/b/main.c": '#include "x.h"', "/b/x.h": ".incbin"}, Opaque("/b/x.h", "the assembler includes a file")),
        ({"/b/main.c": '#include "x.h"', "/b/x.h.gch": ""}, Opaque("/b/x.h", "a precompiled header")),
        ({"/b/main.c": '#include "x.h"', "/b/x.h": "", "/b/x.h.gch/1": ""}, Opaque("/b/x.h", "a precompiled header")),
    ],
)
def test_what_cannot_be_told_is_opaque(texts: dict[str, str], opaque: Opaque) -> None:
    assert answer(Files(texts), ["."]) == opaque


def test_what_is_missing_is_asked_for_until_all_is_known() -> None:
    texts = {"/b/main.c": '#include "s/x.h"\n#include <y.h>', "/b/s/x.h": '#include "z.h"', "/b/s/z.h": ""}
    tree = Files(texts | {"/b/inc/y.h": "", "/b/other/secret.h": ""}, known=set())
    asked = []
    while isinstance(found := answer(tree, ["inc"]), Missing):
        assert tree.known is not None
        asked.append(sorted(found.directories | found.files))
        tree.known |= found.directories | found.files
    assert asked == [["/b", "/b/inc"], ["/b/main.c"], ["/b/inc/y.h", "/b/s"], ["/b/s/x.h"], ["/b/s/z.h"]]
    assert found == answer(Files(tree.texts), ["inc"])


def test_a_sealed_header_is_only_remembered_when_all_of_it_was_known() -> None:
    tree, sealed = Files({"/b/main.c": "#include <x.h>", "/usr/include/x.h": "__TIME__"}), Sealed()
    tree.unread.add("/usr/include/x.h")
    for _ in range(2):
        assert answer(tree, ["/usr/include"], sealed=sealed) == Missing(frozenset(), frozenset(tree.unread))
    tree.unread.clear()
    found = answer(tree, ["/usr/include"], sealed=sealed)
    assert isinstance(found, Closure)
    assert found.volatile


# ---------------------------------------------------------------- against the compiler itself

PLACES = [
    "main.c",
    "x.h",
    "y.h",
    "a/x.h",
    "a/y.h",
    "a/b/x.h",
    "a/b/z.h",
    "c/x.h",
    "c/z.h",
    "c/b/y.h",
    "c/stdc-predef.h",
]
NAMES = ["x.h", "y.h", "z.h", "b/x.h", "b/y.h", "../x.h", "../c/z.h", "a/x.h", "./y.h", "b/../z.h", "b//x.h", "no.h"]
FORMS = [
    '#include "{}"', "#include <{}>", "#include_next <{}>", '#import "{}"', '%:include "{}"', '??=include "{}"',
    '#inc\\\nlude "{}"', '  # /* c\n */ include /**/ "{}" // x', '#include "{}"\r', '/* a */ #include <{}>',
    '#if __has_include("{0}")\n#include "{0}"\nint has_quoted;\n#endif',
    "#if defined __has_include\n#if __has_include(<{0}>)\nint has_bracketed;\n#endif\n#endif",
    "#if __has_include_next(<{0}>)\nint has_next;\n#endif",
    '#if 0\n#include "{}"\n#endif', '/*\n#include "{}"\n*/', '"// {}', 'R"(\n#include "{}"\n)"', "#define X <{}>",
]  # fmt: skip
FLAGS = ["-I.", "-Ia", "-Ic", "-I a/b", "-iquote c", "-iquote a", "-isystem a", "-isystem c", "-idirafter c", "-Ino"]
FLAGS += ["-Ia/../c", "-Ino/../c", "-include x.h", "-include b/y.h", "-imacros y.h", "-trigraphs", "-std=c99", "-xc++"]

DIRECTIVES = st.builds(str.format, st.sampled_from(FORMS), st.sampled_from(NAMES))
# Every file ends after a few levels: a tree may well include itself.
TEXTS = st.lists(DIRECTIVES, max_size=4).map(
    lambda lines: "\n".join(["int level = __INCLUDE_LEVEL__;", "#if __INCLUDE_LEVEL__ < 4", *lines, "#endif", ""])
)
TREES = st.dictionaries(st.sampled_from(PLACES), TEXTS, min_size=4).map(lambda tree: {"main.c": "", **tree})


class Disk:
    """The real tree, of which everything is known, and nothing sealed but what the compiler brings."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def sealed(self, path: str) -> bool:
        return not Path(path).is_relative_to(self.root)

    def listing(self, directory: str) -> Listing | None:
        if not Path(directory).is_dir():
            return ABSENT
        entries = list(Path(directory).iterdir())
        return Listing.of([e.name for e in entries if e.is_file()], [e.name for e in entries if e.is_dir()])

    def includes(self, path: str) -> Includes | None:
        return scan(Path(path).read_bytes())


def preprocessed(words: list[str], root: Path) -> tuple[int, str, str]:
    """What gcc says of main.c, its list of opened headers (-H) and its warnings included."""
    argv = ["gcc", "-E", "-H", "-Wmissing-include-dirs", *words, "main.c"]
    ended = subprocess.run(argv, cwd=root, capture_output=True, text=True, errors="replace", timeout=60, check=False)
    return ended.returncode, ended.stdout, ended.stderr


def opened(said: str, root: Path) -> set[str]:
    """The files that -H lists."""
    lists = [line for line in said.splitlines() if line.startswith(".") and " " in line]
    found = {(root / line.split(" ", 1)[1]).resolve() for line in lists if line.lstrip(".").startswith(" ")}
    return {str(path) for path in found if path.is_relative_to(root)}


def search_of(words: list[str]) -> tuple[list[str], list[str]]:
    """The search path, and what is forced, of words that are all pairs or joined -I."""
    pairs = list(itertools.pairwise(words))
    search = [word[2:] for word in words if word.startswith("-I") and len(word) > 2]
    search += [value for word, value in pairs if word in ("-I", "-iquote", "-isystem", "-idirafter")]
    return search, [value for word, value in pairs if word in ("-include", "-imacros")]


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=TREES, flags=st.lists(st.sampled_from(FLAGS), max_size=5))
@example(texts={"main.c": "#include <x.h>", "a/x.h": "#include_next <z.h>", "c/z.h": ""}, flags=["-Ia", "-Ic"])
@example(texts={"main.c": '#if __has_include("a/x.h")\nint found;\n#endif', "a/x.h": ""}, flags=[])
def test_gcc_says_the_same_when_there_is_nothing_but_the_closure(
    texts: dict[str, str], flags: list[str], tmp_path: Path
) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    for root in (whole, part):
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
    for place, text in texts.items():
        (whole / place).parent.mkdir(parents=True, exist_ok=True)
        (whole / place).write_bytes(text.encode())
    words = " ".join(flags).split()
    search, forced = search_of(words)
    found = closure(["main.c"], forced, search, str(whole), Disk(whole), Sealed())
    assert isinstance(found, Closure), found
    for directory in found.directories:
        (part / Path(directory).relative_to(whole)).mkdir(parents=True, exist_ok=True)
    for file in found.files:
        shutil.copy(file, part / Path(file).relative_to(whole))
    said = preprocessed(words, whole)
    assert opened(said[2], whole) <= found.files
    assert preprocessed(words, part) == said
