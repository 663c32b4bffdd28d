"""The real Gentoo tree over which plans are compared with emerge's and timed."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from types import MappingProxyType

from cluster import target
from cluster.errors import InputError
from cluster.master.resolver import Request
from cluster.model import Repository
from cluster.node.installed import write_installed
from cluster.process import run

PROFILES = MappingProxyType(
    {
        "arm64": "default/linux/arm64/23.0/systemd",
        "arm": "default/linux/arm/23.0/armv7a_hf/systemd",
        "riscv": "default/linux/riscv/23.0/rv64/lp64d/systemd",
    }
)
"""For each architecture, which is also its keyword, the profile below profiles/."""

SEED = (
    "app-portage/elt-patches-20250718:0",
    "sys-devel/gettext-0.23.2:0",
    "sys-apps/systemd-261.1:0/2",
    "sys-libs/glibc-2.43-r2:2.2",
    "dev-lang/python-3.14.6_p1:3.14",
    "dev-lang/perl-5.44.0:0/5.44",
    "sys-libs/pam-1.7.2:0",
)
"""@system in an empty root is circular, in emerge as here. Having these installed breaks every circle."""

TREE = Path(__file__).parents[3] / "shared/gentoo-tree"
"""Where the snapshot lies by default: beside the checkout."""

_UNPACK_S = 120.0


def repository(tree: Path, scratch: Path) -> Repository:
    """The ebuild repository `tree`, or the one that `tree`/unpack.py lays out in `scratch`. Raises InputError."""
    if (tree / "profiles/repo_name").is_file():
        return Repository((tree / "profiles/repo_name").read_text().strip(), tree.absolute())
    if not (tree / "unpack.py").is_file():
        raise InputError(
            f"there is no Gentoo tree at {tree}",
            "name an ebuild repository that has metadata/md5-cache and the profiles of Gentoo with --tree DIR",
        )
    run([sys.executable, tree / "unpack.py", scratch], deadline_s=_UNPACK_S)
    return Repository("gentoo", scratch)


def make_conf(arch: str, *lines: str, stable: bool = False) -> str:
    """The make.conf of a system of stable packages, or also of those under test; `lines` come last."""
    keywords = arch if stable else f"{arch} ~{arch}"
    return "".join(f"{line}\n" for line in (f'ACCEPT_KEYWORDS="{keywords}"', 'ACCEPT_LICENSE="*"', *lines))


def request(
    tree: Repository,
    arch: str,
    installed: Path,
    *atoms: str,
    emptytree: bool = False,
    test: bool = False,
    conf: Iterable[str] = (),
    stable: bool = False,
) -> Request:
    """What plans `atoms` for `arch`, over `installed`, with the lines `conf` in make.conf."""
    return Request(
        target=target.load(arch),
        atoms=atoms,
        repositories=(tree,),
        profile=tree.location / "profiles" / PROFILES[arch],
        installed=installed,
        emptytree=emptytree,
        test=test,
        make_conf=make_conf(arch, *conf, stable=stable),
        manifests=False,
    )


def system(tree: Repository, arch: str, scratch: Path, *, stable: bool = False) -> Request:
    """What plans all of @system anew, over a stage with SEED, which is written to `scratch`."""
    installed = write_installed(SEED, scratch, arch)
    return request(tree, arch, installed, "@system", emptytree=True, stable=stable)
