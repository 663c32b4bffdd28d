"""Real machines, or servers of the target's own architecture, that build over ssh: no emulation, no compile server.

The machine has sh, tar, flock, unshare and overlayfs, and lets us in as root. The stage and each set of prerequisites
are copied there once, by names that tell their content; a build's files go there as a tar file. The build's directory
there is held by a command that reads from us: when that ends, also because the connection does, the build is ended
and the directory removed (stage-images/host/board).
"""

from __future__ import annotations

import secrets
import shlex
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from cluster import paths
from cluster.errors import BuildFailed, NodeLost
from cluster.model import Package, Usage
from cluster.node import composed, job, roots
from cluster.node.build import Built, Limits, phases, text, unfinished
from cluster.node.ssh import Connection
from cluster.process import Child, find_program, run, tail

_CONNECT_S = 30.0
_KEEPALIVE_S = 15
_COPY_S = 3600.0
_FETCH_S = 600.0
_ASK_S = 60.0
_PACK_S = 600.0
_SAID = 2000  # bytes of output that are kept for a message


@dataclass(frozen=True, slots=True)
class Board:
    """A machine and how it is reached."""

    name: str
    address: str
    port: int
    host_key: str
    """The public key that it must answer with, OpenSSH's line."""
    identity: Path | None
    """The private key that opens it; None for any of this user's."""
    directory: PurePosixPath
    """Where it keeps what it is given."""

    def asked(self, task: str, *words: str) -> str:
        """The shell command that has a task of stage-images/host/board done there."""
        script = paths.data("stage-images", "host", "board").read_text()
        return shlex.join(("sh", "-c", script, "board", task, str(self.directory), *words))


def machine_of(board: Board) -> str:
    """The machine's architecture as uname(2) has it. Raises NodeLost if it does not answer, or cannot build."""
    said: list[bytes] = []
    with _connection(board) as connection:
        status = connection.run(board.asked("machine"), total_s=_ASK_S, silence_s=_ASK_S, output=said.append)
    answer = b"".join(said).decode(errors="replace")
    if status:
        raise NodeLost(f"{board.name} cannot build", tail(answer))
    return answer.strip()


