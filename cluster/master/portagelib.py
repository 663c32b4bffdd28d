"""Portage as a library: one target's configuration, opened in a directory of its own.

What Portage says goes to a string, what it knows comes out as frozen values. Portage keeps
process-wide state (its user and group, its standard streams), so one configuration is open
at a time.
"""

from __future__ import annotations

import configparser
import hashlib
import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import portage
import portage.data
from _emerge.create_depgraph_params import create_depgraph_params
from _emerge.depgraph import backtrack_depgraph, get_masking_status
from _emerge.Package import Package
from _emerge.RootConfig import RootConfig
from portage._sets import SETPREFIX, load_default_config
from portage._sets.files import StaticFileSet
from portage._sets.ProfilePackageSet import ProfilePackageSet
from portage._sets.profiles import PackagesSystemSet
from portage.cache.cache_errors import CacheError
from portage.dep import Atom, match_from_list
from portage.eclass_cache import hashed_path
from portage.exception import (
    CorruptionKeyError,
    InvalidAtom,
    InvalidDependString,
    PortageException,
    PortageKeyError,
)
from portage.output import nocolor
from portage.package.ebuild import doebuild
from portage.package.ebuild._config.special_env_vars import environ_filter
from portage.package.ebuild.getmaskingreason import getmaskingreason
from portage.repository.config import _gen_valid_repo, parse_layout_conf
from portage.util import getconfig
from portage.util.configparser import SafeConfigParser, read_configs
from portage.versions import _pkg_str

from cluster import userconfig
from cluster.errors import InputError
from cluster.master.solution import Node, Solution, Unmet, Unsolved, solution_of, unsolved_of
from cluster.model import Repository

_FEATURES = "-sandbox -usersandbox -userpriv -userfetch -usersync -news -merge-sync -binpkg-multi-instance"
_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
_DIGEST_LENGTHS = MappingProxyType({"BLAKE2B": 128, "SHA512": 128, "SHA256": 64})
_open_lock = threading.RLock()

PortageError: type[Exception] = PortageException
"""Whatever Portage raises of its own accord."""


@dataclass(slots=True)
class Said:
    """What Portage printed while `listening`, without colours; complete when the context is left."""

    text: str = ""


@contextmanager
def listening() -> Iterator[Said]:
    """Collect what Portage, and the bash that reads an ebuild for it, print.

    Descriptors 1 and 2 are turned too: Portage's forked children know no other way, for
    they close every copy with a higher number before they set it up (_setup_pipes).
    """
    said = Said()
    streams = sys.stdout, sys.stderr
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as file:
        for stream in streams:
            stream.flush()
        kept = os.dup(1), os.dup(2)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.stdout = sys.stderr = file
        try:
            yield said
        finally:
            file.flush()
            sys.stdout, sys.stderr = streams
            for descriptor, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, descriptor)
                os.close(copy)
            file.seek(0)
            said.text = file.read()


def _first_words(said: str) -> str:
    """What a failed ebuild said before its call stack, each line once, without the frame around it."""
    lines = (line.lstrip(" *!").strip() for line in said.partition("Call stack:")[0].splitlines())
    frame = ("Messages for package", "ERROR:", "error sourcing ebuild")
    words = (line.removeprefix("aux_get(): ") for line in lines if line and not line.startswith(frame))
    return " | ".join(dict.fromkeys(words))


