"""The compile server and its client without a node: this machine's root is the sealed one, its gcc the node's own."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from factories import host_root
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster import paths
from cluster.node import sandbox, wire
from cluster.node.compilecache import CompileCache
from cluster.node.compileserver import CompileServer, Job, Tally

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("gcc") and shutil.which("g++") and sandbox.works()), reason="needs gcc, g++ and bwrap"
    ),
]

HELLO = '#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n'


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the client under the compiler's names."""
    directory = tmp_path_factory.mktemp("client")
    source = paths.data("stage-images", "guest", "cc.c")
    warnings = ["-Wall", "-Wextra", "-Werror"]
    subprocess.run(["gcc", "-O1", "-static", *warnings, "-o", directory / "cc-client", source], check=True)
    for name in ("gcc", "g++", "cc", "c++"):
        (directory / name).symlink_to("cc-client")
    return directory


@dataclass
class Bench:
    """A server with one job, and a directory that is its node's build tree."""

    server: CompileServer
    token: str
    job: Job
    client: Path
    tree: Path

    def run(self, *argv: str, cwd: str = ".", **environment: str) -> subprocess.CompletedProcess[str]:
        env = {
            "PATH": f"{self.client}:/usr/bin:/bin",
            "LC_ALL": "C",
            "CLUSTER_COMPILE": f"127.0.0.1:{self.server.port}",
            "CLUSTER_COMPILE_TOKEN": self.token,
            **environment,
        }
        return subprocess.run(
            argv, cwd=self.tree / cwd, env=env, capture_output=True, text=True, check=False, timeout=120
        )

    def write(self, **files: str) -> None:
        for name, text in files.items():
            (self.tree / name.replace("__", "/").replace("_", ".")).write_text(text)

    @property
    def tally(self) -> Tally:
        return self.job.tally


Make = Callable[..., Bench]


@pytest.fixture
def make(tmp_path: Path, client: Path) -> Iterator[Make]:
    with ExitStack() as stack:

        def made(cache: bool = True, audit: float = 0.0) -> Bench:
            kept = CompileCache(tmp_path / "cache", 1 << 30) if cache else None
            server = stack.enter_context(CompileServer(kept, slots=2, audit_percent=audit))
            place = tmp_path / f"job-{server.port}"
            token, job = stack.enter_context(server.job(host_root(), place))
            tree = tmp_path / "tree"
            tree.mkdir(exist_ok=True)
            return Bench(server, token, job, client, tree)

        yield made


@pytest.fixture
def bench(make: Make) -> Bench:
    return make()


def plain(bench: Bench, *argv: str, **named: Any) -> subprocess.CompletedProcess[str]:
    """The same without a server."""
    return bench.run(*argv, PATH="/usr/bin:/bin", **named)


def test_a_program_is_linked_on_the_host_and_runs_here(bench: Bench) -> None:
    bench.write(a_c=HELLO)
    assert bench.run("gcc", "-O2", "-o", "a", "a.c").returncode == 0
    assert bench.run("./a").stdout == "hello\n"
    assert (bench.tally.compiled, bench.tally.refused.total()) == (1, 0)


def test_an_object_is_the_compilers_own_byte_for_byte(bench: Bench) -> None:
    bench.write(a_c=HELLO)
    bench.run("gcc", "-g", "-O2", "-MD", "-c", "a.c")
    ours = (bench.tree / "a.o").read_bytes(), (bench.tree / "a.d").read_bytes()
    (bench.tree / "a.o").unlink()
    plain(bench, "gcc", "-g", "-O2", "-MD", "-c", "a.c")
    assert ours == ((bench.tree / "a.o").read_bytes(), (bench.tree / "a.d").read_bytes())
    assert bench.tally.compiled == 1


def test_headers_of_the_build_tree_are_asked_for_once_and_again_when_they_change(bench: Bench) -> None:
    (bench.tree / "inc").mkdir()
    bench.write(a_c='#include "b.h"\n#include <c.h>\nint x = B + C;\n', b_h="#define B 1\n", inc__c_h="#define C 2\n")
    assert bench.run("gcc", "-Iinc", "-S", "a.c").returncode == 0
    assert ".word\t3" in (bench.tree / "a.s").read_text() or ".long\t3" in (bench.tree / "a.s").read_text()
    bench.write(inc__c_h="#define C 6\n")
    bench.run("gcc", "-Iinc", "-S", "a.c")
    assert "\t7" in (bench.tree / "a.s").read_text()
    assert (bench.tally.compiled, bench.tally.cached) == (2, 0)
    bench.run("gcc", "-Iinc", "-S", "a.c")
    assert (bench.tally.compiled, bench.tally.cached) == (2, 1)


