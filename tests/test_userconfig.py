"""The user's own directory like /etc/portage: what is taken over, and what Portage and a job make of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from factories import package
from repos import write_repository

from cluster import target, userconfig
from cluster.errors import InputError
from cluster.master.refusal import ResolveError
from cluster.master.resolver import Request, resolve
from cluster.model import Cpv, Plan
from cluster.node.installed import write_installed
from cluster.node.job import Materials, Settings, fill

EBUILDS = {
    "app/a-1": {"IUSE": "x y", "RDEPEND": "app/b"},
    "app/b-1": {},
    "app/b-2": {},
    "app/c-1": {"KEYWORDS": "~arm64"},
}


def written(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def planned(tmp_path: Path, files: Mapping[str, str], *atoms: str) -> Plan:
    repository = write_repository(tmp_path / "repo", EBUILDS)
    user = written(tmp_path / "user", files)
    request = Request(
        target.load("arm64"),
        atoms,
        (repository,),
        repository.location / "profiles/arm64",
        write_installed((), tmp_path / "stage", "arm64"),
        make_conf=userconfig.make_conf(user, ""),
        user=user,
    )
    return resolve(request, tmp_path / "work")


def test_portage_reads_what_it_reads_on_a_gentoo_machine(tmp_path: Path) -> None:
    files = {
        "package.use/mine": "app/a x\n",
        "package.mask": ">=app/b-2\n",
        "package.accept_keywords": "app/c ~arm64\n",
        "sets/mine": "app/a\napp/c\n",
        "make.conf/10-first": 'USE="y"\n',
        "make.conf/20-second": 'USE="${USE} -x"\n',
        "make.conf/.hidden": 'USE="-y"\n',
        "repos.conf": "[nowhere]\nlocation = /nowhere\n",
    }
    plan = planned(tmp_path, files, "@mine")
    assert {package.cpv for package in plan.packages} == {"app/a-1", "app/b-1", "app/c-1"}
    assert plan.package(Cpv("app/a-1")).use == ("x", "y")


def test_what_was_taken_away_counts_no_longer(tmp_path: Path) -> None:
    assert planned(tmp_path, {"package.mask": ">=app/b-2\n"}, "app/b").packages[0].cpv == "app/b-1"
    (tmp_path / "user/package.mask").unlink()
    assert planned(tmp_path, {}, "app/b").packages[0].cpv == "app/b-2"


def test_a_mask_of_the_users_is_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(ResolveError, match=r"app/c-1 is masked by package.mask: take it from .*etc/portage/"):
        planned(tmp_path, {"package.mask": "app/c\n", "package.accept_keywords": "app/c ~arm64\n"}, "app/c")


def test_a_job_has_the_same_but_for_what_the_plan_decided(tmp_path: Path) -> None:
    user = written(
        tmp_path / "user",
        {
            "make.conf": 'CFLAGS="-O1"\n',
            "repos.conf": "[nowhere]\n",
            "package.use/mine": "app/a -x\n",
            "package.env": "app/a small\n",
            "env/small": 'CFLAGS="-Os"\n',
            "patches/app/a/one.patch": "--- a\n",
            "bashrc": "export MINE=1\n",
        },
    )
    repository = write_repository(tmp_path / "repo", EBUILDS)
    settings = Settings("c", repository.location / "profiles/arm64", (repository,), 1, user=user)
    settings = replace(settings, make_conf=userconfig.make_conf(user, 'LDFLAGS="-s"'))
    wanted = package("app/a-1", use=("x",), iuse=("x", "y"), ebuild=repository.location / "app/a/a-1.ebuild")
    (tmp_path / "job").mkdir()
    fill(tmp_path / "job", wanted, settings, Materials(tmp_path, {}, ""))
    portage = tmp_path / "job/portage"
    assert (portage / "package.use").read_text() == "=app/a-1 x -y\n"
    assert (portage / "env/small").read_text() == 'CFLAGS="-Os"\n'
    assert (portage / "patches/app/a/one.patch").is_file()
    assert (portage / "make.conf").read_text().startswith('CFLAGS="-O1"\nLDFLAGS="-s"\n')
    assert "nowhere" not in (portage / "repos.conf").read_text()
    bashrc = (portage / "bashrc").read_text()
    assert bashrc.startswith("export MINE=1\n")
    assert "_cluster_mark" in bashrc


def test_the_targets_name_may_be_part_of_its_place(tmp_path: Path) -> None:
    (tmp_path / "arm64").mkdir()
    assert userconfig.find(f"{tmp_path}/{{target}}", "arm64") == tmp_path / "arm64"
    assert userconfig.find("", "arm64") is None
    with pytest.raises(InputError, match=r"there is no directory .*/riscv: name one like /etc/portage with --portage"):
        userconfig.find(f"{tmp_path}/{{target}}", "riscv")


def test_its_profile_is_followed_and_must_lead_somewhere(tmp_path: Path) -> None:
    assert userconfig.profile(None) is None
    assert userconfig.profile(tmp_path) is None
    (tmp_path / "profiles").mkdir()
    (tmp_path / "make.profile").symlink_to("profiles")
    assert userconfig.profile(tmp_path) == tmp_path / "profiles"
    (tmp_path / "profiles").rmdir()
    with pytest.raises(InputError, match=r"make\.profile leads to no directory: link it to a profile"):
        userconfig.profile(tmp_path)