@dataclass(frozen=True, slots=True)
class Place:
    """The directory a configuration lives in, and what it is made from.

    etc/portage/       the user's own, with make.conf and make.profile (a link)
    var/db/pkg         a link to `installed`
    var/cache/edb/     metadata of ebuilds, kept for the next time
    var/tmp/ distfiles/ binpkgs/
    """

    root: Path
    repositories: tuple[Repository, ...]
    profile: Path
    installed: Path
    make_conf: str = ""
    test: bool = False
    user: Path | None = None
    """The user's own directory like /etc/portage."""
    package_use: tuple[str, ...] = ()
    """Lines for package.use, after the user's own."""
    depcache: Path | None = None
    """In the place of var/cache/edb/dep."""

    def write(self) -> None:
        """Write the directory."""
        config = self.root / "etc/portage"
        shutil.rmtree(config, ignore_errors=True)
        for directory in (config, self.root / "var/db", self.root / "var/tmp", self._depcache):
            directory.mkdir(parents=True, exist_ok=True)
        userconfig.lay(self.user, config)
        userconfig.add(config / "package.use", self.package_use)
        (config / "make.conf").write_text(self.make_conf)
        _link(config / "make.profile", self.profile)
        _link(self.root / "var/db/pkg", self.installed)

    @property
    def _depcache(self) -> Path:
        return self.depcache or self.root / "var/cache/edb/dep"

    @property
    def environment(self) -> dict[str, str]:
        """The whole environment Portage sees: nothing of the caller's, nothing of the host's /etc."""
        return {
            "PATH": _PATH,
            "PORTAGE_CONFIGROOT": str(self.root),
            "ROOT": str(self.root),
            "SYSROOT": str(self.root),
            "EPREFIX": "",
            "PORTAGE_REPOSITORIES": repositories_conf(self.repositories),
            "PORTAGE_TMPDIR": str(self.root / "var/tmp"),
            "PORTAGE_DEPCACHEDIR": str(self._depcache),
            "DISTDIR": str(self.root / "distfiles"),
            "PKGDIR": str(self.root / "binpkgs"),
            "FEATURES": f"{_FEATURES} test" if self.test else _FEATURES,
            "NOCOLOR": "true",
            "PORTAGE_ELOG_SYSTEM": "",  # else Portage prints what ebuilds complained of when the process ends
        }


def repositories_conf(repositories: Sequence[Repository]) -> str:
    """repos.conf for `repositories`: the first is the main one, a later one wins over an earlier."""
    sections = [f"[DEFAULT]\nmain-repo = {repositories[0].name}\n"] if repositories else []
    for priority, repository in enumerate(repositories):
        location = str(repository.location.resolve()).replace("%", "%%")
        sections.append(f"[{repository.name}]\nlocation = {location}\npriority = {priority}\nauto-sync = no\n")
    return "\n".join(sections)


def masters(repository: Repository) -> tuple[str, ...]:
    """The repositories that `repository` names as its masters."""
    layout, _ = parse_layout_conf(str(repository.location.resolve()), repository.name)
    return tuple(layout["masters"] or ())


def valid_repository(name: str) -> bool:
    """Whether Portage takes `name` for a repository's as it is."""
    return bool(_gen_valid_repo(name) == name)


def config_problem(file: Path) -> str:
    """What is wrong with a file of the kind of make.conf and make.defaults; "" when nothing is."""
    problem = ""
    with listening() as said:
        try:
            getconfig(str(file), tolerant=False, allow_sourcing=True, expand=False)
        except (PortageException, ValueError) as error:
            problem = str(error)
    # Of an open quotation Portage says the line only aloud, and it is the file's last.
    return (said.text.strip() or problem).replace(f'"{file}", ', "") if problem else ""


def sets_problem(repository: Repository) -> str:
    """What is wrong with the sets.conf of `repository`; "" when nothing is, or it has none."""
    file = repository.location / "sets.conf"
    try:
        read_configs(SafeConfigParser(), [str(file)] if file.is_file() else [])
    except (configparser.Error, ValueError) as error:
        return " ".join(str(error).replace(f"file: '{file}', ", "").split())
    return ""


