"""What a gcc command line makes, and of which files."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.node.commandline import Driver, Kind, Language, Refusal, Request, parse

CWD = PurePosixPath("/build/src")


def said(answer: Request | Refusal) -> str:
    """All that parse found, in one line; what is empty or false is left out."""
    if isinstance(answer, Refusal):
        return f"refused: {answer.reason}"
    head = " ".join(
        [
            answer.kind.name.lower(),
            *(f"{source.path}({source.language.value})" for source in answer.sources),
            *answer.objects,
            ">",
            *(answer.outputs or ["stdout"]),
        ]
    )
    lists = ["quote_dirs", "bracket_dirs", "system_dirs", "after_dirs", "forced"]
    lists += ["library_dirs", "libraries", "linker_files", "rpath", "rpath_link"]
    tail = [f"{name}={','.join(getattr(answer, name))}" for name in lists if getattr(answer, name)]
    tail += [name for name in ("debug", "shared", "static", "relocatable") if getattr(answer, name)]
    dependencies = [f"dependencies={answer.dependency_file}"] if answer.dependency_file else []
    return "; ".join([head, *dependencies, *tail])


def table() -> list[tuple[str, str]]:
    """The lines of commandlines.txt, each with what must be made of it."""
    text = Path(__file__).with_name("commandlines.txt").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line, answer.strip()) for line, answer in zip(lines[::2], lines[1::2], strict=True)]


@pytest.mark.parametrize(("line", "answer"), table(), ids=[line for line, _ in table()])
def test_a_line_is_read_as_gcc_reads_it(line: str, answer: str) -> None:
    assert said(parse(shlex.split(line), CWD, {})) == answer


@pytest.mark.parametrize(
    ("name", "driver"),
    [
        ("gcc", Driver.C),
        ("/usr/bin/cc", Driver.C),
        ("g++-12", Driver.CXX),
        ("riscv64-unknown-linux-gnu-c++", Driver.CXX),
    ],
)
def test_the_driver_is_in_the_name(name: str, driver: Driver) -> None:
    request = parse([name, "-c", "a.c"], CWD, {})
    assert isinstance(request, Request)
    assert request.driver is driver


@pytest.mark.parametrize(
    "variable",
    [
        *("CPATH", "C_INCLUDE_PATH", "LIBRARY_PATH", "COMPILER_PATH", "GCC_EXEC_PREFIX", "DEPENDENCIES_OUTPUT"),
        *("SUNPRO_DEPENDENCIES", "LD_RUN_PATH", "LD_PRELOAD", "LDEMULATION", "GCC_COMPARE_DEBUG", "COLLECT_GCC"),
    ],
)
def test_an_environment_that_changes_the_compiler_is_refused_unless_empty(variable: str) -> None:
    assert parse(["gcc", "-c", "a.c"], CWD, {variable: "x"}) == Refusal(f"{variable} is set")
    assert isinstance(parse(["gcc", "-c", "a.c"], CWD, {variable: "", "LANG": "C"}), Request)


def test_the_library_path_of_a_native_ld_matters_only_to_a_link() -> None:
    environ = {"LD_LIBRARY_PATH": "/build/.libs"}
    assert isinstance(parse(["gcc", "-c", "a.c"], CWD, environ), Request)
    assert parse(["gcc", "a.o"], CWD, environ) == Refusal("LD_LIBRARY_PATH is set")


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        ([], "not a name of gcc"),
        ([""], "not a name of gcc"),
        (["gcc", "-c", ""], "an empty word"),
        (["gcc", "-c", "a.c", "-DX=1\n#include X"], "control characters or not UTF-8"),
        (["gcc", "-c", os.fsdecode(b"\xff.c")], "control characters or not UTF-8"),
    ],
)
def test_what_no_shell_line_shows_is_refused(argv: list[str], reason: str) -> None:
    assert parse(argv, CWD, {}) == Refusal(reason)


def test_a_relative_working_directory_is_refused() -> None:
    assert parse(["gcc", "-c", "a.c"], PurePosixPath("src"), {}) == Refusal("odd working directory")


@pytest.mark.parametrize(
    ("path", "absolute"),
    [("x.c", "/build/src/x.c"), ("../x.c", "/build/x.c"), ("./a/.././x", "/build/src/x"), ("//x", "/x"), ("/..", "/")],
)
def test_a_path_is_made_absolute_by_its_words(path: str, absolute: str) -> None:
    request = parse(["gcc", "-c", "a.c"], CWD, {})
    assert isinstance(request, Request)
    assert request.absolute(path) == PurePosixPath(absolute)


def test_all_include_directories_can_be_had_at_once() -> None:
    request = parse(shlex.split("gcc -idirafter d -isystem c -Ib -iquote a -I bb -c x.c"), CWD, {})
    assert isinstance(request, Request)
    assert request.include_dirs == ("a", "b", "bb", "c", "d")


# ---------------------------------------------------------------- any words at all

WORDS = sorted({word for line, _ in table() for word in shlex.split(line)})
"""Words that mean something, to be put together in ways that do not."""


@settings(max_examples=400)
@given(
    st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=8), st.sampled_from(WORDS).map(lambda w: w[:-1]))),
    st.dictionaries(st.sampled_from(["CPATH", "LANG", "COLLECT_LTO"]), st.text(max_size=3), max_size=2),
)
def test_parse_never_raises(words: list[str], environ: dict[str, str]) -> None:
    answer = parse(["gcc", *words], CWD, environ)
    assert answer.reason if isinstance(answer, Refusal) else answer.sources or answer.objects


# ---------------------------------------------------------------- against the compiler itself

SOURCES = {
    "a.c": '#include "a.h"\nint main(void) { return A; }\n',
    "sub/b.c": "int b;\n",
    "c.cc": "int c;\n",
    "e.cpp": "namespace e { int f; }\n",
    "s.s": ".globl s\ns:\n",
    "t.S": "#define T t\n.globl T\nT:\n",
    "i.i": "int i;\n",
    "odd.txt": "int odd;\n",
    "a.h": "#define A 0\n",
    "x.map": "V1 { global: *; };\n",
}

SINGLE = ["a.c", "sub/b.c", "c.cc", "s.s", "t.S", "i.i", "./sub/../a.c", "-xc odd.txt"]
SEVERAL = ["a.c", "sub/b.c", "c.cc", "e.cpp", "s.s", "t.S", "i.i"]
DEPENDENCIES = ["", "-MD", "-MMD -MP", "-MD -MT q", "-MD -MF dep.d", "-MMD -MQ q -MFsub/dep", "-Wp,-MD,kernel.d"]
COMPILING = ["-g", "-O2", "-fPIC", "-I.", "-include a.h", "-pipe", "-DX=1", "-Wall", "-Wa,--noexecstack"]
LINKING = ["-shared", "-Wl,--version-script=x.map", "-Wl,-soname -Wl,x.so", "-s", "-lm", "-r", "-Wl,--as-needed"]
OUTPUTS = ["", "-o out", "-o sub/out.o", "-oout.x.y", "-o .out", "-o /dev/null"]
LINES = st.builds(
    lambda sources, kind, flags, dependencies, output: " ".join([*sources, kind, *flags, dependencies, output]).split(),
    st.one_of(
        st.lists(st.sampled_from(SINGLE), min_size=1, max_size=1),
        st.lists(st.sampled_from(SEVERAL), min_size=1, max_size=3, unique=True),
    ),
    st.sampled_from([kind.value for kind in Kind]),
    st.lists(st.sampled_from(COMPILING + LINKING), max_size=4),
    st.sampled_from(DEPENDENCIES),
    st.sampled_from(OUTPUTS),
)


@pytest.mark.slow
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=LINES)
def test_gcc_writes_just_what_was_foretold(words: list[str], tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    for name, text in SOURCES.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    request = parse(["gcc", *words], PurePosixPath(tree), {})
    if isinstance(request, Refusal):
        return
    ended = subprocess.run(["gcc", *words], cwd=tree, capture_output=True, timeout=60, check=False)
    made = {path for path in tree.rglob("*") if path.is_file()} - {tree / name for name in SOURCES}
    outputs = [*request.outputs, *([request.dependency_file] if request.dependency_file else [])]
    foretold = {Path(request.absolute(path)) for path in outputs} - {Path("/dev/null")}
    if ended.returncode == 0:
        assert made == foretold
        assert bool(ended.stdout) == (request.kind is Kind.PREPROCESS and not request.outputs)
    else:
        assert made <= foretold


def test_every_language_has_gccs_own_name() -> None:
    for language in Language:
        ended = subprocess.run(
            ["gcc", "-c", "-x", language.value, "/dev/null", "-o", "/dev/null"], capture_output=True, check=False
        )
        assert (ended.returncode, ended.stderr) == (0, b"")
