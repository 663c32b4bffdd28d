"""Sealed roots: on the host, the headers and libraries that a node sees, and a compiler that sees them there.

A stage keeps what its compilers read (`extract`). For a set of prerequisites that is linked, file
by file, into one directory with the prerequisites' own files and the host's cross compiler in
the places of the node's (`compose`). Nothing in a root changes while a build uses it: in the
node these directories are mounted read-only.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cluster import paths
from cluster.errors import MachineError
from cluster.node.sandbox import BUILD_PLACES, Ran, Sandbox, make_places
from cluster.node.toolchain import NATIVE, Toolchain
from cluster.process import run

_DEADLINE_S = 120.0
_KEPT_ROOTS = 40
_FORMAT = "3"
_ADDED = "added"
"""In a root: the list of its prerequisites' files."""

LANGUAGES = ("c", "c++")

# Where a node's compiler looks, but for what only runs there.
_KEPT = ("usr/include", "usr/local/include", "usr/local/lib", "usr/lib", "usr/lib32", "usr/lib64", "usr/libx32")
_NOT_KEPT = re.compile(r"(python3?|python3\.\d+|perl\d?|perl5|git-core|systemd|udev|locale|apt|dpkg|openssh|valgrind)$")
_NOT_UNPACKED = ("dev", "etc", "opt", "var", "usr/bin", "usr/libexec", "usr/sbin", "usr/share")
_EXECUTABLES = ("cc1", "cc1plus", "collect2", "lto-wrapper", "lto1", "liblto_plugin.so", "g++-mapper-server", "plugin")


def extract(archive: Path, place: Path) -> None:
    """Unpack what compilers read of the root in the tar `archive` to the new directory `place`."""
    with tempfile.TemporaryDirectory(prefix=".root-", dir=place.parent) as scratch:
        left_out = [f"--exclude=./{name}" for name in _NOT_UNPACKED]
        how = ["--extract", "--no-same-owner", "--anchored", *left_out, "--directory", scratch]
        run(["tar", *how, "--file", archive], deadline_s=_DEADLINE_S)
        keep(Path(scratch), place)