def test_nothing_has_to_be_asked_for_a_program_of_configure(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    query = wire.query

    def noted(paths: Iterable[tuple[str, bytes]]) -> bytes:
        wanted = tuple(paths)
        asked.extend(path for path, _ in wanted)
        return query(wanted)

    monkeypatch.setattr(wire, "query", noted)
    bench.write(conftest_c="#include <stdio.h>\nint main(void) { return 0; }\n", config_log="")
    assert bench.run("gcc", "-o", "conftest", "-O2", "conftest.c", "-lm").returncode == 0
    assert (bench.tally.compiled, asked) == (1, [])
    bench.write(conftest_c='#include "own.h"\n', own_h="")
    assert bench.run("gcc", "-c", "-O2", "conftest.c").returncode == 0
    assert asked == [str(bench.tree / "own.h")]


def test_a_large_working_directory_is_listed_when_it_is_asked_for(bench: Bench) -> None:
    for number in range(1000):
        (bench.tree / f"a-file-with-a-long-name-{number}").touch()
    bench.write(a_c='#include "own.h"\n', own_h="")
    assert bench.run("gcc", "-c", "a.c").returncode == 0
    assert bench.tally.compiled == 1


def test_a_header_that_appears_earlier_in_the_path_is_seen(bench: Bench) -> None:
    for name in ("one", "two"):
        (bench.tree / name).mkdir()
    bench.write(a_c="#include <h.h>\nint x = H;\n", two__h_h="#define H 2\n")
    bench.run("gcc", "-Ione", "-Itwo", "-S", "a.c")
    bench.write(one__h_h="#define H 9\n")
    bench.run("gcc", "-Ione", "-Itwo", "-S", "a.c")
    assert "\t9" in (bench.tree / "a.s").read_text()
    (bench.tree / "one/h.h").unlink()
    bench.run("gcc", "-Ione", "-Itwo", "-S", "a.c")
    assert "\t2" in (bench.tree / "a.s").read_text()


def test_errors_are_the_compilers_own(bench: Bench) -> None:
    bench.write(a_c="int main(void) { return undeclared; }\n")
    ours, theirs = bench.run("gcc", "-c", "a.c"), plain(bench, "gcc", "-c", "a.c")
    assert (ours.returncode, ours.stdout, ours.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr)
    assert "undeclared" in ours.stderr
    assert bench.tally.compiled == 1


def test_only_questions_about_the_compiler_are_never_asked_of_the_server(bench: Bench) -> None:
    bench.write(a_c="int x;\n")
    for words in (["--version"], ["--help=params"], ["-dumpmachine"], ["-print-search-dirs"], ["-v"], ["-V"], []):
        bench.run("gcc", *words)
    assert (bench.tally.received, bench.tally.refused.total()) == (0, 0)
    bench.run("gcc", "--param", "max-inline-insns-single=1200", "-c", "a.c")
    assert bench.tally.compiled == 1


def test_messages_quote_the_file_of_which_line_says_the_source_is(bench: Bench) -> None:
    bench.write(configure="one\ntwo\nthree\n", conftest_c='#line 2 "configure"\nint x = ;\n')
    ours, theirs = (run("gcc", "-c", "conftest.c").stderr for run in (bench.run, lambda *argv: plain(bench, *argv)))
    assert ours == theirs
    assert "2 | two" in ours
    bench.write(configure="one\nother\nthree\n")
    assert "2 | other" in bench.run("gcc", "-c", "conftest.c").stderr
    assert (bench.tally.compiled, bench.tally.refused.total()) == (2, 0)


def test_messages_that_may_quote_a_file_of_the_nodes_own_are_left_to_it(bench: Bench) -> None:
    bench.write(
        a_c='#line 1 "/usr/share/nowhere/a.y"\nint x = 1;\n', b_c='#line 1 "/usr/share/nowhere/b.y"\nint x = ;\n'
    )
    assert bench.run("gcc", "-c", "a.c").returncode == 0
    assert bench.run("gcc", "-c", "b.c").returncode == 1
    assert bench.tally.refused == {"messages that quote a file of the node's own": 1}


def test_a_failed_compile_leaves_no_old_output(bench: Bench) -> None:
    bench.write(a_c="int x = ;\n", a_o="old\n")
    assert bench.run("gcc", "-c", "a.c").returncode == 1
    assert not (bench.tree / "a.o").exists()
    assert bench.tally.compiled == 1


def test_two_who_want_the_same_share_one_compile(bench: Bench) -> None:
    for name in ("one", "two"):
        (bench.tree / name).mkdir()
        (bench.tree / name / "a.c").write_text(HELLO)
    with ThreadPoolExecutor() as both:
        ends = list(both.map(lambda cwd: bench.run("gcc", "-O2", "-c", "a.c", cwd=cwd).returncode, ("one", "two")))
    assert ends == [0, 0]
    assert (bench.tally.compiled, bench.tally.cached) == (1, 1)


def test_a_client_may_come_by_a_socket(tmp_path: Path, client: Path) -> None:
    place = tmp_path / "socket"
    with (
        CompileServer(None, slots=1, audit_percent=100.0, local=place) as server,
        server.job(host_root(), tmp_path / "job", audited=False) as (token, job),
    ):
        bench = Bench(server, token, job, client, tmp_path)
        bench.write(a_c=HELLO)
        assert bench.run("gcc", "-c", "a.c", CLUSTER_COMPILE=str(place)).returncode == 0
        assert (job.tally.compiled, job.tally.audited) == (1, 0)


def test_objects_and_archives_link(bench: Bench) -> None:
    bench.write(a_c="int f(void);\nint main(void) { return f(); }\n", b_c="int f(void) { return 7; }\n")
    for name in ("a", "b"):
        bench.run("gcc", "-O2", "-c", f"{name}.c")
    subprocess.run(["ar", "rcs", "libb.a", "b.o"], cwd=bench.tree, check=True)
    assert bench.run("gcc", "-o", "p", "a.o", "-L.", "-lb").returncode == 0
    assert bench.run("./p").returncode == 7
    assert bench.run("gcc", "-shared", "-o", "libb.so", "b.o").returncode == 0
    assert bench.run("gcc", "-o", "q", "a.o", "-L.", "-lb").returncode == 0
    assert bench.run("./q", LD_LIBRARY_PATH=".").returncode == 7
    assert (bench.tally.compiled, bench.tally.refused.total()) == (5, 0)


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["gcc", "-march=native", "-c", "a.c"], "depends on the machine"),
        (["gcc", "-c", "macro.c"], "an include of a macro"),
        (["gcc", "-c", "incbin.c"], "the assembler includes"),
        (["gcc", "-save-temps", "-c", "a.c"], "intermediate files"),
        (["gcc", "-c", "absent.c"], "no such file"),
        (["gcc", "-c", "a.c", "-o", "/dev/shm/cluster-test.o"], ""),
        (["gcc", "-o", "p", "script.so"], "linker script"),
    ],
)
def test_what_is_refused_is_done_by_the_next_compiler(bench: Bench, argv: list[str], reason: str) -> None:
    bench.write(a_c=HELLO, macro_c='#define X "b.h"\n#include X\n', b_h="", data_bin="x", script_so="INPUT(a.o)\n")
    bench.write(incbin_c='__asm__(".incbin \\"data.bin\\"");\n')
    ours = bench.run(*argv)
    assert bench.tally.compiled == 0
    (told,) = bench.tally.refused
    assert reason in told
    theirs = plain(bench, *argv)
    assert (ours.returncode, ours.stderr) == (theirs.returncode, theirs.stderr)


