"""What a node is given for one package: a disk with sources, prerequisites, ebuild and settings.

job.env      what job/build reads
portage/     the node's /etc/portage
repos/NAME/  profiles, eclasses, the one package of the repository and its entry of metadata/md5-cache
profiles/    the profile, unless a repository holds it
distfiles/   the package's sources, already checked
binpkgs/     its prerequisites and nothing else, unless an image has them (cluster.node.composed)
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cluster import paths, userconfig
from cluster.model import Cpv, Package, Repository

MOUNT = PurePosixPath("/job")
OUT = MOUNT / "out"
CLIENT = "/usr/lib/cluster/bin"
"""Where every stage has the compile client, under the compilers' names."""

_FEATURES = (
    # No second user, sandbox or namespace in a computer that is thrown away after one package.
    "-sandbox -usersandbox -userpriv -userfetch -usersync -pid-sandbox -ipc-sandbox -network-sandbox -mount-sandbox "
    # Nor what only matters to a machine that lives on.
    "-news -merge-sync -merge-wait -ebuild-locks -binpkg-docompress -binpkg-multi-instance"
)
_OF_SOURCES = ("unpack", "prepare", "configure", "compile")
SHARED = ("profiles", "eclass", "metadata", "licenses")
"""The directories that a job has of each repository."""
LEFT_OUT = ("md5-cache", "glsa", "news", "dtd")
"""What is called so, at any depth of them, it has not."""


@dataclass(frozen=True, slots=True)
class CompileAccess:
    """How a job's compile client reaches the compile server."""

    address: str
    """ADDRESS:PORT, or the path of a socket."""
    token: str
    client: str = CLIENT
    """The directory that has the client under the compilers' names."""
    socket: Path | None = None
    """The host's, which is to be at `address`."""

    @property
    def exports(self) -> str:
        """Lines of shell for Portage's bashrc: guest/cc.c goes before every other compiler."""
        return (
            f"export CLUSTER_COMPILE={self.address} CLUSTER_COMPILE_TOKEN={self.token}\n"
            f"[[ ${{PATH}} == {self.client}:* ]] || export PATH={self.client}:${{PATH}}\n"
        )


@dataclass(frozen=True, slots=True)
class Materials:
    """What the host has for a job."""

    distfiles: Path
    """The directory of checked sources."""
    binpkgs: Mapping[Cpv, Path]
    """The file of every prerequisite."""
    index: str
    """A `Packages` index of exactly these; Portage trusts it and scans nothing."""
    compile: CompileAccess | None = None
    """None for no compile server."""
    prerequisites: Path | None = None
    """The image of them all; without one the node installs `binpkgs`."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What every job of a run shares."""

    chost: str
    profile: Path
    repositories: tuple[Repository, ...]
    jobs: int
    """make's -j."""
    distcc_hosts: str = ""
    """Empty for no offload."""
    fast_shell: bool = False
    """Whether /bin/sh is the stage's fast shell (stage-images/shell)."""
    skip_idle_phases: bool = False
    test: bool = False
    make_conf: str = ""
    """The user's own lines."""
    user: Path | None = None
    """The user's own directory like /etc/portage."""


