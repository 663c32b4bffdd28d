"""Starting the `dask worker` of a host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.host.tls import Identity

_SPARE = 1
"""Threads besides those that build."""
_DEATH_S = 60
"""A worker that finds no scheduler for so long ends."""


@dataclass(frozen=True, slots=True)
class Post:
    """Where a worker serves, and as what; paths are the host's."""

    name: str
    """The host's."""
    nodes: Mapping[str, int]
    """How many at once, by target."""
    identity: Identity
    directory: Path
    """For what is built, and for Dask's own files."""
    speed: float = 1.0
    listen: str = ""
    """`tls://ADDRESS:PORT` to listen at; chosen by the worker if empty."""
    contact: str = ""
    """Where others reach what listens there, if that is another place: the end of a tunnel."""


def words(python: str | Path, scheduler: str, post: Post) -> list[str]:
    """The command that runs the worker of `post` for the scheduler at `scheduler`, with the host's `python`."""
    return [str(python), *arguments(scheduler, post)]


def arguments(scheduler: str, post: Post) -> list[str]:
    """What the host's Python is given to run the worker of `post` for the scheduler at `scheduler`.

    Its environment is to have DASK_CONFIG, the path of `dask.yaml` beside `cluster.host.worker`. It ends with status 0
    when its connection is lost, and the host may be had again, and with 1 if there is no scheduler.
    """
    resources = ",".join(f"node-{target}={count}" for target, count in post.nodes.items())
    listen = ["--listen-address", post.listen] if post.listen else []
    contact = ["--contact-address", post.contact] if post.contact else []
    identity = post.identity
    return [
        *("-m", "dask", "worker", scheduler, *listen, *contact),
        *("--tls-ca-file", str(identity.authority), "--tls-cert", str(identity.certificate)),
        *("--tls-key", str(identity.key), "--no-nanny", "--no-dashboard", "--memory-limit", "0"),
        *("--nthreads", str(sum(post.nodes.values()) + _SPARE), "--resources", resources),
        *("--local-directory", str(post.directory), "--death-timeout", str(_DEATH_S)),
        *("--preload", "cluster.host.worker", "--host-name", post.name, "--speed", f"{post.speed:g}"),
        *("--directory", str(post.directory)),
    ]