def test_questions_do_not_reach_the_server(bench: Bench) -> None:
    assert "gcc" in bench.run("gcc", "--version").stdout
    assert bench.run("gcc", "-dumpversion").stdout == plain(bench, "gcc", "-dumpversion").stdout
    assert bench.tally == Tally()


def test_without_a_server_the_next_compiler_is_used(bench: Bench) -> None:
    bench.write(a_c=HELLO)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{probe.getsockname()[1]}"
    for environment in ({"CLUSTER_COMPILE": nobody}, {"CLUSTER_COMPILE": "x"}, {"CLUSTER_COMPILE_TOKEN": "wrong"}):
        assert bench.run("gcc", "-o", "a", "a.c", **environment).returncode == 0
        assert bench.run("./a").stdout == "hello\n"
        (bench.tree / "a").unlink()
    assert bench.tally == Tally()


def test_distcc_behind_the_client_does_not_find_the_client_again(bench: Bench, tmp_path: Path) -> None:
    # A stand-in for distcc's masquerade: it takes the next gcc of the PATH it was given.
    (tmp_path / "distcc").mkdir()
    script = tmp_path / "distcc/gcc"
    script.write_text('#!/bin/sh\ntype -a gcc\nPATH=${PATH#*:} exec gcc "$@"\n')
    script.chmod(0o755)
    bench.write(a_c=HELLO)
    path = f"{bench.client}:{tmp_path}/distcc:/usr/bin:/bin"
    ran = bench.run("gcc", "-march=native", "-c", "a.c", PATH=path)
    assert ran.returncode == 0
    assert str(bench.client) not in ran.stdout
    assert str(script) in ran.stdout