def make_conf(settings: Settings) -> str:
    """The node's make.conf."""
    features = [_FEATURES]
    if settings.distcc_hosts:
        features.append("distcc")
    if settings.test:
        features.append("test")
    values = {
        "CHOST": settings.chost,
        "MAKEOPTS": f"-j{settings.jobs}",
        "FEATURES": " ".join(features),
        "DISTDIR": f"{MOUNT}/distfiles",
        "PKGDIR": f"{MOUNT}/binpkgs",
        "PORTAGE_TMPDIR": "/var/tmp",
        "BINPKG_FORMAT": "gpkg",
        "BINPKG_COMPRESS": "zstd",
        "BINPKG_COMPRESS_FLAGS": "-3",
        # Sources come with the job: a fetch in a node is a mistake, and is to fail at once.
        "FETCHCOMMAND": "/bin/false",
        "RESUMECOMMAND": "/bin/false",
        # Debian's files in the stage belong to no package of ours: to overwrite them is no collision.
        "COLLISION_IGNORE": "/usr /etc /lib /bin /sbin /var",
        # Debian's dash does not count lines, for which configure scripts would turn to bash.
        "CONFIG_SHELL": "/bin/sh",
        "CLEAN_DELAY": "0",
        "EMERGE_WARNING_DELAY": "0",
    }
    if settings.distcc_hosts:
        values |= {
            "DISTCC_HOSTS": settings.distcc_hosts,
            "DISTCC_DIR": "/var/tmp/distcc",
            "DISTCC_LOG": f"{OUT}/distcc.log",
            "DISTCC_SKIP_LOCAL_RETRY": "1",  # configure's failing tests are to fail once
            # One lost connection is not to cost a minute of remote compiles. With 0 the client never falls
            # back: it tries the dead host again until it is out of file descriptors, and aborts.
            "DISTCC_BACKOFF_PERIOD": "1",
        }
    lines = [f'{key}="{value}"\n' for key, value in values.items()]
    return settings.make_conf.rstrip("\n") + "\n" + "".join(lines)


def package_use(package: Package) -> str:
    """package.use that pins every flag of the package's IUSE."""
    if not package.iuse:
        return ""
    flags = (flag if flag in package.use else f"-{flag}" for flag in package.iuse)
    return f"={package.cpv} {' '.join(flags)}\n"


def repos_conf(repositories: tuple[Repository, ...]) -> str:
    """repos.conf for the repositories where a job has them."""
    sections = [f"[DEFAULT]\nmain-repo = {repositories[0].name}\n"]
    sections += [f"[{repo.name}]\nlocation = {MOUNT}/repos/{repo.name}\nauto-sync = no\n" for repo in repositories]
    return "\n".join(sections)


def idle_phases(package: Package, *, test: bool, hooked: bool) -> tuple[str, ...]:
    """The phases that by Portage's own account do nothing in a build of `package`, with its tests or without.

    It begins them all the same, and each takes up to a second in an emulated node. Of a package without sources the
    default functions (PMS 9.1) find nothing to unpack, patch, configure or make. Where a bashrc or a patch may be for
    it (`hooked`), who knows.
    """
    lines = dict(line.partition("=")[::2] for line in package.metadata.splitlines())
    if "DEFINED_PHASES" not in lines:  # PMS 7.4; what is not known may be defined
        return () if test else ("test",)
    defined = lines["DEFINED_PHASES"].split()
    sources = () if hooked or lines.get("SRC_URI") else _OF_SOURCES
    idle = tuple(phase for phase in ("pretend", *sources) if phase not in defined)
    return idle if test else (*idle, "test")


def _hooked(package: Package, settings: Settings) -> bool:
    """Whether shell code or patches of the profile's or the user's may have a part in the phases of `package`."""
    directories = [repo.location / "profiles" for repo in settings.repositories]
    if not settings.profile.is_relative_to(directories[0]):
        directories.append(settings.profile.parent)
    if any(next(directory.rglob("*.bashrc"), None) for directory in directories):
        return True
    own = ("bashrc", "package.bashrc", "env", f"patches/{package.category}", "profile")
    return settings.user is not None and any((settings.user / name).exists() for name in own)


def environment(package: Package, *, composed: bool, fast_shell: bool, idle: Sequence[str] = ()) -> str:
    """job.env: shell assignments. Prerequisites are either COMPOSED (`yes`), or named to be installed.

    `idle` are phases that are not to begin.
    """
    name = package.ebuild.parent.name
    ebuild = MOUNT / "repos" / package.repository / package.category / name / package.ebuild.name
    values: Mapping[str, str] = {
        "CPV": package.cpv,
        "EBUILD": str(ebuild),
        "COMPOSED": "yes" if composed else "",
        "PREREQUISITES": "" if composed else " ".join(f"={cpv}" for cpv in package.requires),
        "FAST_SHELL": "yes" if fast_shell else "",
        "IDLE_PHASES": " ".join(idle),
    }
    return "".join(f"{key}={shlex.quote(value)}\n" for key, value in values.items())


