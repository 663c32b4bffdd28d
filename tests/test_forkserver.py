"""The fork server of a warm node and its client, run on the host: what a call is given, and what comes back."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster import paths

pytestmark = pytest.mark.slow

_GUEST = paths.data("stage-images", "guest")
_SCRIPT = """\
import os, sys
mask = os.umask(0)
print(sys.argv[1:], os.getcwd(), os.environ["WORD"], oct(mask), sys.stdin.read())
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the server's script and its client `python`, which know no other paths than it."""
    place = tmp_path_factory.mktemp("forkserver")
    for name in ("forkserver", "python.c"):
        text = (_GUEST / name).read_text().replace("/run/forkserver", f"{place}/socket")
        text = text.replace("/opt/portage/bin/python3", sys.executable)
        (place / name).write_text(text.replace("/opt/portage/", f"{place}/portage/"))
    subprocess.run(["gcc", "-O1", "-Wall", "-Werror", "-o", place / "python", place / "python.c"], check=True)
    return place


@contextmanager
def _serving(place: Path) -> Iterator[Path]:
    """The client, with a server that answers it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    server = subprocess.Popen([sys.executable, place / "forkserver"], env=environment, stdin=subprocess.DEVNULL)
    while not (place / "socket").exists():
        assert server.poll() is None
        time.sleep(0.02)
    try:
        yield place / "python"
    finally:
        server.kill()
        server.wait()
        (place / "socket").unlink()


@pytest.fixture
def python(place: Path) -> Iterator[Path]:
    """The client, with a server that was never asked before."""
    with _serving(place) as client:
        yield client


def _script(place: Path, text: str) -> Path:
    script = place / "script"
    script.write_text(text)
    return script


def test_a_call_has_the_callers_words_directory_environment_umask_and_streams(python: Path, tmp_path: Path) -> None:
    argv = [str(python), "-E", str(_script(tmp_path, _SCRIPT)), "one", "two words"]
    ended = subprocess.run(
        argv, cwd=tmp_path, env={"WORD": "w"}, umask=0o27, input="in", capture_output=True, text=True, check=True
    )
    assert ended.stdout == f"['one', 'two words'] {tmp_path} w 0o27 in\n"


def test_a_call_has_every_open_descriptor_by_its_number(python: Path, tmp_path: Path) -> None:
    text = 'import os\nfor number in range(3, 20):\n    os.write(number, b"%d" % number)\n    os.close(number)\n'
    script = _script(tmp_path, text)
    # Pairs of numbers crossed, so that moving one descriptor at a time would overwrite others.
    shell = "".join(f"exec {number}>{tmp_path}/{number}; " for number in (9, 3, 19, 4, 12, 5, 18, 6))
    shell += "".join(f"exec {number}>{tmp_path}/{number}; " for number in range(3, 20))
    subprocess.run(["bash", "-c", f'{shell} "$0" "$1"', python, script], check=True)
    assert [(tmp_path / str(number)).read_text() for number in range(3, 20)] == [str(n) for n in range(3, 20)]


def test_a_pipe_that_a_call_was_given_hangs_up_for_it(python: Path, tmp_path: Path) -> None:
    # ebuild-ipc sees by such a pipe whether Portage still listens.
    text = "import os, select\nfd = int(os.environ['FD'])\npoll = select.poll()\npoll.register(fd, 0)\n"
    script = _script(tmp_path, text + "print(bool(poll.poll(0)))\nos.read(fd, 1)\nprint(bool(poll.poll(0)))\n")
    read, write = os.pipe()
    environment = {**os.environ, "FD": str(read)}
    call = subprocess.Popen([python, "-u", script], pass_fds=[read], env=environment, stdout=subprocess.PIPE)
    assert call.stdout is not None
    assert call.stdout.readline() == b"False\n"
    os.close(write)
    assert call.stdout.readline() == b"True\n"
    assert call.wait() == 0
    call.stdout.close()
    os.close(read)


@pytest.mark.parametrize(
    ("text", "status", "out", "error"),
    [
        ("", 0, "", ""),
        ("raise SystemExit(7)", 7, "", ""),
        ("raise SystemExit", 0, "", ""),
        ("raise SystemExit(-1)", 255, "", ""),
        ("raise SystemExit('in words')", 1, "", "in words\n"),
        ("1 / 0", 1, "", "ZeroDivisionError: division by zero\n"),
        ("import os; os.kill(os.getpid(), 9)", 137, "", ""),
        ("import atexit; atexit.register(print, 'at the end')", 0, "at the end\n", ""),
        ("import sys; sys.stdout.write('no newline')", 0, "no newline", ""),
        ("import threading; threading.Timer(0.1, print, ['from a thread']).start()", 0, "from a thread\n", ""),
        ("import sys; sys.stdout.close()", 0, "", ""),
    ],
)
def test_a_call_ends_as_the_real_python_does(
    python: Path, tmp_path: Path, text: str, status: int, out: str, error: str
) -> None:
    script = _script(tmp_path, text)
    ended = subprocess.run([python, script], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (status, out)
    assert ended.stderr.endswith(error)
    real = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert (real.returncode % 256, real.stdout) == (status if status != 137 else -9 % 256, out)


def test_a_call_whose_reader_is_gone_has_the_status_of_the_real_python(python: Path, tmp_path: Path) -> None:
    script = _script(tmp_path, "print('words')")
    statuses = []
    for program in (python, sys.executable):
        read, write = os.pipe()
        os.close(read)
        ended = subprocess.run([program, script], stdout=write, stderr=subprocess.PIPE, env={}, check=False)
        statuses.append(ended.returncode)
        os.close(write)
    assert statuses == [120, 120]


def test_what_calls_of_a_server_did_is_done_when_the_next_one_starts(place: Path, tmp_path: Path) -> None:
    (place / "portage").mkdir()
    text = "import re, sys\nprint(__name__, sys.argv, {'wave', 're'} <= set(sys.modules), end=' ')\nimport wave\n"
    text += "wanted = {(str, 'a+', 0), (bytes, b'\\xff|b', 2)}\nprint(wanted <= set(re._cache))\n"
    known = _script(place / "portage", f"{text}re.compile('a+')\nre.compile(b'\\xff|b', re.IGNORECASE)\n")
    with _serving(place) as python:
        first = subprocess.run([python, known], capture_output=True, text=True, check=True).stdout
        subprocess.run([python, _script(tmp_path, "")], check=True)
    habits = place / "socket.habits"
    (place / "socket.habits.new").rename(habits)
    assert str(tmp_path / "script") not in habits.read_text()  # which may change
    with habits.open("a") as stream:
        stream.write('["module", "no.such.module"]\n["script", "/no/such/script"]\n["str", "("]\n')
    with _serving(place) as python:
        known.unlink()
        second = subprocess.run([python, known, "word"], capture_output=True, text=True, check=True).stdout
    habits.unlink()
    assert first == f"__main__ ['{known}'] False False\n"
    assert second == f"__main__ ['{known}', 'word'] True True\n"


def test_words_that_name_no_script_go_to_the_real_python(python: Path) -> None:
    assert subprocess.run([python, "-c", "print(1)"], capture_output=True, check=True).stdout == b"1\n"


def test_without_a_server_the_client_is_the_real_python(place: Path) -> None:
    bare = place / "bare"
    bare.write_bytes((place / "python").read_bytes().replace(b"/socket\0", b"/absent\0"))
    bare.chmod(0o755)
    assert subprocess.run([bare, "-c", "print(1)"], capture_output=True, check=True).stdout == b"1\n"
