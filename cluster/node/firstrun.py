"""Make a stage's image without a boot: its packages are configured in a chroot on a host that runs their programs.

`python -m cluster.node.firstrun SPEC.json` does what `cluster.node.rootfs` does, and in the root that one leaves
to the first boot. The files of a root have many owners: it is run by root, or in a user namespace with many users.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from cluster.node import disk, rootfs, roots
from cluster.process import run

_DEADLINE_S = 1200.0
_CONFIGURE = "/usr/lib/cluster/configure"
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
_OF_A_CONTAINER = frozenset({"dev", "proc", "run", "sys", "tmp"})
"""What of a root each container has of its own."""


def configure(tree: Path, directory: Path) -> str:
    """Run the guest's `configure` in the root in `tree`, which it changes; returns what it said.

    What the chroot is made of goes to the new `directory`. Raises CommandFailed.
    """
    links = {path.name: str(path.readlink()) for path in tree.iterdir() if path.is_symlink()}
    kept = {path.name: path for path in tree.iterdir() if path.name not in _OF_A_CONTAINER.union(links)}
    root = roots.Root({}, links, binds=kept)
    roots.prepare(root, directory)
    return run(roots.entering(root, directory, [_CONFIGURE]), deadline_s=_DEADLINE_S, env=_ENVIRONMENT)


def compose(spec: rootfs.Spec) -> None:
    """Turn a tar of extracted packages into the image of a configured root."""
    tree = rootfs.make_tree(spec)
    print(configure(tree, Path(spec.work) / "chroot"), flush=True)
    disk.make_ext4(tree, Path(spec.image), spec.size_mib)


if __name__ == "__main__":
    asked = rootfs.Spec(**json.loads(Path(sys.argv[1]).read_text()))
    try:
        compose(asked)
    finally:  # in this namespace alone may its files be removed
        shutil.rmtree(Path(asked.work) / "root", ignore_errors=True)