def _profile_place(settings: Settings) -> tuple[PurePosixPath, Path | None]:
    """Where the profile is in the node, and the directory to copy there if no repository has it."""
    for repo in settings.repositories:
        if settings.profile.is_relative_to(repo.location):
            return MOUNT / "repos" / repo.name / settings.profile.relative_to(repo.location), None
    return MOUNT / "profiles" / settings.profile.name, settings.profile.parent


def fill(directory: Path, package: Package, settings: Settings, materials: Materials) -> None:
    """Write the content of a job's disk into the empty `directory`."""
    fill_settings(directory, settings, make_conf(settings))
    composed = materials.prerequisites is not None
    idle: tuple[str, ...] = ()
    if settings.skip_idle_phases:
        idle = idle_phases(package, test=settings.test, hooked=_hooked(package, settings))
    text = environment(package, composed=composed, fast_shell=settings.fast_shell, idle=idle)
    (directory / "job.env").write_text(text)
    _pin_use(directory / "portage" / "package.use", package)
    with (directory / "portage" / "bashrc").open("a") as bashrc:
        bashrc.write(paths.data("stage-images", "job", "bashrc").read_text())
        bashrc.write(materials.compile.exports if materials.compile else "")
    shutil.copy(paths.data("stage-images", "job", "build"), directory / "build")
    for repo in settings.repositories:
        _copy_repository(repo, directory / "repos" / repo.name, package)
    (directory / "distfiles").mkdir()
    for distfile in package.distfiles:
        _link(materials.distfiles / distfile.name, directory / "distfiles" / distfile.name)
    binpkgs = directory / "binpkgs"
    binpkgs.mkdir()
    if composed:
        return
    (binpkgs / "Packages").write_text(materials.index)
    for cpv in package.requires:
        _link(materials.binpkgs[cpv], binpkgs / f"{cpv}.gpkg.tar")


def _pin_use(place: Path, package: Package) -> None:
    """Write package.use over the user's own, a file or a directory: what it says is in the plan."""
    if place.is_dir():
        shutil.rmtree(place)
    place.write_text(package_use(package))


def fill_settings(directory: Path, settings: Settings, make_conf: str) -> None:
    """Write the node's /etc/portage, and its profile unless a repository holds it."""
    (directory / "out").mkdir()
    portage = directory / "portage"
    portage.mkdir()
    userconfig.lay(settings.user, portage)
    (portage / "make.conf").write_text(make_conf)
    (portage / "repos.conf").write_text(repos_conf(settings.repositories))
    place, source = _profile_place(settings)
    (portage / "make.profile").symlink_to(place)
    if source is not None:
        shutil.copytree(source, directory / "profiles", symlinks=True)


def _copy_repository(repo: Repository, place: Path, package: Package) -> None:
    place.mkdir(parents=True)
    for name in SHARED:
        if (repo.location / name).is_dir():
            ignore = shutil.ignore_patterns(*LEFT_OUT)
            shutil.copytree(repo.location / name, place / name, symlinks=True, ignore=ignore)
    if repo.name == package.repository:
        source = package.ebuild.parent
        shutil.copytree(source, place / package.category / source.name, symlinks=True)
        if package.metadata:  # else the node sources the ebuild once more than it must
            entry = place / "metadata/md5-cache" / package.cpv
            entry.parent.mkdir(parents=True, exist_ok=True)
            entry.write_text(package.metadata)


def _link(source: Path, place: Path) -> None:
    """A hard link, or a copy where the file systems differ."""
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, place)
    except OSError:
        shutil.copy(source, place)
