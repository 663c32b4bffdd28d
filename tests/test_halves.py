"""A compile in halves on two hosts: what comes of it is the whole one's, byte for byte, or it stays whole."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from factories import host_root
from processes import eventually
from test_compileserver import Bench, client
from test_relay import PACKAGE, QUICK, distccd, free_port, member

from cluster import paths
from cluster import target as targets
from cluster.host.pool import Pool
from cluster.host.relay import Relay, Timing
from cluster.node import sandbox, stage, sysroot
from cluster.node import toolchain as toolchains
from cluster.node.commandline import Request, parse
from cluster.node.compileserver import CompileServer
from cluster.node.halves import Away, Halves, halves, is_portable
from cluster.node.includes import scan
from cluster.node.sandbox import Ran, Sandbox, make_places
from cluster.node.sysroot import Root

pytestmark = pytest.mark.slow

__all__ = ["client"]  # the fixture

needs_compilers = pytest.mark.skipif(
    not (shutil.which("gcc") and shutil.which("g++") and sandbox.works()), reason="needs gcc, g++ and bwrap"
)

C = """
#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <sys.h>
#include "h.h"
#ifndef NAME
#define NAME "none"
#endif
#define CAT(a, b) a##b
#define UNIQUE(a, b) CAT(a, b)
static int UNIQUE(v, __COUNTER__) = __LINE__, UNIQUE(v, __COUNTER__);
int main(int argc, char **argv)
{
    int a = SQUARE(argc); /* a comment */
    assert(argc > 0);
    switch (argc) {
    case 1: a++; /* fall through */
    case 2: a += half(__LINE__ + SYS
#ifdef NEVER








#endif
        ); break;
    default: puts(__FILE__ NAME " // no comment"); v0 += v1;
    }
    __asm__ volatile ("nop" ::: "memory");
    _Pragma("GCC diagnostic ignored \\"-Wunused\\"")
    return (int)strlen(argv[0]) + a + v0 + __has_builtin(__builtin_clz);
}
"""
CXX = """
#include <string>
#include <vector>
#include "h.h"
template <class T> struct Box { T value; auto adder() { return [this](auto more) { return value + more; }; } };
namespace { struct Loud { int size = 3; Loud() { __builtin_puts(__FILE__); } } loud; }
int main()
{
    std::vector<std::string> all;
    all.push_back(std::to_string(SQUARE(2)));
    asm volatile ("nop" ::: "memory");
    const char *raw = R"x(
#define NOTHING "/*"
)x";
    all.push_back(raw + all[0] + __PRETTY_FUNCTION__);
    return __builtin_puts(all[1].c_str()) + Box<int>{2}.adder()(3) + loud.size;
}
"""
HEADER = "#pragma once\n#define SQUARE(x) ((x) * (x))\nstatic inline int half(int x) { return SQUARE(x) / 2; }\n"

LINES = [
    ("work", "gcc -O2 -I../inc -isystem ../sys -c ../src/a.c"),
    ("work", "gcc -O2 -pipe -I../inc -isystem../sys -fPIC -DPIC -c ../src/a.c -o a.lo"),
    ("work", "gcc -I../inc -idirafter ../sys '-DNAME=\"a b  c\"' -UPIC -Os -std=gnu99 -o a.o -c ../src/a.c"),
    (
        "work",
        "gcc -I../inc -isystem ../sys -include ../inc/h.h -O1 -Wall -Wextra -Wno-misleading-indentation -c ../src/a.c",
    ),
    ("work", "gcc -I../inc -isystem ../sys -MT a.lo -MD -MP -MF a.Tpo -c ../src/a.c -o a.lo"),
    ("work", "gcc -I../inc -isystem ../sys -MMD -MQ 'a$b.o' -MF a.Tpo -c ../src/a.c -o a.o"),
    ("work", "gcc -I../inc -isystem ../sys -MD -c ../src/a.c -o ./a.o"),
    ("work", "gcc -I../inc -isystem ../sys -MD -MP -c ../src/a.c"),
    ("work", "gcc -I{tree}/inc -isystem {tree}/sys -O2 -DNDEBUG -c {tree}/src/a.c -o {tree}/work/a.o"),
    ("src", "cc -I../inc -isystem ../sys -D_FORTIFY_SOURCE=2 -O2 -fstack-protector-strong -g0 -c a.c"),
    ("src", "gcc -I../inc -isystem ../sys -O2 -fopenmp -pthread -c -x c a.c -Wa,--noexecstack"),
    ("work", "g++ -I../inc -O2 -c ../src/b.cc -o b.o"),
    ("work", "g++ -I../inc -std=c++20 -Wextra -Wformat=2 -MD -MF b.d -MT b.o -c ../src/b.cc -o b.o"),
    ("src", "gcc -I../inc -O0 -fno-rtti -fvisibility=hidden -fPIE -c b.cc"),
]


def tree_in(directory: Path) -> Path:
    """A small package."""
    for path, text in {"src/a.c": C, "src/b.cc": CXX, "inc/h.h": HEADER, "sys/sys.h": "#define SYS 4\n"}.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(text)
    (directory / "work").mkdir()
    return directory


@dataclass
class Neighbour:
    """Another host's distccd: the same compiler in a place of its own, over a file with a name of its own."""

    root: Root
    sent: list[Sequence[str]] = field(default_factory=list)

    def room(self) -> bool:
        return True

    def compile(self, argv: Sequence[str], source: bytes) -> bytes | None:
        self.sent.append(argv)
        place = f"/tmp/distccd_1f{PurePosixPath(argv[-3]).suffix}"
        with tempfile.TemporaryDirectory() as scratch:
            make_places(Path(scratch))
            (Path(scratch) / place[1:]).write_bytes(source)
            words = [*argv[:-3], place, "-o", "/tmp/distccd_2e.o"]
            ran = self.root.sandbox.run(
                words, cwd=PurePosixPath("/tmp"), tree=Path(scratch), environment={}, deadline_s=60
            )
            made = Path(scratch) / "tmp/distccd_2e.o"
            return None if ran.status or ran.stdout or ran.stderr else made.read_bytes()


