"""A small ebuild repository, written from one dict: {"cat/foo-1": {"DEPEND": "cat/bar", "IUSE": "x"}}."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from cluster.model import Repository

Ebuilds = Mapping[str, Mapping[str, str]]
"""CATEGORY/NAME-VERSION to the variables that its ebuild sets.

`_inherit` names eclasses of `files`; `_body` is text put after all as it is.
"""

_DEFAULTS = {"EAPI": "8", "SLOT": "0", "KEYWORDS": "arm64", "LICENSE": "MIT", "DESCRIPTION": "a test"}

MAKE_DEFAULTS = """\
ARCH="arm64"
ACCEPT_KEYWORDS="arm64"
ACCEPT_LICENSE="MIT"
CHOST="aarch64-linux-gnu"
ELIBC="glibc"
KERNEL="linux"
IUSE_IMPLICIT="prefix"
USE_EXPAND="ELIBC KERNEL"
USE_EXPAND_IMPLICIT="ELIBC KERNEL"
USE_EXPAND_VALUES_ELIBC="glibc"
USE_EXPAND_VALUES_KERNEL="linux"
"""


def write_repository(
    root: Path, ebuilds: Ebuilds, *, name: str = "test", files: Mapping[str, str] | None = None
) -> Repository:
    """Write the repository and its profile `profiles/arm64`; `files` (path to text) come last, over the rest.

    The metadata cache is written too, for every ebuild without `_body`, so that no bash has
    to source it.
    """
    categories = sorted({cpv.partition("/")[0] for cpv in ebuilds})
    texts = {
        "metadata/layout.conf": "masters =\nthin-manifests = true\ncache-formats = md5-dict\n",
        "profiles/repo_name": f"{name}\n",
        "profiles/eapi": "8\n",
        "profiles/arch.list": "amd64\narm64\n",
        "profiles/categories": "".join(f"{category}\n" for category in categories),
        "profiles/arm64/eapi": "8\n",
        "profiles/arm64/make.defaults": MAKE_DEFAULTS,
    }
    for cpv, variables in ebuilds.items():
        texts.update(_ebuild(cpv, variables, files or {}))
    for path, text in {**texts, **(files or {})}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return Repository(name, root)


def _ebuild(cpv: str, variables: Mapping[str, str], files: Mapping[str, str]) -> dict[str, str]:
    category, _, pf = cpv.partition("/")
    values = {**_DEFAULTS, **variables}
    body = values.pop("_body", None)
    inherited = values.pop("_inherit", "").split()
    text = "".join(f'{key}="{value}"\n' for key, value in values.items())
    text += (f"inherit {' '.join(inherited)}\n" if inherited else "") + (body or "")
    written = {f"{category}/{pf.rpartition('-')[0]}/{pf}.ebuild": text}
    if body is None:
        digest = hashlib.md5(text.encode()).hexdigest()
        cache = {**values, "DEFINED_PHASES": "-", "_md5_": digest}
        if inherited:
            cache["INHERITED"] = " ".join(inherited)
            cache["_eclasses_"] = "\t".join(f"{name}\t{_eclass_md5(files, name)}" for name in inherited)
        written[f"metadata/md5-cache/{cpv}"] = "".join(f"{key}={value}\n" for key, value in sorted(cache.items()))
    return written


def _eclass_md5(files: Mapping[str, str], name: str) -> str:
    return hashlib.md5(files[f"eclass/{name}.eclass"].encode()).hexdigest()


def manifest(name: str, content: bytes) -> str:
    """A Manifest line for the source archive `name`."""
    blake2b, sha512 = hashlib.blake2b(content).hexdigest(), hashlib.sha512(content).hexdigest()
    return f"DIST {name} {len(content)} BLAKE2B {blake2b} SHA512 {sha512}\n"
