"""The configuration: the default file, the user's merged over it, checked, and frozen."""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from cluster.errors import InputError

DEFAULT = Path(__file__).with_name("default.toml")

_ADDRESS = re.compile(r"root@(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s@:\[\]]+)(:(?P<port>\d{1,5}))?")
LIGHTEST, HEAVIEST = 0.001, 1000.0  # weights of builds

_Positive = Annotated[int, Field(ge=1)]
_Seconds = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=LIGHTEST, le=HEAVIEST)]
_Network = Annotated[str, AfterValidator(lambda text: str(ipaddress.ip_network(text)))]
_Port = Annotated[int, Field(ge=0, le=65535)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Build(_Section):
    """`[build]`"""

    target: str
    nodes: _Positive
    weight: Weight
    attempts: _Positive
    jobs: _Positive
    apart: list[list[str]]
    test: bool
    make_conf: str


class Node(_Section):
    """`[node]`"""

    driver: Literal["qemu", "chroot"]
    memory_mib: Annotated[int, Field(ge=256)]
    cpus: _Positive
    composed: bool
    warm: bool
    own_kernel: bool
    fast_shell: bool
    skip_idle_phases: bool
    boot_s: _Seconds


class Hosts(_Section):
    """`[hosts]`"""

    use: bool
    quarantine_after: _Positive
    losses: _Positive


class Ec2(_Section):
    """`[ec2]`"""

    scale: bool
    down_after: bool


class Limits(_Section):
    """`[limits]`"""

    silence_s: _Seconds
    total_s: _Seconds


class Distcc(_Section):
    """`[distcc]`"""

    enabled: bool
    port: _Port
    slots: _Positive
    trusted: Annotated[tuple[_Network, ...], Field(strict=False)]


class Compile(_Section):
    """`[compile]`"""

    enabled: bool
    slots: _Positive
    cache_mib: Annotated[int, Field(ge=0)]
    pilot: bool
    audit_percent: Annotated[float, Field(ge=0, le=100)]


class Distfiles(_Section):
    """`[distfiles]`"""

    mirrors: list[str]
    distribution: bool


class Binhost(_Section):
    """`[binhost]`"""

    port: _Port
    mirror: str

    @field_validator("mirror")
    @classmethod
    def _mirror(cls, value: str) -> str:
        if value and not value.startswith("s3://"):
            raise PydanticCustomError("mirror", "s3://BUCKET/PREFIX, or nothing")
        return value


class Profile(_Section):
    """`[profile]`"""

    path: str


class Portage(_Section):
    """`[portage]`"""

    directory: str


class Tree(_Section):
    """A repository of `[repositories]`; a string in its place is its directory."""

    sync: Literal["git", "rsync", "directory"]
    uri: str = Field(default="", validate_default=True)
    directory: str = Field(default="", validate_default=True)
    commit: str = ""

    @field_validator("uri")
    @classmethod
    def _uri(cls, value: str, others: ValidationInfo) -> str:
        sync = others.data.get("sync")
        if sync in ("git", "rsync") and not value:
            raise PydanticCustomError("uri", f'sync = "{sync}" needs the address to fetch from')
        if sync == "directory" and value:
            raise PydanticCustomError("uri", 'sync = "directory" fetches nothing')
        return value

    @field_validator("directory")
    @classmethod
    def _directory(cls, value: str, others: ValidationInfo) -> str:
        if others.data.get("sync") == "directory" and not value:
            raise PydanticCustomError("directory", "the directory of the repository")
        return value

    @field_validator("commit")
    @classmethod
    def _commit(cls, value: str, others: ValidationInfo) -> str:
        if value and others.data.get("sync", "git") != "git":
            raise PydanticCustomError("commit", 'only sync = "git" can keep to a commit')
        if value and not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", value):
            raise PydanticCustomError("commit", "a whole commit hash, 40 hexadecimal digits")
        return value


def _tree_name(name: str) -> str:
    if not re.fullmatch("[A-Za-z0-9_][A-Za-z0-9_-]*", name):  # PMS 3.1.5
        raise PydanticCustomError("name", "a repository's name has letters, digits, - and _")
    return name


def _as_table(value: Any) -> Any:
    if isinstance(value, str):
        return {"sync": "directory", "directory": value}
    if not isinstance(value, dict | Tree):
        raise PydanticCustomError("tree", "a string, the directory, or a table with the key sync")
    return value


class Board(_Section):
    """`[nodes.NAME]`"""

    driver: Literal["ssh"]
    address: str
    host_key: str
    target: str
    identity: str = ""
    directory: str = "/var/tmp/portage-cluster"

    @property
    def place(self) -> tuple[str, int]:
        """Host name or address, and port."""
        found = _ADDRESS.fullmatch(self.address)
        assert found is not None  # it is checked below
        return found["host"].strip("[]"), int(found["port"] or 22)

    @field_validator("address")
    @classmethod
    def _address(cls, value: str) -> str:
        found = _ADDRESS.fullmatch(value)
        if found is None or not 0 < int(found["port"] or 22) < 65536:
            raise PydanticCustomError("address", "root@HOST or root@HOST:PORT; a clean root takes root there")
        return value

    @field_validator("host_key")
    @classmethod
    def _host_key(cls, value: str) -> str:
        if not re.fullmatch(r"(ssh|ecdsa)-\S+ [A-Za-z0-9+/]+=*( .*)?", value):
            raise PydanticCustomError("host_key", "the line of its /etc/ssh/ssh_host_*_key.pub")
        return value

    @field_validator("directory")
    @classmethod
    def _directory(cls, value: str) -> str:
        if not re.fullmatch(r"/[A-Za-z0-9._/-]+", value):  # it is part of mount options
            raise PydanticCustomError("directory", "an absolute path of letters, digits and . _ / -")
        return value


def _board_name(name: str) -> str:
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9._-]{0,30}", name) or name.startswith("node-"):
        raise PydanticCustomError("name", "a node's name has letters, digits and . _ -, and does not begin with node-")
    return name