@dataclass(frozen=True, slots=True)
class Holding(Sandbox):
    """Its programs go on until they are let go."""

    began: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)

    def run(self, *words: object, **how: object) -> Ran:
        self.began.set()
        self.over.wait(60)
        return Ran(1, b"", b"")


@contextmanager
def held(bench: Bench, directory: Path) -> Iterator[Callable[[], None]]:
    """Another job has the server's only turn, until the function given is called."""
    holding = Holding(host_root().sandbox.binds, {})
    place = directory / "held"
    place.mkdir()
    (place / "a.c").touch()
    with ExitStack() as stack:
        token, job = stack.enter_context(
            bench.server.job(replace(host_root(), sandbox=holding), directory / "job", name="o")
        )
        threads = stack.enter_context(ThreadPoolExecutor(1))
        stack.callback(holding.over.set)
        threads.submit(replace(bench, token=token, job=job, tree=place).run, "gcc", "-c", "a.c")
        assert holding.began.wait(30)
        yield holding.over.set


@pytest.fixture
def server_for(tmp_path: Path, client: Path) -> Iterator[Callable[[Root, Path, Away | None], Bench]]:
    """Servers of one turn, without a cache."""
    with ExitStack() as stack:

        def made(root: Root, tree: Path, away: Away | None) -> Bench:
            server = stack.enter_context(CompileServer(None, slots=1))
            token, job = stack.enter_context(server.job(root, tmp_path / f"job-{server.port}", away=away))
            return Bench(server, token, job, client, tree)

        yield made


ServerFor = Callable[[Root, Path, Away | None], Bench]


def made_by(bench: Bench, cwd: str, line: str) -> tuple[subprocess.CompletedProcess[str], dict[str, bytes]]:
    """What a command says and the files that it leaves, which are taken away again."""
    before = set(bench.tree.rglob("*"))
    ended = bench.run(*shlex.split(line.format(tree=bench.tree)), cwd=cwd)
    new = [path for path in bench.tree.rglob("*") if path not in before]
    found = {str(path.relative_to(bench.tree)): path.read_bytes() for path in new}
    for path in new:
        path.unlink()
    return ended, found


