"""What a node is given for one package."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from factories import package
from repos import write_repository

from cluster.model import Cpv, Distfile, Package, Repository
from cluster.node.job import Materials, Settings, environment, fill, idle_phases, make_conf, package_use, repos_conf

LIB, TOOL, OTHER = Cpv("dev-libs/lib-1.2"), Cpv("sys-apps/tool-3-r1"), Cpv("app-misc/other-4")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return write_repository(
        tmp_path / "overlay",
        {LIB: {}, TOOL: {}, OTHER: {}, "app-misc/foo-1.0": {"IUSE": "bar +baz"}, "app-misc/foo-2.0": {}},
        files={
            "app-misc/foo/files/fix.patch": "--- a\n+++ b\n",
            "eclass/cluster.eclass": "# eclass\n",
            "licenses/MIT": "MIT\n",
        },
    )


@pytest.fixture
def wanted(repository: Repository) -> Package:
    ebuild = repository.location / "app-misc/foo/foo-1.0.ebuild"
    distfile = Distfile("foo-1.0.tar.gz", 3, (), ())
    changes = {"use": ("bar",), "iuse": ("bar", "baz"), "ebuild": ebuild, "distfiles": (distfile,)}
    return package("app-misc/foo-1.0", LIB, TOOL, **changes)


@pytest.fixture
def settings(repository: Repository) -> Settings:
    return Settings("aarch64-linux-gnu", repository.location / "profiles/arm64", (repository,), jobs=3)


@pytest.fixture
def materials(tmp_path: Path) -> Materials:
    distfiles, binpkgs = tmp_path / "distfiles", tmp_path / "binhost"
    distfiles.mkdir()
    for name in ("foo-1.0.tar.gz", "foo-2.0.tar.gz"):
        (distfiles / name).write_text(name)
    files = {}
    for cpv in (LIB, TOOL, OTHER):
        files[cpv] = binpkgs / f"{cpv}-1.gpkg.tar"
        files[cpv].parent.mkdir(parents=True, exist_ok=True)
        files[cpv].write_text(cpv)
    return Materials(distfiles, files, "PACKAGES: 2\n")


@pytest.fixture
def disk(tmp_path: Path, wanted: Package, settings: Settings, materials: Materials) -> Path:
    directory = tmp_path / "job"
    directory.mkdir()
    fill(directory, wanted, settings, materials)
    return directory


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_exactly_the_required_binpkgs(disk: Path) -> None:
    assert files(disk / "binpkgs") == {"Packages", f"{LIB}.gpkg.tar", f"{TOOL}.gpkg.tar"}
    assert (disk / "binpkgs" / f"{LIB}.gpkg.tar").read_text() == LIB
    assert (disk / "binpkgs/Packages").read_text() == "PACKAGES: 2\n"


def test_what_an_image_has_is_not_on_the_jobs_disk(
    tmp_path: Path, wanted: Package, settings: Settings, materials: Materials
) -> None:
    (tmp_path / "job").mkdir()
    fill(tmp_path / "job", wanted, settings, replace(materials, prerequisites=tmp_path / "key.squashfs"))
    assert list((tmp_path / "job/binpkgs").iterdir()) == []
    environment = (tmp_path / "job/job.env").read_text()
    assert "COMPOSED=yes\n" in environment
    assert "PREREQUISITES=''\n" in environment


def test_a_prerequisite_that_the_host_lacks_is_an_error(
    tmp_path: Path, wanted: Package, settings: Settings, materials: Materials
) -> None:
    (tmp_path / "job").mkdir()
    with pytest.raises(KeyError):
        fill(tmp_path / "job", replace(wanted, requires=(Cpv("c/never-1"),)), settings, materials)


def test_exactly_the_packages_sources(disk: Path) -> None:
    assert files(disk / "distfiles") == {"foo-1.0.tar.gz"}


def test_only_the_packages_own_ebuild_directory(disk: Path) -> None:
    repo = disk / "repos/test"
    ebuilds = {name for name in files(repo) if name.endswith(".ebuild")}
    assert ebuilds == {"app-misc/foo/foo-1.0.ebuild", "app-misc/foo/foo-2.0.ebuild"}
    assert (repo / "app-misc/foo/files/fix.patch").exists()
    assert {"eclass/cluster.eclass", "licenses/MIT", "metadata/layout.conf", "profiles/repo_name"} <= files(repo)
    assert not (repo / "metadata/md5-cache").exists()


def test_the_metadata_that_the_plan_has_of_the_package(
    tmp_path: Path, wanted: Package, settings: Settings, materials: Materials
) -> None:
    (tmp_path / "job").mkdir()
    base = write_repository(tmp_path / "base", {"app-misc/foo-1.0": {}}, name="base")
    both = replace(settings, repositories=(base, *settings.repositories))
    fill(tmp_path / "job", replace(wanted, metadata="EAPI=8\n"), both, materials)
    assert files(tmp_path / "job/repos/test/metadata/md5-cache") == {"app-misc/foo-1.0"}
    assert (tmp_path / "job/repos/test/metadata/md5-cache/app-misc/foo-1.0").read_text() == "EAPI=8\n"
    assert not (tmp_path / "job/repos/base/metadata/md5-cache").exists()


def test_another_repository_brings_no_ebuild(
    tmp_path: Path, wanted: Package, settings: Settings, materials: Materials
) -> None:
    base = write_repository(tmp_path / "base", {"app-misc/foo-1.0": {}}, name="base")
    (tmp_path / "job").mkdir()
    fill(tmp_path / "job", wanted, replace(settings, repositories=(base, *settings.repositories)), materials)
    assert not [name for name in files(tmp_path / "job/repos/base") if name.endswith(".ebuild")]
    conf = (tmp_path / "job/portage/repos.conf").read_text()
    assert "main-repo = base\n" in conf
    assert "[test]\nlocation = /job/repos/test\n" in conf


def test_every_flag_is_pinned(disk: Path) -> None:
    assert (disk / "portage/package.use").read_text() == "=app-misc/foo-1.0 bar -baz\n"


def test_a_package_without_flags_pins_none() -> None:
    assert package_use(package("app-misc/foo-1.0")) == ""


def test_the_profile_is_the_one_in_the_repository(disk: Path) -> None:
    assert (disk / "portage/make.profile").readlink() == Path("/job/repos/test/profiles/arm64")
    assert not (disk / "profiles").exists()


def test_a_profile_outside_of_the_repositories_comes_along(
    tmp_path: Path, wanted: Package, settings: Settings, materials: Materials
) -> None:
    for name in ("base", "arm64"):
        (tmp_path / "own" / name).mkdir(parents=True)
        (tmp_path / "own" / name / "make.defaults").write_text(f'A="{name}"\n')
    (tmp_path / "job").mkdir()
    fill(tmp_path / "job", wanted, replace(settings, profile=tmp_path / "own/arm64"), materials)
    assert (tmp_path / "job/portage/make.profile").readlink() == Path("/job/profiles/arm64")
    assert files(tmp_path / "job/profiles") == {"base/make.defaults", "arm64/make.defaults"}


def test_the_guest_is_told_what_to_build(disk: Path) -> None:
    script = f'. {shlex.quote(str(disk))}/job.env; printf "%s\\n" "$CPV" "$EBUILD" "$PREREQUISITES"'
    told = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True).stdout.splitlines()
    assert told == [
        "app-misc/foo-1.0",
        "/job/repos/test/app-misc/foo/foo-1.0.ebuild",
        f"={LIB} ={TOOL}",
    ]
    assert (disk / "repos/test/app-misc/foo/foo-1.0.ebuild").exists()
    assert {"build", "portage/bashrc"} <= files(disk)
    assert (disk / "out").is_dir()


def test_prerequisites_keep_their_order() -> None:
    ebuild = Path("/r/c/x/x-1.ebuild")
    text = environment(package("c/x-1", "c/z-1", "c/a-1", "c/m-1", ebuild=ebuild), composed=False, fast_shell=False)
    assert "COMPOSED=''\n" in text
    assert "PREREQUISITES='=c/z-1 =c/a-1 =c/m-1'\n" in text


SOURCES = ("unpack", "prepare", "configure", "compile")


@pytest.mark.parametrize(
    ("metadata", "test", "idle"),
    [
        ("DEFINED_PHASES=compile install\nSRC_URI=a.tar\n", False, ("pretend", "test")),
        ("DEFINED_PHASES=-\nSRC_URI=a.tar\n", True, ("pretend",)),
        ("DEFINED_PHASES=compile pretend test\nSRC_URI=a.tar\n", False, ("test",)),
        ("DEFINED_PHASES=pretend\nSRC_URI=a.tar\n", True, ()),
        ("DEFINED_PHASES=-\n", False, ("pretend", *SOURCES, "test")),
        ("DEFINED_PHASES=unpack install\n", True, ("pretend", "prepare", "configure", "compile")),
        ("", False, ("test",)),
        ("", True, ()),
    ],
)
def test_phases_that_do_nothing(metadata: str, test: bool, idle: tuple[str, ...]) -> None:
    assert idle_phases(package("c/x-1", metadata=metadata), test=test, hooked=False) == idle


def test_where_hooks_may_run_the_phases_of_sources_begin() -> None:
    meta = package("c/x-1", metadata="DEFINED_PHASES=-\n")
    assert idle_phases(meta, test=False, hooked=True) == ("pretend", "test")


@pytest.mark.parametrize(
    ("place", "hooked"),
    [
        ("", False),
        ("overlay/profiles/arm64/profile.bashrc", True),
        ("user/bashrc", True),
        ("user/patches/app-misc/a.patch", True),
        ("user/patches/other/a.patch", False),
        ("user/package.use", False),
    ],
)
def test_hooks_are_looked_for_where_portage_does(
    tmp_path: Path, wanted: Package, settings: Settings, materials: Materials, place: str, hooked: bool
) -> None:
    (tmp_path / "user").mkdir()
    if place:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text("")
    (tmp_path / "filled").mkdir()
    meta = replace(wanted, metadata="DEFINED_PHASES=-\n", distfiles=())
    chosen = replace(settings, user=tmp_path / "user", skip_idle_phases=True)
    fill(tmp_path / "filled", meta, chosen, materials)
    env = (tmp_path / "filled/job.env").read_text()
    assert ("configure" in env.partition("IDLE_PHASES=")[2]) == (not hooked)


def parsed(text: str) -> dict[str, str]:
    """What a shell, and so Portage, makes of a make.conf."""
    names = ("CHOST", "MAKEOPTS", "FEATURES", "DISTCC_HOSTS", "FETCHCOMMAND", "PKGDIR", "CFLAGS", "DISTCC_LOG")
    show = "".join(f'printf "%s\\0" "${{{name}-unset}}";' for name in names)
    told = subprocess.run(["env", "-i", "sh", "-c", text + show], capture_output=True, text=True, check=True).stdout
    return dict(zip(names, told.split("\0"), strict=False))


def test_make_conf_without_distcc(settings: Settings) -> None:
    values = parsed(make_conf(settings))
    assert values["CHOST"] == "aarch64-linux-gnu"
    assert values["MAKEOPTS"] == "-j3"
    assert values["PKGDIR"] == "/job/binpkgs"
    assert values["FETCHCOMMAND"] == "/bin/false"
    assert not {"distcc", "test"} & set(values["FEATURES"].split())
    assert values["DISTCC_HOSTS"] == values["DISTCC_LOG"] == "unset"


def test_make_conf_with_distcc_and_tests(settings: Settings) -> None:
    values = parsed(make_conf(replace(settings, distcc_hosts="10.0.2.2:3632/8", test=True)))
    assert {"distcc", "test"} <= set(values["FEATURES"].split())
    assert values["DISTCC_HOSTS"] == "10.0.2.2:3632/8"
    assert values["DISTCC_LOG"] == "/job/out/distcc.log"


def test_the_users_lines_come_first_and_cannot_undo_the_jobs(settings: Settings) -> None:
    values = parsed(make_conf(replace(settings, make_conf='CFLAGS="-O1"\nPKGDIR="/mine"')))
    assert values["CFLAGS"] == "-O1"
    assert values["PKGDIR"] == "/job/binpkgs"


def test_repos_conf_turns_syncing_off(settings: Settings) -> None:
    assert repos_conf(settings.repositories).count("auto-sync = no") == 1