def test_a_directory_behind_a_symbolic_link_is_left_to_the_node(bench: Bench) -> None:
    (bench.tree / "real").mkdir()
    (bench.tree / "link").symlink_to("real")
    bench.write(a_c="#include <h.h>\nint x = H;\n", real__h_h="#define H 3\n")
    assert bench.run("gcc", "-Ilink", "-S", "a.c").returncode == 0
    assert bench.tally.refused.total() == 1


def test_the_cache_serves_another_job_and_directory(make: Make) -> None:
    first, second = make(), make()
    first.write(a_c=HELLO)
    first.run("gcc", "-O2", "-o", "a", "a.c")
    elsewhere = first.tree / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.c").write_text(HELLO)
    assert second.run("gcc", "-O2", "-o", "a", "a.c", cwd="elsewhere").returncode == 0
    assert (second.tally.compiled, second.tally.cached) == (0, 1)
    assert second.run("./a", cwd="elsewhere").stdout == "hello\n"
    second.run("gcc", "-g", "-O2", "-c", "a.c", cwd="elsewhere")
    second.run("gcc", "-g", "-O2", "-c", "a.c")  # the directory is part of the debug information
    assert second.tally.cached == 1


def test_what_depends_on_the_clock_is_the_nodes(bench: Bench) -> None:
    bench.write(a_c="const char *when = __TIME__;\n")
    for _ in range(2):
        assert bench.run("gcc", "-c", "a.c").returncode == 0
    assert (bench.tally.compiled, bench.tally.cached) == (0, 0)
    assert bench.tally.refused == {"the time of day is part of it": 2}


def test_an_audit_finds_nothing_on_sound_compiles(make: Make) -> None:
    bench = make(cache=False, audit=100.0)
    bench.write(a_c=HELLO, b_c="int x = ;\n")
    for argv in (["gcc", "-g", "-o", "a", "a.c"], ["gcc", "-MD", "-c", "a.c"], ["gcc", "-c", "b.c"]):
        ours, theirs = bench.run(*argv), plain(bench, *argv)
        assert (ours.returncode, ours.stderr) == (theirs.returncode, theirs.stderr)
    assert bench.run("./a").stdout == "hello\n"
    assert bench.tally.audited == 3
    assert bench.tally.differing == []


def test_an_audit_finds_another_object(make: Make, tmp_path: Path) -> None:
    first = make()
    first.write(a_c=HELLO)
    first.run("gcc", "-c", "a.c")
    (entry,) = (path for path in (tmp_path / "cache").rglob("*") if path.is_file())
    audited = make(audit=100.0)
    cache = CompileCache(tmp_path / "cache", 1 << 30)
    kept = cache.get(entry.parent.name + entry.name)
    assert kept is not None
    cache.put(entry.parent.name + entry.name, type(kept)(0, b"", b"a warning\n", kept.products))
    audited.run("gcc", "-c", "a.c")
    (difference,) = audited.tally.differing
    assert difference.startswith("messages: cd ")


# ---------------------------------------------------------------- a node is not trusted