def compare(server_for: ServerFor, root: Root, directory: Path, lines: Sequence[tuple[str, str]]) -> None:
    """Have `lines` done whole and in halves, and compare all that comes of them."""
    neighbour = Neighbour(root)
    tree = tree_in(directory / "tree")
    whole, halved = server_for(root, tree, None), server_for(root, tree, neighbour)
    wanted = [made_by(whole, *line) for line in lines]
    with held(halved, directory):
        found = [made_by(halved, *line) for line in lines]
    for line, one, other in zip(lines, wanted, found, strict=True):
        assert one[0].returncode == 0, one[0].stderr
        assert one[1] == other[1], line
        assert (one[0].stdout, one[0].stderr) == (other[0].stdout, other[0].stderr) == ("", "")
    assert halved.tally.refused.total() == whole.tally.refused.total() == 0
    assert halved.tally.away == halved.tally.compiled == len(neighbour.sent) == len(lines)


@needs_compilers
def test_what_halves_make_is_the_whole_compiles_byte_for_byte(server_for: ServerFor, tmp_path: Path) -> None:
    compare(server_for, host_root(), tmp_path, LINES)


@pytest.mark.vm
@needs_compilers
@pytest.mark.parametrize("name", ["arm64", "riscv"])
def test_halves_by_a_cross_compiler_are_the_wholes(name: str, server_for: ServerFor, tmp_path: Path) -> None:
    target, cache = targets.load(name), paths.directories().cache
    found = stage.find(target, targets.load_recipe(), cache)
    if found is None:
        pytest.skip("needs a stage")
    toolchain = toolchains.ensure(target, found.base.facts["release"], cache)
    root = sysroot.compose(found.base.sysroot, found.base.directory.name, toolchain, None, "", cache)
    compare(server_for, root, tmp_path, LINES)