def keep(root: Path, place: Path) -> None:
    """Move what compilers read of the unpacked `root` to `place`, with the links between its directories."""
    place.mkdir()
    for link in root.iterdir():
        if link.is_symlink():
            (place / link.name).symlink_to(link.readlink())
    for name in _KEPT:
        source = root / name
        if not source.is_dir():
            continue
        target = place / name
        target.mkdir(parents=True)
        for entry in source.iterdir():
            if not _NOT_KEPT.match(entry.name):
                entry.rename(target / entry.name)
    for directory in place.glob("usr/lib/gcc/*/*"):
        for name in _EXECUTABLES:
            _remove(directory / name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Root:
    """A composed root."""

    directory: Path
    sandbox: Sandbox
    stage: str
    """Identifies everything in it but the prerequisites' files."""
    added: frozenset[str]
    """The prerequisites' files, absolute."""
    prerequisites: str
    """Identifies them."""
    include: Mapping[str, tuple[PurePosixPath, ...]]
    """Where its compiler looks for headers, by language."""
    libraries: tuple[PurePosixPath, ...]
    """Where its linker looks."""
    linker: str
    """What its linker calls itself in messages, where the node's is /usr/bin/ld."""


def environment(toolchain: Toolchain, root: Path) -> dict[str, str]:
    """What makes the compiler look where the node's looks, which a native one does by itself."""
    everywhere = {"PATH": "/usr/bin:/bin", "TMPDIR": "/tmp"}
    if toolchain.home == NATIVE:
        return everywhere
    machine, major = toolchain.chost, toolchain.major
    cxx = (f"usr/include/c++/{major}", f"usr/include/{machine}/c++/{major}", f"usr/include/c++/{major}/backward")
    return {
        **everywhere,
        # The driver, which is configured for gcc-cross/, takes everything from here instead.
        "GCC_EXEC_PREFIX": "/usr/lib/gcc/",
        "CPLUS_INCLUDE_PATH": ":".join(f"/{path}" for path in cxx if (root / path).is_dir()),
    }


def compose(
    stage: Path,
    stage_id: str,
    toolchain: Toolchain,
    prerequisites: Callable[[Path], object] | None,
    prerequisites_id: str,
    cache: Path,
) -> Root:
    """The root of a node of the stage kept in `stage` with what `prerequisites` unpacks over it.

    Made once and kept in `cache`/sysroots. Raises MachineError.
    """
    identity = hashlib.blake2b(f"{_FORMAT} {stage_id} {toolchain.identity}".encode(), digest_size=10).hexdigest()
    sysroots = cache / "sysroots"
    place = sysroots / f"{identity}-{prerequisites_id or 'none'}"
    with paths.locked(sysroots / "lock"):
        if not place.exists():
            _make(stage, toolchain, prerequisites, sysroots, place)
            _forget_old(sysroots, place)
        os.utime(place)
    added = frozenset((place / _ADDED).read_text().splitlines())
    sandbox = Sandbox(((place, PurePosixPath("/")),), environment(toolchain, place))
    include, libraries = search(sandbox)
    linker = ask(sandbox, "gcc", ["-print-prog-name=ld"]).stdout.decode().strip()
    return Root(place, sandbox, identity, added, prerequisites_id, include, libraries, linker)


def _make(
    stage: Path, toolchain: Toolchain, prerequisites: Callable[[Path], object] | None, sysroots: Path, place: Path
) -> None:
    with tempfile.TemporaryDirectory(prefix=".new-", dir=sysroots) as scratch:
        root = Path(scratch) / "root"
        root.mkdir()
        _link_tree(stage, root)
        added = Path(scratch) / "added"
        if prerequisites is not None:
            prerequisites(added)
            _link_tree(added, root)
        (root / _ADDED).write_text("".join(f"{path}\n" for path in sorted(_files(added))))
        _install(toolchain, root)
        for directory in (*BUILD_PLACES, PurePosixPath("/dev"), PurePosixPath("/proc")):
            (root / directory.relative_to("/")).mkdir(parents=True, exist_ok=True)
        (root / "dev/null").touch()
        root.rename(place)


def _link_tree(source: Path, root: Path) -> None:
    """Hard links of all files of `source`, over what `root` has."""
    run(["cp", "--archive", "--link", "--remove-destination", f"{source}/.", root], deadline_s=_DEADLINE_S)


def _install(toolchain: Toolchain, root: Path) -> None:
    """Put the cross compiler's programs where the node has its own, and their libraries beside the node's.

    Where the node has such a library it stays, and a native compiler runs with it, as in the node: one of a
    prerequisite is what programs are to be linked with.
    """
    for name, driver in toolchain.drivers().items():
        _link(driver, root / "usr/bin" / name)
    for program in toolchain.programs():
        # Drivers that have a libexec look for them there, others beside the node's own files.
        _link(program, root / program.relative_to(toolchain.prefix))
        _link(program, root / f"usr/lib/gcc/{toolchain.chost}/{toolchain.major}" / program.name)
    for name, tool in toolchain.tools().items():
        _link(tool, root / f"usr/{toolchain.chost}/bin" / name)
    _link(toolchain.daemon(), root / toolchain.daemon().relative_to(toolchain.prefix))
    places = {file: root / file.relative_to(toolchain.prefix) for file in toolchain.libraries()}
    for loader in toolchain.loaders():  # its programs name it without /usr
        place = loader.relative_to(toolchain.prefix)
        places[loader] = root / (place.relative_to("usr") if place.parts[0] == "usr" else place)
    for file, place in places.items():
        if not place.exists():
            _link(file, place)


def _link(source: Path, place: Path) -> None:
    """A hard link of the file that `source` is or leads to, in the place of what is there."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    os.link(source.resolve(), place)


def _forget_old(sysroots: Path, newest: Path) -> None:
    roots = sorted((path for path in sysroots.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    for path in roots[:-_KEPT_ROOTS]:
        if path != newest:
            shutil.rmtree(path, ignore_errors=True)


def _files(directory: Path) -> frozenset[str]:
    return frozenset(
        f"/{(Path(base) / name).relative_to(directory)}" for base, _, names in os.walk(directory) for name in names
    )


def ask(sandbox: Sandbox, driver: str, words: Sequence[str]) -> Ran:
    """What the compiler `driver` of a sandbox says to `words`, in English."""
    with tempfile.TemporaryDirectory(prefix="portage-cluster-") as scratch:
        make_places(Path(scratch))
        return sandbox.run(
            [driver, *words],
            cwd=PurePosixPath("/tmp"),
            tree=Path(scratch),
            environment={"LC_ALL": "C"},
            deadline_s=_DEADLINE_S,
        )


def search(sandbox: Sandbox) -> tuple[dict[str, tuple[PurePosixPath, ...]], tuple[PurePosixPath, ...]]:
    """Where the compilers, by language, and the linker of a root look. Raises MachineError if they do not run."""
    include: dict[str, tuple[PurePosixPath, ...]] = {}
    for language in LANGUAGES:
        ran = ask(sandbox, _driver(language), ["-v", "-E", "-x", language, "/dev/null"])
        if ran.status:
            raise MachineError("the cross compiler does not run in its sandbox", ran.stderr.decode(errors="replace"))
        include[language] = search_list(ran.stderr.decode(errors="replace"))
    said = ask(sandbox, _driver("c"), ["-print-search-dirs"]).stdout.decode(errors="replace")
    found = re.search(r"^libraries: =(.*)$", said, re.MULTILINE)
    listed = found.group(1).split(":") if found else []
    libraries = tuple(dict.fromkeys(PurePosixPath(os.path.normpath(path)) for path in listed))
    return include, libraries


def _driver(language: str) -> str:
    return "g++" if language == "c++" else "gcc"


def search_list(said: str) -> tuple[PurePosixPath, ...]:
    """The directories of gcc's `#include <...> search starts here` in what `gcc -v -E` printed."""
    found = re.search(r"^#include <\.\.\.> search starts here:\n((?: .*\n)*)End of search list", said, re.MULTILINE)
    return tuple(PurePosixPath(line.strip()) for line in found.group(1).splitlines()) if found else ()


def disagreement(root: Root, signature: Path) -> str:
    """How the root's compiler differs from the node's own, whose answers are in `signature`; "" if not at all.

    Compared are the versions, to the distribution's patches, all predefined macros and the lists of
    directories, without those that are empty.
    """
    ours = _version(ask(root.sandbox, _driver("c"), ["-v", "-E", "-x", "c", "/dev/null"]).stderr)
    theirs = _version((signature / "search-c").read_bytes())
    if ours != theirs:
        return f"it is {ours}, theirs is {theirs}"
    for language in LANGUAGES:
        macros = ask(root.sandbox, _driver(language), ["-dM", "-E", "-x", language, "/dev/null"]).stdout
        if sorted(macros.splitlines()) != sorted((signature / f"macros-{language}").read_bytes().splitlines()):
            return f"their macros for {language} are not the same"
        directories = search_list((signature / f"search-{language}").read_text(errors="replace"))
        if _filled(root, root.include[language]) != _filled(root, directories):
            return f"they do not look for {language} headers in the same directories"
    return ""


def signature(root: Root) -> str:
    """One word for the version and predefined macros of the root's compiler, which `disagreement` compares.

    Compilers of one signature make one object of one preprocessed source.
    """
    digest = hashlib.sha256(_version(ask(root.sandbox, _driver("c"), ["-v"]).stderr).encode())
    for language in LANGUAGES:
        macros = ask(root.sandbox, _driver(language), ["-dM", "-E", "-x", language, "/dev/null"]).stdout
        digest.update(b"\n".join(sorted(macros.splitlines())))
    return digest.hexdigest()


def _version(said: bytes) -> str:
    """The compiler's full version in what `gcc -v` printed."""
    found = re.search(r"^gcc version (.*?) *$", said.decode(errors="replace"), re.MULTILINE)
    return found.group(1) if found else "of no known version"


def _filled(root: Root, directories: Iterable[PurePosixPath]) -> list[PurePosixPath]:
    def has_files(path: PurePosixPath) -> bool:
        place = root.sandbox.host_path(path)
        return place is not None and place.is_dir() and any(place.iterdir())

    return [path for path in directories if has_files(path)]
