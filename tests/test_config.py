"""The configuration: the reference loads, and what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from cluster import config
from cluster.errors import InputError


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def message(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        config.load(path)
    text = str(caught.value)
    assert "\n" not in text
    return text


def board(name: str = "pi", **changed: str) -> str:
    """A machine of the configuration that is right but for what is `changed`."""
    right = {"driver": "ssh", "address": "root@board", "host_key": "ssh-ed25519 AAAA pi", "target": "arm64"}
    return f"[nodes.{name}]\n" + "".join(f'{key} = "{value}"\n' for key, value in (right | changed).items())


def test_the_defaults_load() -> None:
    loaded = config.load()
    assert loaded.build.target == "arm64"
    assert (loaded.build.nodes, loaded.build.attempts) == (2, 3)
    assert loaded.distcc.enabled
    assert loaded.repositories == {}


def test_what_the_user_says_is_merged_over_the_defaults(tmp_path: Path) -> None:
    mine = written(tmp_path / "mine.toml", '[build]\nnodes = 7\n[repositories]\nmine = "/overlay"\n')
    loaded, default = config.load(mine), config.load()
    assert loaded.build.nodes == 7
    assert loaded.repositories == {"mine": config.Tree(sync="directory", directory="/overlay")}
    assert loaded.build.attempts == default.build.attempts
    assert loaded.limits == default.limits


def test_the_users_own_file_is_found() -> None:
    assert config.load().build.nodes == 2
    written(config.user_file(), "[build]\nnodes = 5\n")
    assert config.load().build.nodes == 5


def test_a_file_that_is_named_replaces_the_users_own(tmp_path: Path) -> None:
    written(config.user_file(), "[build]\nnodes = 5\njobs = 9\n")
    loaded = config.load(written(tmp_path / "mine.toml", "[build]\nnodes = 6\n"))
    assert loaded.build.nodes == 6
    assert loaded.build.jobs == config.load(config.DEFAULT).build.jobs


@pytest.mark.parametrize(
    ("address", "place"),
    [("root@board", ("board", 22)), ("root@10.0.0.7:2222", ("10.0.0.7", 2222)), ("root@[fd00::7]:8", ("fd00::7", 8))],
)
def test_where_a_machine_is(tmp_path: Path, address: str, place: tuple[str, int]) -> None:
    loaded = config.load(written(tmp_path / "mine.toml", board(address=address)))
    assert loaded.nodes["pi"].place == place
    assert loaded.nodes["pi"].directory == "/var/tmp/portage-cluster"


def test_whole_seconds_need_no_point(tmp_path: Path) -> None:
    assert config.load(written(tmp_path / "mine.toml", "[limits]\nsilence_s = 5\n")).limits.silence_s == 5.0


def test_plain_nodes_get_no_help() -> None:
    plain = config.plain(config.load())
    helps = (plain.node.composed, plain.node.warm, plain.node.own_kernel, plain.node.fast_shell)
    assert not any((*helps, plain.node.skip_idle_phases, plain.distcc.enabled, plain.compile.enabled))
    assert config.load().node.own_kernel


def test_it_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        config.load().build.nodes = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "key", "value", "expected"),
    [
        ("[build]\nnoodles = 2\n", "build.noodles", "2", "no such key"),
        ("[bulid]\nnodes = 2\n", "bulid", "{'nodes': 2}", "no such key"),
        ('[build]\nnodes = "two"\n', "build.nodes", "'two'", "integer"),
        ('[build]\nnodes = "2"\n', "build.nodes", "'2'", "integer"),
        ("[build]\nnodes = 2.5\n", "build.nodes", "2.5", "integer"),
        ("[build]\nnodes = true\n", "build.nodes", "True", "integer"),
        ("[build]\nnodes = 0\n", "build.nodes", "0", "greater than or equal to 1"),
        ("[build]\nweight = 0\n", "build.weight", "0", "greater than or equal to 0.001"),
        ("[build]\nweight = inf\n", "build.weight", "inf", "less than or equal to 1000"),
        ("[build]\ntest = 1\n", "build.test", "1", "boolean"),
        ("[build]\ntarget = 64\n", "build.target", "64", "string"),
        ("build = 3\n", "build", "3", "build"),
        ("[node]\nmemory_mib = 16\n", "node.memory_mib", "16", "greater than or equal to 256"),
        ("[limits]\ntotal_s = -1\n", "limits.total_s", "-1", "greater than 0"),
        ("[distcc]\nport = 70000\n", "distcc.port", "70000", "less than or equal to 65535"),
        ("[distfiles]\nmirrors = [1]\n", "distfiles.mirrors.0", "1", "string"),
        ("[repositories]\nmine = []\n", "repositories.mine", "[]", "a string, the directory, or a table"),
        ('[repositories]\n"../x" = "/y"\n', "repositories.../x", "'../x'", "letters, digits, - and _"),
        ('[repositories]\nx = { sync = "svn" }\n', "repositories.x.sync", "'svn'", "'git', 'rsync' or 'directory'"),
        ('[repositories]\nx = { uri = "y" }\n', "repositories.x.sync", "{'uri': 'y'}", "field required"),
        ('[repositories]\nx = { sync = "git" }\n', "repositories.x.uri", "''", "the address to fetch from"),
        ('[repositories]\nx = { sync = "git", uri = 3 }\n', "repositories.x.uri", "3", "string"),
        ('[repositories]\nx = { sync = "directory" }\n', "repositories.x.directory", "''", "the directory"),
        ('[repositories.x]\nsync = "rsync"\nuri = "y"\ncommit = "a"\n', "repositories.x.commit", "'a'", "only sync"),
        ('[repositories.x]\nsync = "git"\nuri = "y"\ncommit = "a"\n', "repositories.x.commit", "'a'", "40 hexadec"),
        ('[repositories.x]\nsync = "git"\nuri = "y"\nbranch = "a"\n', "repositories.x.branch", "'a'", "no such key"),
        ('[node]\ndriver = "kvm"\n', "node.driver", "'kvm'", "'qemu' or 'chroot'"),
        (board(address="pi@board"), "nodes.pi.address", "'pi@board'", "root@host"),
        (board(address="root@board:0"), "nodes.pi.address", "'root@board:0'", "root@host"),
        (board(host_key="AAAA"), "nodes.pi.host_key", "'AAAA'", "_key.pub"),
        (board(directory="/a:b"), "nodes.pi.directory", "'/a:b'", "an absolute path"),
        (board(driver="serial"), "nodes.pi.driver", "'serial'", "'ssh'"),
        (board("node-1"), "nodes.node-1", "'node-1'", "does not begin with node-"),
    ],
)
def test_a_broken_key_is_named_with_its_value_and_what_was_expected(
    tmp_path: Path, text: str, key: str, value: str, expected: str
) -> None:
    mine = written(tmp_path / "mine.toml", text)
    said = message(mine)
    assert f"{mine}: {key} = {value}: " in said
    assert expected in said.partition(f"{key} = {value}: ")[2]


def test_not_toml(tmp_path: Path) -> None:
    mine = written(tmp_path / "mine.toml", "[build\nnodes = 2\n")
    assert message(mine).startswith(f"{mine} is not TOML: ")
    assert "line 1" in message(mine)


def test_not_even_text(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe\x00")
    assert message(tmp_path / "mine.toml").startswith(f"{tmp_path / 'mine.toml'} is not TOML: ")


def test_a_missing_file(tmp_path: Path) -> None:
    assert str(tmp_path / "no.toml") in message(tmp_path / "no.toml")


def test_a_directory(tmp_path: Path) -> None:
    assert message(tmp_path) == f"the config file {tmp_path} cannot be read: Is a directory"
