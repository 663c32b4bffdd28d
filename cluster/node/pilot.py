"""A pilot: the same build once more, on the host and at its speed, ahead of the node's.

Its shell, make and Portage are the host's own; its compilers are the compile client's, so that what it
compiles is in the cache when the node asks for it. The programs that configure compiles and runs are
the target's, by qemu-user. Nothing else of a pilot is used: where it goes another way than the node
(another answer of configure, a tool that the host lacks), the node's compiles are just not there yet.

It runs a package's build scripts on the host's kernel, in a sandbox: no network, no capability, no
file of the host but /usr, read-only.

pilots/KEY/         in the cache: what all of them share
    opt/ usr/local/     the master's Portage
    bin/                the compile client, under the compilers' names
    preload/            what the target's programs have in the place of their C library's own
    etc/                accounts
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from cluster import paths
from cluster.errors import MachineError
from cluster.model import Package
from cluster.node import client, container, rootfs
from cluster.node import job as jobs
from cluster.node.installed import write_installed
from cluster.node.sandbox import make_places
from cluster.node.sysroot import Root
from cluster.process import Child, find_program, run
from cluster.target import Target

_COMPILE_S = 120.0
_PROBE_S = 60.0
_HOST = Path("/")
_LINKED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""Directories of a root that are links into /usr where that is merged."""
_NODE = "/node"
_CLIENT = f"{_NODE}-compilers"
_PRELOAD = f"{_NODE}-preload"
_SOCKET = "/run/compile"
_NAMESPACES = ("--user", "--map-root-user", "--mount")
_OUTSIDE = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
_PRELOADED = paths.data("stage-images", "host", "posix_spawn.c")
_ACCOUNTS = {"passwd": "root:x:0:0:root:/root:/bin/sh\n", "group": "root:x:0:\n"}


def is_room(nodes: int, cpus: int, processors: int) -> bool:
    """Whether pilots help where so many nodes, of so many processors each, share the host's processors.

    A pilot costs about what a native build costs; it is worth that where a processor would be idle.
    """
    return nodes * cpus < processors


@dataclass(frozen=True, slots=True)
class Kit:
    """What the pilots of a target are made of."""

    directory: Path
    target: Target


def ensure(target: Target, root: Root, compilers: Iterable[str], cache: Path) -> Kit:
    """The kit for `target`, whose compilers have these names in a node, made if `cache` has none.

    `root` is that of a bare stage. Raises MachineError where pilots cannot run: no compiler of the
    host's own for the client, no qemu-user, no binfmt_misc in user namespaces.
    """
    run([*_with_binfmt(target), "true"], deadline_s=_PROBE_S, env=_OUTSIDE)
    pilots = cache / "pilots"
    names = sorted(compilers)
    directory = pilots / _key(names, root)
    with paths.locked(pilots / "lock"):
        if not directory.exists():
            with tempfile.TemporaryDirectory(prefix=".new-", dir=pilots) as scratch:
                kit = Path(scratch) / "kit"
                _make(kit, names, root)
                kit.rename(directory)
    return Kit(directory, target)


def _with_binfmt(target: Target) -> list[str | Path]:
    """The words before a command to run it where the target's programs run. Raises MachineError without qemu-user."""
    registration = container.registration_of(target)
    script = paths.data("stage-images", "host", "with-binfmt")
    return [find_program("unshare", "util-linux"), *_NAMESPACES, "sh", script, registration]


def _key(names: Iterable[str], root: Root) -> str:
    parts = [root.stage, *names, importlib.metadata.version("portage"), rootfs.python_of(_HOST)]
    parts += [path.read_text() for path in (Path(__file__), Path(rootfs.__file__), client.source(), _PRELOADED)]
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=6).hexdigest()


def _make(kit: Path, names: Iterable[str], root: Root) -> None:
    rootfs.install_portage(kit, rootfs.python_of(_HOST))
    (kit / "usr/local/bin/gtar").symlink_to("/usr/bin/tar")
    for name, text in _ACCOUNTS.items():
        (kit / "etc" / name).write_text(text)
    client.compile_to(kit / "bin", names)
    _preloads(kit / "preload", root)


def _preloads(place: Path, root: Root) -> None:
    """Compile for the target what its programs preload."""
    place.mkdir()
    with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
        tree = Path(scratch)
        make_places(tree)
        shutil.copy(_PRELOADED, tree / "tmp")
        argv = ("gcc", "-O2", "-shared", "-fPIC", "-o", _PRELOADED.stem, _PRELOADED.name)
        ran = root.sandbox.run(argv, cwd=PurePosixPath("/tmp"), tree=tree, environment={}, deadline_s=_COMPILE_S)
        if ran.status:
            raise MachineError(f"{_PRELOADED.name} does not compile", ran.stderr.decode(errors="replace"))
        shutil.copy(tree / "tmp" / _PRELOADED.stem, place / f"{_PRELOADED.stem}.so")


