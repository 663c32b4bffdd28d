"""Reading binary packages, and the database entries of installed ones, which Portage itself reads back."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import binpkgs
import portage
import pytest
from portage.dbapi.vartree import _read_metadata_file

from cluster.master.gpkg import GpkgError, installed_entry, opened, package_name, portage_user
from cluster.model import Cpv


@pytest.fixture
def lib(tmp_path: Path) -> Path:
    items = [binpkgs.regular("usr/b", b"b"), binpkgs.regular("usr/a", b"a")]
    return binpkgs.gpkg(
        tmp_path / "lib.gpkg.tar", "app/lib-1-r2", items, SLOT="0/7", USE="arm64  x", RDEPEND="a/b\n c/d"
    )


def test_opened_reads_metadata_and_files_in_any_order(lib: Path) -> None:
    with opened(lib) as package:
        assert package.cpv == "app/lib-1-r2"
        assert package.value("RDEPEND") == "a/b c/d"
        assert package.value("NEVER") == ""
        assert package.md5 == hashlib.md5(lib.read_bytes()).hexdigest()
        streams = [package.image.extractfile(f"image/usr/{name}") for name in "ab"]
        assert [stream.read() for stream in streams if stream] == [b"a", b"b"]


@pytest.mark.parametrize("length", [0, 100, 2000])
def test_opened_takes_no_part_of_a_file(lib: Path, length: int) -> None:
    lib.write_bytes(lib.read_bytes()[:length])
    with pytest.raises(GpkgError, match=r"lib\.gpkg\.tar is not a sound GPKG"), opened(lib):
        pass


def test_portage_reads_an_installed_entry(tmp_path: Path, lib: Path) -> None:
    entry = tmp_path / "root/var/db/pkg/app/lib-1-r2"
    entry.mkdir(parents=True)
    with opened(lib) as package:
        for name, text in installed_entry(package, "dir /usr\n", 12, binpkgs.BUILT).items():
            (entry / name).write_bytes(text)
    os.utime(entry, (binpkgs.BUILT, binpkgs.BUILT))
    snapshot = _read_metadata_file(str(entry / "metadata"))
    assert snapshot["COUNTER"] == "12"
    assert snapshot["RDEPEND"] == "a/b c/d"

    root = str(tmp_path / "root")
    env = {"PORTAGE_REPOSITORIES": "", **portage_user()}
    settings = portage.config(config_root=root, target_root=root, eprefix="", local_config=False, env=env)
    database = portage.vartree(settings=settings).dbapi
    assert database.match("app/lib:0/7") == ["app/lib-1-r2"]
    assert database.aux_get("app/lib-1-r2", ["COUNTER", "RDEPEND"]) == ["12", "a/b c/d"]
    assert database._dblink("app/lib-1-r2").getcontents() == {f"{root}/usr": ("dir",)}


def test_package_name_has_no_version() -> None:
    assert package_name(Cpv("dev-lang/python-exec-2.4.10-r1")) == "dev-lang/python-exec"