@needs_compilers
@pytest.mark.parametrize(
    "text",
    [
        '#include "none.h"\n',
        "int f(void) { return g(); }\n",
        "#warning hello\n",
        "int f(void) { int x; return x == x; }\nint g(unsigned a) { return a < -1; }\n",
        "int base = __INCLUDE_LEVEL__; const char *name = __BASE_FILE__;\n",
        "#if __COUNTER__ == 0\nint a;\n#endif\n",
        '#pragma GCC optimize("O0")\n#ifdef __OPTIMIZE__\nint a;\n#endif\n',
        '#define A 1\n#pragma push_macro("A")\n#undef A\n#define A 2\n#pragma pop_macro("A")\nint a = A;\n',
        "#pragma redefine_extname old new\nint old(void);\nint f(void) { return old(); }\n",
    ],
)
def test_what_does_not_come_out_the_same_is_done_here_when_its_turn_comes(
    text: str, server_for: ServerFor, tmp_path: Path
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/a.c").write_text(text)
    bench = server_for(host_root(), tmp_path / "tree", Neighbour(host_root()))
    wanted = made_by(replace(bench, token="none"), ".", "gcc -O2 -Wextra -c a.c")
    with held(bench, tmp_path) as let_go, ThreadPoolExecutor(1) as threads:
        running: Future[Any] = threads.submit(made_by, bench, ".", "gcc -O2 -Wextra -c a.c")
        let_go()
        found = running.result()
    assert found[1] == wanted[1]
    assert (found[0].returncode, found[0].stderr) == (wanted[0].returncode, wanted[0].stderr)
    assert bench.tally.away == 0


def request(line: str) -> Request:
    read = parse(shlex.split(line), PurePosixPath("/tmp/w"), {})
    assert isinstance(read, Request), read
    return read


def halves_of(line: str) -> Halves | None:
    return halves(shlex.split(line)[0], request(line))


@pytest.mark.parametrize(
    ("line", "here", "there"),
    [
        (
            "/usr/bin/gcc -DA=1 -I inc -O2 -c a.c -o x/a.o -fPIC",
            "/usr/bin/gcc -E -fdirectives-only -DA=1 -I inc -O2 a.c -fPIC",
            "gcc -fdirectives-only -O2 -fPIC -c source.i -o object.o",
        ),
        (
            "g++ --param max-gcse-passes=1 -std=c++17 -MD -c a.c",
            "g++ -E -fdirectives-only -MF a.d -MQ a.o --param max-gcse-passes=1 -std=c++17 -MD a.c",
            "g++ -fdirectives-only --param max-gcse-passes=1 -std=c++17 -c source.ii -o object.o",
        ),
        (
            "x-y-gcc -x c++ -include c.h -Wp,-DB -MT t -MMD -MF f -Wextra -trigraphs -c a.x -o a.o",
            "x-y-gcc -E -fdirectives-only -x c++ -include c.h -Wp,-DB -MT t -MMD -MF f -Wextra -trigraphs a.x",
            "x-y-gcc -fdirectives-only -Wextra -trigraphs -c source.ii -o object.o",
        ),
    ],
)
def test_each_half_has_the_words_that_are_its_own(line: str, here: str, there: str) -> None:
    assert halves_of(line) == Halves(tuple(here.split()), tuple(there.split()))


@pytest.mark.parametrize(
    "line",
    [
        "gcc a.c -o a",
        "gcc -S a.c",
        "gcc -E a.c",
        "gcc -c a.c b.c",
        "gcc -c a.s",
        "gcc -c a.S",
        "gcc -c a.i",
        "g++ -x c -c a.c",
        "gcc -c a.c -o /dev/null",
        "gcc -g -c a.c",
        "gcc -O2 -ggdb -g3 -c a.c",
        "gcc -fworking-directory -c a.c",
        "gcc -imacros m.h -c a.c",
        "gcc -Wp,-MD,a.d -c a.c -o a.o",
        "gcc -C -c a.c",
        "gcc -CC -c a.c",
        "gcc -P -c a.c",
        "gcc -fsanitize=address -c a.c",
        "gcc -Wall -c a.c",
        "gcc -Werror=misleading-indentation -c a.c",
        "gcc -Wall -Wmisleading-indentation -Wno-misleading-indentation -c a.c",
        "gcc -ffile-prefix-map=/tmp=. -c a.c",
    ],
)
def test_what_is_not_c_to_an_object_or_names_its_options_or_places_stays_whole(line: str) -> None:
    assert halves_of(line) is None


SAID = [
    ("#include <stddef.h>\nint f(void) { int x = NULL; return x; }", ""),
    ("#include <stddef.h>\nint f(char c) { return c == NULL; }", ""),
    ("int f(int x) { switch (x) { case 1: x++; case 2: x++; } return x; }", "-Wextra"),
    ("#define TWO(a, b) a; b\nvoid g(void); void f(int x) { if (x) TWO(g(), g()); }", "-Wall"),
    ("#define MAX(a, b) a > b ? a : b\nint f(int x) { return MAX(x, 1) && x | 1 == 2; }", "-Wall"),
    ("int f(void) { int unused; }", "-Wall"),
    ("#if NOT_DEFINED\n#endif\n", "-Wundef"),
    ("/* a /* b */\n", "-Wall"),
    ("int a = 1; // b \\\nint c;\n", "-Wall"),
    ("#define A 1\n#define A 2\n", ""),
    ('#include <stdio.h>\nvoid f(void) { printf("%s", 1); }', "-Wall"),
    ("#define P(x) _Pragma(#x)\nP(GCC diagnostic what)\n", "-Wall"),
    ("#pragma unknown\n", "-Wall"),
    ("#pragma omp parallel\n", "-Wall"),
    ("int f(void) { return ??(0; }", "-Wall"),
    ("long long a; int f(void) { for (int i = 0; i < 2; i++); return 0; } // c", "-std=c90 -pedantic"),
    ("#define V(...) __VA_ARGS__\nint a = V(1);", "-std=c90 -pedantic"),
    ("#define E(x) (defined x)\n#if E(A)\n#endif\n", "-Wextra"),
    ("#include <assert.h>\nvoid f(void) { assert(a = 1); }", ""),
    ("#include <limits.h>\nunsigned char c = INT_MAX;", "-Woverflow"),
    ("#include <errno.h>\nint f(void) { int *e = errno; return *e; }", ""),
    ("#include <ctype.h>\nint f(char c) { return isalpha(c); }", "-Wall -std=c90"),
    ("int a = '\\q';", ""),
    ('char s[2] = "a" "\\400";', ""),
    ("int a = 08;", ""),
    ("int a\x01 = 1;", ""),
    ("int a; \\ \nint b;", ""),
    ("int f(void) { return 1;", ""),
    ("#error no\n", ""),
    ("#ifdef A\n", ""),
    ("#endif\n", ""),
    ("#define F(a) a\nint x = F(\n#define G 1\nG);", "-pedantic"),
    ("#define F(a) a\nint x = F(1,2);", ""),
    ("int x = __LINE__ __FILE__;", ""),
]


@needs_compilers
@pytest.mark.parametrize(("text", "flags"), SAID)
def test_a_compile_that_says_something_does_so_in_halves_too(text: str, flags: str, tmp_path: Path) -> None:
    """So that it is done again, whole, and its own message is what is told."""
    (tmp_path / "a.c").write_text(text)
    flags = f"{flags} -Wno-misleading-indentation"
    parts = halves_of(f"gcc {flags} -c a.c")
    assert parts is not None
    whole, first = (run(tmp_path, words) for words in (("gcc", *flags.split(), "-c", "a.c"), parts.preprocess))
    if scan(text.encode()).unkept or not is_portable(first.stdout) or first.returncode or first.stderr:
        return
    (tmp_path / "source.i").write_bytes(first.stdout)
    second = run(tmp_path, parts.compile)
    assert bool(second.returncode) == bool(whole.returncode)
    assert bool(second.stderr) == bool(whole.stderr)


def run(cwd: Path, words: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(words, cwd=cwd, capture_output=True, check=False, timeout=60, env={"PATH": "/usr/bin:/bin"})


@pytest.mark.parametrize(
    "source",
    [
        b"char *a = __BASE_FILE__;",
        b'#pragma GCC target ("avx2")',
        b'#define P(x) _Pragma(#x)\n#define O(x) P(GCC x)\nO(target("+crc"))',
        b"#pragma GCC push_options",
        b'_Pragma("GCC optimize 3")',
    ],
)
def test_what_means_another_thing_to_a_compiler_that_starts_there_is_not_portable(source: bytes) -> None:
    assert not is_portable(source)


def test_what_only_reads_like_that_is_portable() -> None:
    assert is_portable(b"int target(int optimize) { return target (optimize); } /* push the options to the target */")


needs_distcc = pytest.mark.skipif(not (shutil.which("distcc") and shutil.which("distccd")), reason="needs distcc")


@needs_compilers
@needs_distcc
def test_another_hosts_distccd_compiles_where_all_turns_are_taken(server_for: ServerFor, tmp_path: Path) -> None:
    tree, port = tree_in(tmp_path / "tree"), free_port()
    lines = LINES[::4]
    wanted = [made_by(server_for(host_root(), tree, None), *line) for line in lines]
    with Relay("gcc", "here", QUICK) as relay, relay.job(PACKAGE, 4) as access, distccd(tmp_path, port):
        relay.use(Pool((member("here", free_port()), member("b", port))))
        bench = server_for(host_root(), tree, access.away)
        with held(bench, tmp_path):
            found = [made_by(bench, *line) for line in lines]
        assert [files for _, files in found] == [files for _, files in wanted]
        assert bench.tally.away == len(lines)
        assert [(one.host, one.compiled, one.failed) for one in access.served()] == [("b", len(lines), 0)]


@needs_compilers
@needs_distcc
def test_what_a_distccd_that_was_killed_does_not_do_is_done_here(server_for: ServerFor, tmp_path: Path) -> None:
    tree, port = tree_in(tmp_path / "tree"), free_port()
    wanted = made_by(server_for(host_root(), tree, None), *LINES[0])
    seldom = Timing(every_s=600.0)  # no probe finds it out before the compile does
    with Relay("gcc", "here", seldom) as relay, relay.job(PACKAGE, 4) as access:
        bench = server_for(host_root(), tree, access.away)
        with distccd(tmp_path, port), held(bench, tmp_path):
            relay.use(Pool((member("b", port),)))
            assert made_by(bench, *LINES[0])[1] == wanted[1]
        with held(bench, tmp_path / "tree") as let_go, ThreadPoolExecutor(1) as threads:
            running = threads.submit(made_by, bench, *LINES[0])
            assert eventually(lambda: any(one.failed for one in access.served()))
            let_go()
            assert running.result()[1] == wanted[1]
    assert (bench.tally.away, bench.tally.compiled) == (1, 2)