def command(kit: Kit, sealed: Path, directory: Path, socket: Path, links: Mapping[str, str]) -> list[str]:
    """bubblewrap's words before a command: the host's /usr, the node's files at /node, and `directory` to write to.

    `socket` is the compile server's; `links` are the host root's own links into /usr.
    """
    words = ["--unshare-all", "--die-with-parent", "--cap-drop", "ALL", "--uid", "0", "--gid", "0", "--clearenv"]
    for name, value in _environment(kit.target.chost).items():
        words += ["--setenv", name, value]
    words += ["--ro-bind", "/usr", "/usr"]
    for name in _LINKED:
        words += ["--symlink", links[name], f"/{name}"] if name in links else ["--ro-bind-try", f"/{name}", f"/{name}"]
    read = {
        **{f"/{place}": kit.directory / place for place in ("usr/local", "opt")},
        **{f"/etc/{name}": kit.directory / "etc" / name for name in _ACCOUNTS},
        _CLIENT: kit.directory / "bin",
        _PRELOAD: kit.directory / "preload",
        _NODE: sealed,
    }
    for place, source in read.items():
        words += ["--ro-bind", str(source), place]
    words += ["--ro-bind-try", "/etc/alternatives", "/etc/alternatives"]
    for place, name in {"/job": "job", "/var/db": "installed/var/db", "/var/tmp": "tmp"}.items():
        words += ["--bind", str(directory / name), place]
    words += ["--tmpfs", "/tmp", "--dir", "/root", "--bind", str(socket), _SOCKET]
    return [find_program("bwrap", "bubblewrap"), *words, "--proc", "/proc", "--dev", "/dev"]


def _environment(chost: str) -> dict[str, str]:
    packages = (f"usr/lib/{chost}/pkgconfig", "usr/lib/pkgconfig", "usr/share/pkgconfig")
    return {
        # The sandbox has one user: Portage is to give its files to no other.
        "PORTAGE_USERNAME": "root",
        "PORTAGE_GRPNAME": "root",
        # Where the target's programs find their loader and libraries, and pkg-config what a node has.
        "QEMU_LD_PREFIX": _NODE,
        "QEMU_SET_ENV": f"LD_PRELOAD={_PRELOAD}/{_PRELOADED.stem}.so",
        "PKG_CONFIG_LIBDIR": ":".join(f"{_NODE}/{place}" for place in packages),
    }


def access(token: str) -> jobs.CompileAccess:
    """How a pilot's compile client reaches the server, as the job of `token`."""
    return jobs.CompileAccess(_SOCKET, token, _CLIENT)


@contextmanager
def flying(
    kit: Kit,
    package: Package,
    settings: jobs.Settings,
    materials: jobs.Materials,
    sealed: Path,
    provides: Sequence[str],
    *,
    directory: Path,
    log: Path,
    socket: Path,
    own: Callable[[int], None],
) -> Iterator[None]:
    """Let a pilot build `package` in `directory` until its compile phase or the context ends.

    `sealed` is the node's root as the host's compilers see it (`cluster.node.sysroot`).
    `provides` is what it takes for installed, beside the package's prerequisites. `materials.compile` is
    to be `access`'s; `own` is told the process group. What it prints, and so how it ends, is in `log` alone.
    """
    for name in ("job", "tmp", "installed"):
        (directory / name).mkdir(parents=True)
    job = directory / "job"
    jobs.fill(job, package, replace(settings, distcc_hosts="", fast_shell=False), materials)
    shutil.copy(paths.data("stage-images", "host", "pilot"), job / "pilot")
    write_installed((*provides, *package.requires), directory / "installed", kit.target.name)
    links = {name: str((_HOST / name).readlink()) for name in _LINKED if (_HOST / name).is_symlink()}
    argv = [*_with_binfmt(kit.target), *command(kit, sealed, directory.resolve(), socket, links)]
    log.unlink(missing_ok=True)
    try:
        with Child([*argv, "/bin/sh", "/job/pilot"], log_path=log, env=_OUTSIDE) as child:
            own(child.pid)
            yield
    finally:
        _open_up(directory / "tmp")


def _open_up(tree: Path) -> None:
    """A source may come with directories that not even their owner may empty."""
    for place, names, _ in os.walk(tree):
        for name in names:
            path = Path(place, name)
            with suppress(OSError):  # the last of its processes may still be dying, and removing it
                if not path.is_symlink():
                    path.chmod(0o700)
