"""What the fast shell does in a program's place: exactly what the program does, or nothing."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from cluster import paths

_SOURCE = paths.data("stage-images", "shell")
_MAIN = '#include "shortcuts.h"\nint main(int n, char **argv) { (void)n; return shortcut(argv[1], argv + 1) & 255; }\n'
_LEFT = 255
"""The harness's status when the program is to be run."""

QUOTE = "s/^/| /"
BEGINNING = "10a\\\n... rest of stderr output deleted ...\n         10q"
"""How Autoconf's macros write a program and a message to config.log."""

DONE = [
    "rm -f file",
    "rm -f absent file link",
    "rm -f -- file",
    "rm -rf tree absent",
    "rm -fr tree/sub file",
    "rm -r -f tree link",
    "rm -f file/below",
    "rm -f",
    "cat file",
    "cat file second",
    "cat - file",
    "cat file -",
    "cat",
    "mv file new",
    "mv -f file second",
    "mv file tree/new",
    "mkdir new",
    "mkdir -p tree/new",
    "mkdir -p tree",
    f"sed '{QUOTE}' file",
    f"sed '{QUOTE}' second",
    f"sed '{QUOTE}' lines",
    f"sed '{QUOTE}' empty",
    f"sed '{BEGINNING}' lines",
    f"sed '{BEGINNING}' second",
    f"sed '{BEGINNING}' empty",
    "grep -v '^ *+' file",
    "grep -v '^ *+' second",
    "grep -v '^ *+' lines",
    "grep -v '^ *+' traced",
    "grep -v '^ *+' empty",
]
LEFT = [
    "rm file",
    "rm -r tree",
    "rm -f tree",
    "rm -rfv tree",
    "rm -rf tree/.",
    "rm -rf ..",
    "rm -f file --verbose",
    "rm --force file",
    "cat -n file",
    "cat absent",
    "cat file absent",
    "cat tree",
    "cat --help",
    "mv file tree",
    "mv file second new",
    "mv -v file new",
    "mv absent new",
    "mv tree new",
    "mv link new",
    "mv file file",
    "mv file hard",
    "mv file dangling",
    "mv file new/",
    "mkdir tree",
    "mkdir -p new/below",
    "mkdir -m 700 new",
    "mkdir new another",
    "mkdir -p file",
    "sed s/a/b/ file",
    f"sed '{QUOTE}' file second",
    f"sed '{QUOTE}' absent",
    f"sed '{QUOTE}' latin",
    f"sed '{QUOTE}' long",
    f"sed '{QUOTE}'",
    f"sed '{QUOTE}' -",
    f"sed '{QUOTE}' --help",
    f"sed -n '{QUOTE}' file",
    f"sed '{BEGINNING}' ten",
    "grep -v '^ *+' absent",
    "grep -v '^ *+' binary",
    "grep -v '^ *+' tree",
    "grep -v '^ *+'",
    "grep -v '^ *+' file second",
    "grep '^ *+' file",
    "grep -v + file",
]


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that tries a shortcut: `harness /bin/rm -f x`."""
    place = tmp_path_factory.mktemp("shortcuts")
    (place / "main.c").write_text(_MAIN)
    sources = [place / "main.c", _SOURCE / "shortcuts.c"]
    command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{_SOURCE}", "-o", place / "harness", *sources]
    subprocess.run(command, check=True)
    return place / "harness"


def _fill(place: Path) -> None:
    """Files of every kind that a command of the tables names."""
    (place / "tree/sub").mkdir(parents=True)
    (place / "tree/sub/deep").write_text("deep")
    (place / "tree/out").symlink_to("../second")
    (place / "file").write_text("first\n")
    (place / "second").write_text("no newline")
    (place / "empty").touch()
    (place / "lines").write_text("first\n\n + traced\n+\nmore + than\n" + "  x\n" * 7 + "end")
    (place / "ten").write_text("\n".join("0123456789"))
    (place / "traced").write_text("+ gcc\n   + ld")
    (place / "binary").write_text("a\0b\n")
    (place / "latin").write_bytes(b"caf\xe9\n")
    (place / "long").write_text("line\n" * 20000)
    (place / "hard").hardlink_to(place / "file")
    (place / "link").symlink_to("file")
    (place / "dangling").symlink_to("absent")


def _seen(argv: list[str | Path], place: Path) -> tuple[int, bytes, bytes, list[str]]:
    """What running `argv` in a new directory at `place` brings: status, output and the files left."""
    place.mkdir()
    _fill(place)
    ended = subprocess.run(argv, cwd=place, input=b"typed\n", capture_output=True, check=False)
    names = subprocess.run(["find", ".", "-printf", "%p %y %m %l\n"], cwd=place, capture_output=True, check=True)
    contents = sorted(f"{path}={path.read_bytes()!r}" for path in Path(place).rglob("*") if path.is_file())
    left = sorted(names.stdout.decode().splitlines()) + [text.removeprefix(str(place)) for text in contents]
    shutil.rmtree(place)
    return ended.returncode, ended.stdout, ended.stderr, left


@pytest.mark.parametrize("command", DONE)
def test_a_shortcut_does_what_the_program_does(harness: Path, tmp_path: Path, command: str) -> None:
    name, *words = shlex.split(command)
    ours = _seen([harness, f"/usr/bin/{name}", *words], tmp_path / "x")
    assert ours == _seen([f"/usr/bin/{name}", *words], tmp_path / "x")


@pytest.mark.parametrize("command", LEFT)
def test_what_is_not_plain_is_left_to_the_program_untouched(harness: Path, tmp_path: Path, command: str) -> None:
    name, *words = shlex.split(command)
    status, out, errors, left = _seen([harness, f"/bin/{name}", *words], tmp_path / "x")
    assert (status, out, errors) == (_LEFT, b"", b"")
    assert left == _seen(["true"], tmp_path / "x")[3]


@pytest.mark.parametrize("path", ["/opt/bin/rm", "rm", "/usr/local/bin/rm", "/bin/rmdir", "/usr/binrm"])
def test_only_the_usual_programs_have_shortcuts(harness: Path, tmp_path: Path, path: str) -> None:
    assert _seen([harness, path, "-f", "file"], tmp_path / "x")[0] == _LEFT


def test_cat_does_not_read_what_it_writes(harness: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    with (tmp_path / "file").open("a") as stream:
        ended = subprocess.run([harness, "/bin/cat", "file"], cwd=tmp_path, stdout=stream, check=False)
    assert ended.returncode == _LEFT
    assert (tmp_path / "file").read_text() == "text"


def test_cat_into_a_closed_pipe_has_the_status_of_the_signal(harness: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run([harness, "/bin/cat", "file"], cwd=tmp_path, stdout=write, check=False)
    os.close(write)
    assert ended.returncode == 141
