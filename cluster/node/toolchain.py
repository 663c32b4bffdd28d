"""The host's cross compiler: of the stage's own release, fetched into a private prefix.

A compiler on the host may stand in for the node's only if it is the same to the last patch,
which the host's release seldom has. It runs only in sandboxes, so that it needs nothing of the
host: its own C library and loader come along. On a host of the target's own architecture the
packages of the same names have the native compiler.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from cluster.apt import PrivateApt
from cluster.errors import MachineError
from cluster.paths import locked
from cluster.process import find_program, run
from cluster.target import Target

_DEADLINE_S = 300.0
_TOOLS = ("as", "ld", "ld.bfd")
_CROSS = "gcc-cross"
NATIVE = "gcc"
"""The `home` of a compiler that is the machine's own as well as the node's."""
_LOADED = re.compile(r".*\.so(\.[\d.]+)?$")


@dataclass(frozen=True, slots=True)
class Toolchain:
    """An unpacked cross toolchain."""

    prefix: Path
    """Where it is unpacked: Debian packages, as below /."""
    chost: str
    """What its programs' names begin with."""

    @property
    def identity(self) -> str:
        """Tells it from other toolchains."""
        return self.prefix.name

    @property
    def home(self) -> str:
        """The directory in lib and libexec of its own files, which tells a compiler that is native from a cross one.

        Raises MachineError if there is no compiler.
        """
        for name in (_CROSS, NATIVE):
            if (self.prefix / "usr/lib" / name / self.chost).is_dir():
                return name
        raise MachineError(f"{self.identity} has no compiler", f"see cross.packages of {self.chost}'s target")

    @property
    def major(self) -> str:
        """The compiler's major version, which is part of its paths. Raises MachineError if there is no compiler."""
        return max((path.name for path in (self.prefix / "usr/lib" / self.home / self.chost).iterdir()), key=int)

    def drivers(self) -> dict[str, Path]:
        """gcc and g++, by every name that the node's compilers have."""
        names: dict[str, Path] = {}
        for plain, alias in (("gcc", "cc"), ("g++", "c++")):
            binary = self.prefix / "usr/bin" / f"{self.chost}-{plain}-{self.major}"
            for name in (plain, f"{plain}-{self.major}"):
                names[name] = names[f"{self.chost}-{name}"] = binary
            names[alias] = binary
        return names

    def programs(self) -> tuple[Path, ...]:
        """cc1 and the like, and the plugin that the linker loads."""
        places = (self.prefix / "usr" / lib / self.home / self.chost / self.major for lib in ("libexec", "lib"))
        names = ("cc1", "cc1plus", "collect2", "lto-wrapper", "liblto_plugin.so")
        return tuple(place / name for place in places for name in names if (place / name).is_file())

    def tools(self) -> dict[str, Path]:
        """The assembler and the linker, by their plain names."""
        return {name: (self.prefix / "usr/bin" / f"{self.chost}-{name}").resolve() for name in _TOOLS}

    def libraries(self) -> tuple[Path, ...]:
        """All shared libraries that come with it, its C library among them; below the prefix."""
        places = self.prefix.glob("usr/lib/*-linux-gnu/*.so*")
        return tuple(path for path in sorted(places) if _LOADED.match(path.name))

    def loaders(self) -> tuple[Path, ...]:
        """Its dynamic loader, where programs name it."""
        return tuple(sorted((*self.prefix.glob("usr/lib64/ld-*"), *self.prefix.glob("lib64/ld-*"))))

    def daemon(self) -> Path:
        """distccd."""
        return self.prefix / "usr/bin/distccd"


def ensure(target: Target, suite: str, cache: Path) -> Toolchain:
    """The cross toolchain for `target` from `suite` of the machine's mirror, fetched into `cache` if it is not there.

    Raises MachineError.
    """
    wanted = (*target.cross.packages, "distcc")
    key = hashlib.blake2b(" ".join((suite, *wanted)).encode(), digest_size=6).hexdigest()
    prefix = cache / "toolchains" / f"{target.name}-{suite}-{key}"
    with locked(prefix.parent / "lock"):
        if not prefix.exists():
            _fetch(prefix, suite, wanted, cache)
    return Toolchain(prefix, target.chost)


def _fetch(prefix: Path, suite: str, packages: tuple[str, ...], cache: Path) -> None:
    apt = PrivateApt(cache / "apt" / f"toolchain-{suite}", (suite,))
    scratch = Path(f"{prefix}.new")
    shutil.rmtree(scratch, ignore_errors=True)
    (scratch / "usr/lib").mkdir(parents=True)
    for deb in apt.download(packages):
        run([find_program("dpkg-deb", "dpkg"), "-x", deb, scratch], deadline_s=_DEADLINE_S)
    if not Toolchain(scratch, "").daemon().exists():
        raise MachineError(f"no toolchain in {suite}", f"it should have {' '.join(packages)}")
    scratch.rename(prefix)