def sized(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def texts(*words: str) -> bytes:
    return struct.pack(">I", len(words)) + b"".join(sized(word.encode()) for word in words)


def request(token: str, cwd: str, *argv: str, sources: bytes = struct.pack(">I", 0)) -> bytes:
    head = b"".join(sized(text.encode()) for text in (wire.VERSION, token, cwd))
    return head + texts(*argv) + struct.pack(">I", 0) + sources


class Node:
    """A client that says what it likes."""

    def __init__(self, port: int) -> None:
        self.connection = socket.create_connection(("127.0.0.1", port), timeout=30)

    def send(self, frame: bytes) -> None:
        self.connection.sendall(sized(frame))

    def receive(self) -> bytes:
        """The next frame, empty if the server has hung up."""
        try:
            head = self.connection.recv(4, socket.MSG_WAITALL)
            return self.connection.recv(struct.unpack(">I", head)[0], socket.MSG_WAITALL) if len(head) == 4 else b""
        except ConnectionResetError:
            return b""


def states(*contents: bytes) -> bytes:
    return b"".join(b"\2" + os.urandom(40) + b"\0" + sized(content) for content in contents)


def everything(directory: Path, *besides: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in directory.rglob("*")
        if path.is_file() and not any(path.is_relative_to(one) for one in besides)
    }


@pytest.mark.parametrize("secret", ["../../../../../../../../../../{}", "{}", "/var/tmp/../..{}"])
def test_nothing_outside_the_roots_can_be_read(bench: Bench, tmp_path: Path, secret: str) -> None:
    (tmp_path / "secret.h").write_text("#define SECRET leaked\n")
    (tmp_path / "secret.h").chmod(0o644)
    name = secret.format(tmp_path / "secret.h")
    node = Node(bench.server.port)
    source = f'#include "{name}"\nconst char *x = SECRET;\n'.encode()
    node.send(
        request(
            bench.token, "/var/tmp/p", "gcc", "-E", "a.c", sources=struct.pack(">I", 1) + sized(b"a.c") + states(source)
        )
    )
    while (frame := node.receive()) and frame[:1] == b"Q":
        (count,) = struct.unpack(">I", frame[1:5])
        node.send(b"\0" * count)  # nothing of that is in the node
    assert b"leaked" not in frame


def test_assembly_cannot_read_the_host_either(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("leaked")
    bench.write(a_c=f'__asm__(".inc" "bin \\"{tmp_path}/secret\\"");\n')
    bench.run("gcc", "-c", "a.c")
    assert bench.tally.refused == {"assembly that fails": 1}
    assert b"leaked" in (bench.tree / "a.o").read_bytes()  # which was the node's to read


@pytest.mark.parametrize(
    "path",
    ["/etc/x.o", "../../../../../etc/x.o", "/var/tmp/../../etc/x.o", "/var/tmp/p/../../../../x.o", "a\0b.o", "/"],
)
def test_no_output_outside_the_build_tree(bench: Bench, path: str) -> None:
    node = Node(bench.server.port)
    source = struct.pack(">I", 1) + sized(b"a.c") + states(b"int x;\n")
    node.send(request(bench.token, "/var/tmp/p", "gcc", "-c", "a.c", "-o", path, sources=source))
    assert node.receive() == b"F"


def test_a_frame_that_promises_too_much_is_hung_up_on(bench: Bench) -> None:
    node = Node(bench.server.port)
    node.connection.sendall(struct.pack(">I", 0xFFFFFFFF))
    assert node.receive() == b""


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_node_sends_only_its_own_directory_changes(
    bench: Bench, tmp_path: Path, data: st.DataObject
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(exist_ok=True)
    (outside / "kept").write_text("kept")
    before = everything(tmp_path, bench.job.directory, tmp_path / "cache")
    part = st.sampled_from(["..", ".", "", "a.c", "b.h", "tree", "p", str(outside).lstrip("/"), "var/tmp", "kept"])
    a_path = st.lists(part, min_size=1, max_size=6).map("/".join) | st.just(str(outside / "kept"))
    word = st.sampled_from(["-c", "-o", "-I", "-L", "-lx", "-MD", "-MF", "-include", "a.c", "-shared"]) | a_path
    content = st.sampled_from([b"", b"int x;\n", b'#include "b.h"\n', b"!<arch>\n", b"\x7fELF", b"\xff\0\n"])
    node = Node(bench.server.port)
    named = struct.pack(">I", 1) + sized(data.draw(a_path).encode()) + states(data.draw(content))
    argv = ["gcc", "-c", "a.c", *data.draw(st.lists(word, max_size=6))]
    node.send(request(bench.token, "/" + data.draw(a_path), *argv, sources=named))
    for _ in range(6):
        frame = node.receive()
        if frame[:1] not in (b"Q", b"W"):
            break
        (count,) = struct.unpack(">I", frame[1:5])
        answer = st.sampled_from(
            [b"\0", b"\1", b"\4", states(b"int y;\n"), b"\3" + bytes(40) + struct.pack(">I", 0), b"\7"]
        )
        node.send(
            b"".join(data.draw(answer) for _ in range(count))
            if data.draw(st.booleans())
            else data.draw(st.binary(max_size=90))
        )
    node.connection.close()
    assert everything(tmp_path, bench.job.directory, tmp_path / "cache") == before


def test_the_server_ends_with_its_context(client: Path, tmp_path: Path) -> None:
    with CompileServer(None, slots=1) as server, server.job(host_root(), tmp_path / "job"):
        waiting = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(waiting.getpeername(), timeout=10)
    waiting.close()
    assert not (tmp_path / "job").exists()