@dataclass(frozen=True, slots=True)
class SshDriver:
    """Chroots of the stage on a machine that runs the target's programs."""

    board: Board
    stage: Path
    """The directory in the cache that the root is made of."""
    root: roots.Root
    provides: Sequence[str]
    cache: Path

    def compose(self, binpkgs: Sequence[Path]) -> Path:
        """A tar file."""
        return composed.archive(binpkgs, self.provides, self.cache)

    def access(self, port: int, socket: Path, token: str) -> None:
        """Not at all: the machine's own compiler is not slowed by anything."""

    def build(
        self,
        package: Package,
        settings: job.Settings,
        limits: Limits,
        *,
        directory: Path,
        materials: job.Materials,
        output: Callable[[bytes], object],
        own: Callable[[int], None],
        entered: Callable[[str], None],
    ) -> Built:
        """As `Driver.build`; the process group is that of a process here with which the connection ends."""
        with _connected(self.board, directory, own) as connection:
            entered("copy")
            root = self._root(connection, materials.prerequisites)
            name = f"{package.pf}-{secrets.token_hex(6)}"
            place = self.board.directory / "builds" / name
            with connection.holding(self.board.asked("hold", name), deadline_s=_ASK_S):
                content = directory / "content"
                self._fill(content, root, place, package, settings, materials)
                self._send(connection, content, "fill", name)
                shutil.rmtree(content)
                entered("build")
                failure = self._run(connection, name, limits, output)
                entered("results")
                return _result(connection, package, place, directory, failure)

    def _root(self, connection: Connection, archive: Path | None) -> roots.Root:
        """The root as it is on the machine, where what it is made of is copied unless it is there."""
        stage = self._copied(connection, f"roots/{self.stage.name}", self.stage)
        root = self.root
        if archive is not None:
            root = root.over(self._copied(connection, f"layers/{archive.stem}", archive))
        return root.moved(self.stage, stage)

    def _copied(self, connection: Connection, name: str, source: Path) -> Path:
        """Where the machine has the directory or tar file `source` under `name`."""
        if connection.run(self.board.asked("has", name), total_s=_ASK_S, silence_s=_ASK_S, output=lambda data: None):
            with paths.used(self.stage):
                self._send(connection, source, "keep", name)
        return Path(self.board.directory / name)

    def _send(self, connection: Connection, source: Path, task: str, name: str) -> None:
        """Feed `source`, a directory or a tar file, to a task. Raises NodeLost if that fails."""
        said: list[bytes] = []
        with _packed(source) as archive, archive.open("rb") as stream:
            status = connection.feed(self.board.asked(task, name), stream, deadline_s=_COPY_S, output=said.append)
        if status:
            what = f"{self.board.name} cannot take {name}"
            raise NodeLost(what, tail(b"".join(said).decode(errors="replace")) or f"exit status {status}")

    def _fill(
        self,
        content: Path,
        root: roots.Root,
        place: PurePosixPath,
        package: Package,
        settings: job.Settings,
        materials: job.Materials,
    ) -> None:
        """Write what `place` on the machine is to have into the new directory `content`."""
        binds = {**root.binds, "job": Path(place / "job"), "var/tmp": Path(place / "tmp")}
        roots.prepare(replace(root, binds=binds), content)
        shutil.copy(paths.data("stage-images", "host", "enter"), content)
        (content / "job").mkdir()
        job.fill(content / "job", package, replace(settings, distcc_hosts=""), replace(materials, compile=None))

    def _run(self, connection: Connection, name: str, limits: Limits, output: Callable[[bytes], object]) -> str:
        """Let it build; returns why it failed, "" if it did not."""
        said = bytearray()

        def heard(data: bytes) -> None:
            said.extend(data)
            del said[:-_SAID]
            output(data)

        command = self.board.asked("build", name)
        try:
            status = connection.run(command, total_s=limits.total_s, silence_s=limits.silence_s, output=heard)
        except BuildFailed as error:
            return str(error)
        begun = text(connection, self.board.directory / "builds" / name / "job/out/marks")
        if not begun:
            what = f"the root cannot be entered on {self.board.name}"
            raise NodeLost(what, tail(said.decode(errors="replace")) or f"exit status {status}")
        return f"exit status {status}" if status else ""


def _result(connection: Connection, package: Package, place: PurePosixPath, directory: Path, failure: str) -> Built:
    out = place / "job/out"
    marks = text(connection, out / "marks")
    if failure:
        return Built(None, phases(marks), "", f"{unfinished(marks)}: {failure}", Usage())
    binpkg = directory / f"{package.pf}.gpkg.tar"
    connection.fetch(out / "packages" / f"{package.cpv}.gpkg.tar", binpkg, deadline_s=_FETCH_S)
    return Built(binpkg, phases(marks), "")


@contextmanager
def _connected(board: Board, directory: Path, own: Callable[[int], None]) -> Iterator[Connection]:
    """A connection to `board` that ends with the context, or with the process of which `own` is told."""
    stand_in = Child([find_program("sleep", "coreutils"), "infinity"], log_path=directory / "connection.log")
    with stand_in, _connection(board) as connection:
        own(stand_in.pid)
        threading.Thread(target=_close_with, args=(stand_in, connection), daemon=True).start()
        yield connection


def _connection(board: Board) -> Connection:
    return Connection(
        board.port,
        host_key=board.host_key,
        identity=board.identity,
        deadline_s=_CONNECT_S,
        address=board.address,
        keepalive_s=_KEEPALIVE_S,
    )


def _close_with(child: Child, connection: Connection) -> None:
    child.wait(None)
    connection.close()


@contextmanager
def _packed(source: Path) -> Iterator[Path]:
    """`source` as a tar file, whose files belong to root if it is a directory."""
    if source.is_file():
        yield source
        return
    with tempfile.TemporaryDirectory(prefix=".packed-", dir=source.parent) as scratch:
        archive = Path(scratch) / "tar"
        owner = ("--owner=0", "--group=0", "--numeric-owner")
        run([find_program("tar", "tar"), "-c", *owner, "-f", archive, "-C", source, "."], deadline_s=_PACK_S)
        yield archive
