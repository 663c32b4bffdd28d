"""Roots of layered directories on this machine's own kernel: what they are made of, and how one enters them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from cluster import paths
from cluster.process import find_program, run

_PROBE_S = 60.0
NAMESPACES = ("--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--net", "--uts", "--ipc")
OWN_USERS = ("--user", "--map-root-user")
"""Options of unshare(1) by which an ordinary user is root, and nobody else."""
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    # The namespace has one user: Portage is to give its files to no other.
    "PORTAGE_USERNAME": "root",
    "PORTAGE_GRPNAME": "root",
}
_PREREQUISITES = "run/prerequisites"  # where job/build looks for them


@dataclass(frozen=True, slots=True)
class Root:
    """What a container's root is made of."""

    layers: Mapping[str, tuple[Path, ...]]
    """For each directory of the root the directories it is layered of, the topmost first."""
    links: Mapping[str, str]
    """Symbolic links of the root."""
    registration: Path | None = None
    """A file of binfmt.d(5) that names the target's interpreter."""
    sealed: frozenset[str] = frozenset()
    """Those of the directories that nothing can be written to."""
    binds: Mapping[str, Path] = field(default_factory=dict)
    """Files and directories of the host, by their places in the root."""

    def moved(self, tree: Path, to: Path) -> Root:
        """This root where what is in `tree` is in `to`."""

        def place(path: Path) -> Path:
            return to / path.relative_to(tree) if path.is_relative_to(tree) else path

        return replace(self, layers={name: tuple(map(place, lower)) for name, lower in self.layers.items()})

    def over(self, layer: Path) -> Root:
        """This root with the prerequisites in `layer` (`cluster.node.composed`), as job/build lays them in a node."""
        entries = tuple(path / "db/pkg" for path in self.layers["var"] if (path / "db/pkg").is_dir())
        laid = {"usr": (layer / "usr", *self.layers["usr"]), "var/db/pkg": (layer / "installed", *entries)}
        return replace(
            self,
            layers={**self.layers, **laid},
            sealed=self.sealed.union(laid),
            binds={**self.binds, _PREREQUISITES: layer},
        )


def prepare(root: Root, directory: Path) -> None:
    """Write what stage-images/host/enter reads."""
    place = directory / "root"
    place.mkdir(parents=True)
    for name, to in root.links.items():
        (place / name).symlink_to(to)
    lines = [
        f"{name} {'ro' if name in root.sealed else 'rw'} {':'.join(map(str, lower))}\n"
        for name, lower in root.layers.items()
    ]
    (directory / "layers").write_text("".join(lines))
    (directory / "binds").write_text("".join(f"{name} {source}\n" for name, source in root.binds.items()))


def entering(root: Root, directory: Path, command: Iterable[str], users: Iterable[str] = ()) -> list[str | Path]:
    """The words that run `command` in `root`, for which `directory` is prepared, as root of the namespace of `users`.

    These are options of unshare(1); without any it takes one who may mount.
    """
    enter: list[str | Path] = ["sh", paths.data("stage-images", "host", "enter"), directory, root.registration or ""]
    return [find_program("unshare", "util-linux"), *users, *NAMESPACES, *enter, *command]


def open_up(directory: Path) -> None:
    """overlayfs leaves directories that only root could remove."""
    for path in directory.glob("work/*/work"):
        path.chmod(0o700)


def check(root: Root, directory: Path) -> None:
    """Run `true` in `root`, with scratch space in `directory`. Raises MachineError if that is not possible here."""
    prepare(root, directory)
    try:
        run(entering(root, directory, ["/bin/true"], OWN_USERS), deadline_s=_PROBE_S, env=ENVIRONMENT)
    finally:
        open_up(directory)