def _link(path: Path, to: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(to.resolve())


@dataclass(frozen=True, slots=True)
class Source:
    """A file of SRC_URI, with the size and digests of the Manifest (none when it has no entry)."""

    name: str
    uris: tuple[str, ...]
    size: int = 0
    digests: tuple[tuple[str, str], ...] = ()

    @property
    def is_checked(self) -> bool:
        """Whether there are digests, and each is as long as its kind is."""
        return bool(self.digests) and all(_is_digest(kind, value) for kind, value in self.digests)


def _is_digest(kind: str, value: str) -> bool:
    length = _DIGEST_LENGTHS.get(kind)
    return length is None or re.fullmatch(f"[0-9a-f]{{{length}}}", value, re.IGNORECASE) is not None


@dataclass(slots=True)
class Target:
    """An open configuration. Its questions are answered by Portage, in Portage's terms."""

    place: Place
    settings: Any
    trees: Any
    _mirrors: dict[str, list[str]] = field(default_factory=dict)
    _variables: dict[str, str] = field(default_factory=dict)
    _ebuilds: dict[tuple[str, str | None], Path] = field(default_factory=dict)
    _shunned: set[str] = field(default_factory=set)

    @property
    def _root_config(self) -> Any:
        return self.trees[self.settings["EROOT"]]["root_config"]

    @property
    def _portdb(self) -> Any:
        return self.trees[self.settings["EROOT"]]["porttree"].dbapi

    @property
    def arch(self) -> str:
        """The keyword of the profile's architecture, or ""."""
        return str(self.settings.get("ARCH", ""))

    @property
    def has_profile(self) -> bool:
        """Whether the profile could be parsed: Portage goes on without one that could not."""
        return bool(self.settings.profiles)

    @property
    def categories(self) -> frozenset[str]:
        """Those that a repository's profiles/categories names."""
        return frozenset(self.settings.categories)

    def names(self) -> list[str]:
        """CATEGORY/NAME of everything that has an ebuild."""
        return list(self._portdb.cp_all())

    def sets(self) -> list[str]:
        """The sets that an ebuild repository or the profile defines."""
        kinds = (StaticFileSet, ProfilePackageSet, PackagesSystemSet)
        known = self._root_config.setconfig.getSets()
        return sorted(name for name, value in known.items() if isinstance(value, kinds))

    def repository_sets(self) -> list[str]:
        """The sets that an ebuild repository defines, those of the profile left out."""
        known = self._root_config.setconfig.getSets()
        return sorted(name for name, value in known.items() if isinstance(value, StaticFileSet))

    def has_set(self, name: str) -> bool:
        """Whether there is a set `name`, defined by whom ever."""
        return name in self._root_config.setconfig.getSets()

    def members(self, name: str) -> tuple[list[str], list[tuple[str, str]]]:
        """The atoms of set `name` and of those in it, sorted, and what of it is no atom or set, with the reason.

        Portage passes over such lines in silence. A reason is said after its subject: `is …`.
        """
        known = self._root_config.setconfig.getSets()
        atoms: set[str] = set()
        problems: list[tuple[str, str]] = []
        inside = [name]
        for one in inside:
            if one not in known:
                problems.append((f"{SETPREFIX}{one}", f"is in set {SETPREFIX}{name} and is no set"))
                continue
            problems.extend(_set_problems(one, known[one]))
            atoms.update(map(str, known[one].getAtoms()))
            nested = sorted(word.removeprefix(SETPREFIX) for word in known[one].getNonAtoms() if word[:1] == SETPREFIX)
            inside.extend(other for other in nested if other not in inside)
        return sorted(atoms), problems

    def out_of_reach(self, atom: str, wanted_by: str = "") -> Unmet | None:
        """`atom` as what nothing satisfies, if that is certain without a look at dependencies and USE."""
        if "/" not in atom.partition(":")[0]:
            return None
        parsed = Atom(atom, allow_repo=True)
        installed = self.trees[self.settings["EROOT"]]["vartree"].dbapi
        provided = parsed.cp in self.settings.pprovideddict
        if provided or self.visible(atom) or installed.match(parsed.without_use):
            return None
        return Unmet(str(parsed), str(parsed.without_use), str(parsed.cp), wanted_by, (), atom)

    def versions(self, atom: str) -> list[str]:
        """Every package that has an ebuild and matches `atom` but for its USE part, oldest first."""
        parsed = Atom(atom, allow_repo=True).without_use
        return [str(cpv) for cpv in self._portdb.xmatch("match-all-cpv-only", parsed)]

    def visible(self, atom: str) -> list[str]:
        """Those of `versions` that nothing masks."""
        parsed = Atom(atom, allow_repo=True).without_use
        return [str(cpv) for cpv in self._portdb.xmatch("match-visible", parsed)]

    def masks(self, cpv: str) -> list[str]:
        """What masks `cpv`, as Portage says it: `~arm64 keyword`, `package.mask`, `EULA license(s)`."""
        keys = list(Package.metadata_keys)
        package = Package(
            cpv=cpv,
            metadata=zip(keys, self._portdb.aux_get(cpv, keys), strict=True),
            root_config=self._root_config,
            type_name="ebuild",
            built=False,
            installed=False,
        )
        return [str(reason) for reason in get_masking_status(package, self.settings, self._root_config)]

    def mask_file(self, cpv: str) -> str:
        """The package.mask file that masks `cpv`, or ""."""
        found = getmaskingreason(cpv, settings=self.settings, portdb=self._portdb, return_location=True)
        return str(found[1] or "") if found else ""

    def complaint(self, cpv: str, repository: str | None = None) -> str:
        """What is wrong with the ebuild of `cpv` when it cannot be sourced; "" when it can."""
        ebuild = self.ebuild(cpv, repository)
        if not ebuild.is_file():
            return "it is a directory" if ebuild.is_dir() else "it is a link that leads nowhere"
        # Portage fails in silence where it has said why before.
        self._portdb._broken_ebuilds.discard(str(ebuild))
        doebuild._doebuild_broken_ebuilds.discard(str(ebuild))
        doebuild._doebuild_broken_manifests.discard(str(ebuild.parent / "Manifest"))
        with listening() as said:
            try:
                self._portdb.aux_get(cpv, ["SLOT"], myrepo=repository)
            except PortageKeyError:
                broken = True
            else:
                broken = False
        if not broken:
            return ""
        self._portdb._broken_ebuilds.add(str(ebuild))
        return _first_words(said.text).replace(f"{ebuild}: ", "") or "it cannot be sourced"

    def shun(self, cpv: str) -> bool:
        """Have Portage take the ebuild of `cpv` for one that cannot be read; False if it did before.

        It ends at a syntax error, but passes over an ebuild that dies.
        """
        ebuild = str(self.ebuild(cpv))
        if ebuild in self._shunned:
            return False
        self._shunned.add(ebuild)
        self._portdb._broken_ebuilds.add(ebuild)
        return True

    def passed_over(self) -> list[str]:
        """Every package whose ebuild Portage wanted to read and could not."""
        ebuilds = map(Path, sorted(self._portdb._broken_ebuilds))
        return [f"{ebuild.parent.parent.name}/{ebuild.stem}" for ebuild in ebuilds]

    def is_stale(self, cpv: str, repository: str) -> bool:
        """Whether the entry of `cpv` in its repository's metadata/md5-cache is there and cannot be used."""
        ebuild = self.ebuild(cpv, repository)
        tree = str(ebuild.parent.parent.parent)
        entries = Path(tree) / "metadata/md5-cache"
        if not entries.is_dir() or not os.path.lexists(entries / cpv):
            return os.path.lexists(entries) and not entries.is_dir()
        cache = self._portdb._pregen_auxdb.get(tree)
        if cache is None:
            return False
        try:
            entry = cache[cpv]
        except (KeyError, CacheError):
            return True
        known = self._portdb.repositories.get_repo_for_location(tree).eclass_db
        return not cache.validate_entry(entry, hashed_path(str(ebuild)), known)

    def ebuild(self, cpv: str, repository: str | None = None) -> Path:
        """The ebuild of `cpv`, a dangling link too."""
        place = self._ebuilds.get((cpv, repository))
        if place is None:
            place = self._ebuilds[cpv, repository] = self._find_ebuild(cpv, repository)
        return place

    def _find_ebuild(self, cpv: str, repository: str | None) -> Path:
        if found := self._portdb.findname(cpv, myrepo=repository):
            return Path(found)
        category, _, pf = cpv.partition("/")
        inside = f"{category}/{name(cpv).partition('/')[2]}/{pf}.ebuild"
        places = [one.location / inside for one in self.place.repositories if repository in (None, one.name)]
        return next((place for place in reversed(places) if os.path.lexists(place)), places[-1])

    def cache_entry(self, cpv: str, repository: str) -> str:
        """The text of metadata/md5-cache/CPV, with which Portage elsewhere need not source the ebuild.

        As portage.cache.flat_hash.md5_database writes it; what it is made from is checked by its MD5.
        """
        ebuild = self.ebuild(cpv, repository)
        tree = str(ebuild.parent.parent.parent)
        keys = sorted(portage.auxdbkeys)
        values = dict(zip(keys, map(str, self._portdb.aux_get(cpv, keys, mytree=tree)), strict=True))
        known = self._portdb.repositories.get_repo_for_location(tree).eclass_db.eclasses
        inherited = sorted(values.pop("INHERITED", "").split())
        values["_eclasses_"] = "\t".join(chain.from_iterable((name, known[name].md5) for name in inherited))
        values["_md5_"] = hashlib.md5(ebuild.read_bytes()).hexdigest()
        return "".join(f"{key}={value}\n" for key, value in values.items() if value)

    def variables(self, node: Node) -> dict[str, str]:
        """The final value of every variable that profile, make.conf or package.env sets for the build of `node`.

        `bashrc` stands for the files of that kind that Portage sources for it, by their text.
        """
        settings = self._own_settings(node)
        if settings is None:
            if not self._variables:
                self._variables.update(_variables(self.settings))
            return self._variables
        return _variables(settings)

    def _own_settings(self, node: Node) -> Any:
        """The settings of `node` where something of the configuration is for it alone, else None."""
        known = [self.settings._penvdict, *self.settings._pbashrcdict.values()]
        own = self.place.root / "etc/portage/env" / node.cp.partition("/")[0]
        if not any(node.cp in atoms for atoms in known) and not own.is_dir():
            return None
        settings = portage.config(clone=self.settings)
        settings.setcpv(node.cpv, mydb=self._portdb)
        return settings

    @property
    def use_expand(self) -> frozenset[str]:
        """The variables that are USE flags by another name."""
        words = (self.settings.get(name, "") for name in ("USE_EXPAND", "USE_EXPAND_UNPREFIXED"))
        return frozenset(" ".join(words).split())

    def sources(self, node: Node) -> list[Source]:
        """What the build of `node` fetches, in the order of its SRC_URI. Raises InputError if that is none."""
        ebuild = self.ebuild(node.cpv, node.repository)
        tree = ebuild.parent.parent.parent
        try:
            uris = self._portdb.getFetchMap(node.cpv, useflags=node.enabled, mytree=str(tree))
        except InvalidDependString as error:
            raise InputError(f"{node.cpv}: its SRC_URI is invalid", f"mend {ebuild}: {error}") from error
        if not uris:
            return []
        if (ebuild.parent / "Manifest").is_dir():
            raise InputError(f"{node.cpv}: {ebuild.parent}/Manifest is a directory", "put a file in its place")
        repository = self._portdb.repositories.get_repo_for_location(str(tree))
        known = repository.load_manifest(str(ebuild.parent), self.settings["DISTDIR"]).fhashdict.get("DIST", {})
        return [self._source(name, places, known.get(name)) for name, places in uris.items()]

    def _source(self, name: str, uris: Sequence[str], entry: Mapping[str, Any] | None) -> Source:
        expanded = tuple(chain.from_iterable(map(self._expand, uris)))
        if entry is None:
            return Source(name, expanded)
        digests = tuple(sorted((kind, str(value)) for kind, value in entry.items() if kind != "size"))
        return Source(name, expanded, int(entry["size"]), digests)

    def _expand(self, uri: str) -> list[str]:
        """`uri`, or the places that a mirror:// stands for. EAPI 8's fetch+ and mirror+ say who may mirror."""
        uri = uri.removeprefix("mirror+").removeprefix("fetch+")
        if not uri.startswith("mirror://"):
            return [uri]
        self._mirrors = self._mirrors or self.settings.thirdpartymirrors()
        mirror, _, path = uri.removeprefix("mirror://").partition("/")
        return [f"{base.rstrip('/')}/{path}" for base in self._mirrors.get(mirror, ())]

    def solve(self, atoms: Sequence[str], *, emptytree: bool = False) -> Solution | Unsolved:
        """What `emerge --pretend --with-bdeps=y ATOMS` would do in this target's root."""
        options: dict[str, Any] = {"--pretend": True, "--with-bdeps": "y", "--autounmask": "n"}
        if emptytree:
            options["--emptytree"] = True
        parameters = create_depgraph_params(options, None)
        try:
            solved, graph, _ = backtrack_depgraph(
                self.settings, self.trees, options, parameters, None, list(atoms), None
            )
        except CorruptionKeyError as error:
            return Unsolved(broken=str(error.value))
        if not solved:
            graph.display_problems()
            return unsolved_of(graph)
        return solution_of(graph)


@contextmanager
def opened(place: Place) -> Iterator[Target]:
    """Portage's view of `place`, which is written first.

    Portage's own load_emerge_config() would also load the host's configuration, and make
    its directories, for a second root to build in. Here the target is its own build root,
    as it is in a native node.
    """
    with _open_lock:
        nocolor()
        _be_portage()
        place.write()
        if problem := config_problem(place.root / "etc/portage/make.conf"):
            raise InputError("the lines for make.conf cannot be read", f"mend your make_conf or make.conf: {problem}")
        environment = place.environment
        root = str(place.root)
        settings = portage.config(config_root=root, target_root=root, sysroot=root, eprefix="", env=environment)
        settings.lock()
        settings._init_dirs()
        target = Target(place, settings, _trees(settings))
        _take_files_alone(target._portdb)
        try:
            yield target
        finally:
            target._portdb.close_caches()


def _take_files_alone(portdb: Any) -> None:
    """Have `portdb` take what is called like an ebuild and is no file for one that is not there.

    Portage waits for ever for the metadata of a directory: its process does not start, and
    _run_metadata_phase awaits what the process was to set.
    """
    find = portdb.findname2

    def findname2(*arguments: Any, **options: Any) -> Any:
        found = find(*arguments, **options)
        return found if found[0] and Path(found[0]).is_file() else (None, 0)

    portdb.findname2 = findname2


def _variables(settings: Any) -> dict[str, str]:
    # The layer `pkg` has package.env, and what the ebuild says of itself.
    names = set().union(*(settings.configdict[layer] for layer in ("defaults", "conf", "pkg")))
    names -= {*portage.auxdbkeys, "CATEGORY", "PF", "PORTAGE_USE"}
    values = {name: str(settings.get(name, "")) for name in names - environ_filter}
    texts = [Path(file).read_text(errors="replace") for file in settings._pbashrc if Path(file).is_file()]
    return {**values, "bashrc": "\n".join(texts)} if texts else values


def _be_portage() -> None:
    """Make the user that Portage gives its files to the one who runs it.

    By number: PORTAGE_USERNAME and PORTAGE_GRPNAME want names, which a container's user may not have.
    """
    for name, value in (("portage_uid", os.getuid()), ("portage_gid", os.getgid())):
        setattr(portage.data, name, value)
        portage.data._initialized_globals.add(name)


def _trees(settings: Any) -> Any:
    """What portage.create_trees() returns, with the target as the running root too."""
    root = settings["EROOT"]
    trees = portage._trees_dict()
    trees._target_eroot = trees._running_eroot = root
    tree = portage.util.LazyItemsDict()
    tree.addLazySingleton("virtuals", settings.getvirtuals)
    tree.addLazySingleton("vartree", portage.vartree, categories=settings.categories, settings=settings)
    tree.addLazySingleton("porttree", portage.portagetree, settings=settings)
    tree.addLazySingleton("bintree", portage.binarytree, pkgdir=settings["PKGDIR"], settings=settings)
    trees[root] = tree
    tree["root_config"] = RootConfig(settings, tree, load_default_config(settings, tree))
    return trees


def valid_atom(atom: str) -> bool:
    """Whether `atom` is an atom, with or without a category."""
    text = atom if "/" in atom.partition(":")[0] else _with_category(atom)
    try:
        parsed = Atom(text, allow_repo=True)
    except InvalidAtom:
        return False
    return not parsed.blocker and not (parsed.use and parsed.use.conditional)


def _with_category(atom: str) -> str:
    """`>=foo-1` as `>=null/foo-1`."""
    name = atom.lstrip("<>=~!")
    return f"{atom[: len(atom) - len(name)]}null/{name}"


def matching(atom: str, slots: Mapping[str, str]) -> list[str]:
    """Those of the packages in `slots`, each with its slot or "", that match `atom` but for its USE part.

    An atom without a category matches a name in every category. Of a package without a slot any will do.
    """
    packages = [_pkg_str(cpv, slot=slot or None, eapi="8") for cpv, slot in slots.items()]
    if "/" in atom.partition(":")[0]:
        return list(map(str, match_from_list(Atom(atom, allow_repo=True).without_use, packages)))
    parsed = Atom(_with_category(atom), allow_repo=True).without_use
    name = parsed.cp.partition("/")[2]
    categories = sorted({package.cp.partition("/")[0] for package in packages if package.cp.endswith(f"/{name}")})
    atoms = (Atom(str(parsed).replace("null/", f"{category}/", 1), allow_repo=True) for category in categories)
    return [str(cpv) for full in atoms for cpv in match_from_list(full, packages)]


def is_bound(atom: str) -> bool:
    """Whether `atom` has a slot operator that binds to the subslot at build time, as `:=` and `:0=` (PMS 8.3.3)."""
    return atom.partition("[")[0].endswith("=")


def _set_problems(name: str, members: Any) -> Iterator[tuple[str, str]]:
    """What Portage passes over in the file of a set."""
    file = Path(getattr(members, "_filename", ""))
    if isinstance(members, StaticFileSet) and not file.is_file():
        yield f"{SETPREFIX}{name}", f"is in {file}, which cannot be read"
    elif isinstance(members, StaticFileSet):
        members.getAtoms()  # loads it
        for error in dict.fromkeys(members.errors):
            line = re.search(r"line: (\d+)", error)
            if line is None:
                yield f"{SETPREFIX}{name}", f"is in {file}: {error}"
                continue
            # Portage's own words have the first word alone.
            text = file.read_text(errors="replace").splitlines()[int(line[1]) - 1].partition("#")[0].strip()
            what = text if text.isprintable() else repr(text)
            yield what, f"is line {line[1]} of set {SETPREFIX}{name} ({file}) and is no package atom"


def name(cpv: str) -> str:
    """CATEGORY/NAME of `cpv`."""
    return str(portage.versions.cpv_getkey(cpv))


def split(cpv: str) -> tuple[str, str, str, str]:
    """Category, name, version and revision (`r0` where there is none) of `cpv`."""
    category, name, version, revision = portage.catpkgsplit(cpv)
    return category, name, version, revision


def valid_cpv(text: str) -> bool:
    """Whether `text` is CATEGORY/NAME-VERSION."""
    parts = portage.catpkgsplit(text)
    return parts is not None and parts[0] != "null" and portage.isvalidatom(f"={text}")