class Variant(_Section):
    """`[variants.NAME]`: what differs from the rest of the file; empty for nothing."""

    target: str = ""
    portage: str = ""
    profile: str = ""


class Config(_Section):
    """The whole file; what each key means stands in default.toml."""

    build: Build
    node: Node
    hosts: Hosts
    ec2: Ec2
    limits: Limits
    distcc: Distcc
    compile: Compile
    distfiles: Distfiles
    binhost: Binhost
    repositories: dict[Annotated[str, AfterValidator(_tree_name)], Annotated[Tree, BeforeValidator(_as_table)]]
    profile: Profile
    portage: Portage
    variants: dict[str, Variant]
    nodes: dict[Annotated[str, AfterValidator(_board_name)], Board]


def plain(config: Config) -> Config:
    """The same, but nodes get no help: the distribution's kernel, cold boots, emerge and compilers of their own."""
    unhelped = dict.fromkeys(("composed", "warm", "own_kernel", "fast_shell", "skip_idle_phases"), False)
    return config.model_copy(
        update={
            "node": config.node.model_copy(update=unhelped),
            "distcc": config.distcc.model_copy(update={"enabled": False}),
            "compile": config.compile.model_copy(update={"enabled": False}),
        }
    )


def user_file() -> Path:
    """Where the user's file is looked for."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".config") / "portage-cluster" / "config.toml"


def load(path: Path | None = None) -> Config:
    """The defaults with the user's file, or the one at `path`, merged over them.

    Raises InputError, which names the key, its value and what was expected.
    """
    values = _read(DEFAULT)
    chosen = path or user_file()
    if path is not None and not path.exists():
        raise InputError(f"there is no config file {path}", "mend --config")
    if chosen.exists():
        values = _merge(values, _read(chosen))
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"] if part != "[key]")
        expected = "no such key" if first["type"] == "extra_forbidden" else first["msg"].lower()
        mend = f"{expected}; `cluster config` prints the reference"
        raise InputError(f"{chosen}: {key} = {first['input']!r}", mend) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML", str(error)) from error
    except OSError as error:
        raise InputError(f"the config file {path} cannot be read", str(error.strerror)) from error


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
