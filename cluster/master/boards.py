"""The machines of `[nodes.NAME]`: hosts of one node each, which is built on over ssh from this process."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from cluster import config, target
from cluster.errors import ClusterError, MachineError
from cluster.host.builder import Builder
from cluster.host.runs import Run
from cluster.master.progress import Reporter
from cluster.master.schedule.hosts import Host
from cluster.master.session import Session
from cluster.node import container, drivers, remote, unpacked
from cluster.node.node import Hardware
from cluster.target import Target


def find(session: Session, hardware: Hardware, live: Run, reporter: Reporter) -> tuple[tuple[Host, Builder], ...]:
    """Those that build for the session's target now, each as a host with what builds on it.

    Those that cannot are named in a warning.
    """
    boards = [_board(name, node) for name, node in session.config.nodes.items() if node.target == session.target.name]
    able = [board for board in boards if _is_able(board, session.target, reporter)]
    if not able:
        return ()
    reporter.step(f"looking for the stage as a directory, for {', '.join(board.name for board in able)}")
    provides, cache = target.load_recipe().provides, session.directories.cache
    tree = unpacked.ensure(hardware.stage, hardware.emulator, cache)
    root = container.tree_root(tree, None)
    speed = drivers.expected_speed("ssh", session.target.name)
    return tuple(
        (
            Host(board.name, (f"{board.name}:1",), speed),
            Builder(
                remote.SshDriver(board, tree, root, provides, cache),
                live,
                provides,
                composed=session.config.node.composed,
            ),
        )
        for board in able
    )


def _board(name: str, node: config.Board) -> remote.Board:
    host, port = node.place
    identity = Path(node.identity).expanduser() if node.identity else None
    return remote.Board(name, host, port, node.host_key, identity, PurePosixPath(node.directory))


def _is_able(board: remote.Board, wanted: Target, reporter: Reporter) -> bool:
    try:
        machine = remote.machine_of(board)
        if not wanted.runs_on(machine):
            raise MachineError(f"it is of {machine}, which runs no {wanted.name}")
    except (ClusterError, OSError) as error:
        reporter.warn(f"{board.name} builds nothing: {error}")
        return False
    return True
