"""The configuration: defaults, what is merged over them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import config
from cluster.errors import InputError


def test_the_defaults_load_and_are_what_the_file_says() -> None:
    loaded = config.load()
    assert (loaded.build.target, loaded.build.attempts, loaded.distcc.enabled) == ("arm64", 3, True)


def test_every_key_of_the_default_file_has_a_comment_as_it_is_the_reference() -> None:
    for line in config.DEFAULT.read_text().splitlines():
        if " = " in line and not line.startswith("#"):
            assert "#" in line, line


def test_the_users_file_is_merged_over_them_key_by_key() -> None:
    path = config.user_file()
    path.parent.mkdir(parents=True)
    path.write_text('[build]\nnodes = 7\n[repositories]\nmine = "/srv/mine"\n[node]\nboot_s = 60\n')
    loaded = config.load()
    assert (loaded.build.nodes, loaded.build.jobs, loaded.node.boot_s) == (7, 2, 60)
    assert loaded.repositories == {"mine": "/srv/mine"}


def test_a_named_file_takes_the_place_of_the_users(tmp_path: Path) -> None:
    config.user_file().parent.mkdir(parents=True)
    config.user_file().write_text("[build]\nnodes = 7\n")
    other = tmp_path / "other.toml"
    other.write_text("[build]\njobs = 9\n")
    loaded = config.load(other)
    assert (loaded.build.nodes, loaded.build.jobs) == (2, 9)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[build]\nnodse = 3\n", ["build.nodse", "3", "no such key"]),
        ("[buidl]\nnodes = 3\n", ["buidl", "no such key"]),
        ('[build]\nnodes = "3"\n', ["build.nodes", "'3'", "valid integer"]),
        ("[build]\nnodes = true\n", ["build.nodes", "True", "valid integer"]),
        ("[build]\nnodes = 0\n", ["build.nodes", "0", "greater than or equal to 1"]),
        ("[limits]\nsilence_s = -1.5\n", ["limits.silence_s", "-1.5", "greater than 0"]),
        ("[distcc]\nport = 70000\n", ["distcc.port", "70000", "less than or equal to 65535"]),
        ("[node]\nmemory_mib = 64\n", ["node.memory_mib", "64", "256"]),
        ("build = 3\n", ["build", "3", "dictionary"]),
        ("[repositories]\nmine = 4\n", ["repositories.mine", "4", "valid string"]),
        ("[distfiles]\nmirrors = [1]\n", ["distfiles.mirrors.0", "1", "valid string"]),
        ("[build\n", ["not TOML", "line 1"]),
    ],
)
def test_what_cannot_be_used_is_named_with_file_value_and_expectation(
    tmp_path: Path, text: str, words: list[str]
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        config.load(path)
    message = str(caught.value)
    assert [word for word in (str(path), *words) if word not in message] == []
    assert "\n" not in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config file .*absent\.toml"):
        config.load(tmp_path / "absent.toml")


def test_a_directory_or_a_binary_file_is_an_input_error_too(tmp_path: Path) -> None:
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path, binary):
        with pytest.raises(InputError, match=str(path)):
            config.load(path)
