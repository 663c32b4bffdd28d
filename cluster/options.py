"""Options that verbs share, and the session that they make."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console

from cluster import config, paths, target, userconfig
from cluster.errors import InputError
from cluster.master import trees as ebuild_trees
from cluster.master.resolver import Order
from cluster.master.session import Session
from cluster.model import Repository

_REPOSITORY = "demo"
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TIME = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_WIDTH = 110  # of tables in a log, which has no width of its own


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Common:
    """Options that every verb takes."""

    config: Annotated[Path | None, Parameter(help="Your configuration file.")] = None
    state: Annotated[Path | None, Parameter(help="Where journal, logs and running nodes are kept.")] = None
    binhost: Annotated[Path | None, Parameter(help="The binhost's directory.")] = None
    json: Annotated[bool, Parameter(negative="", help="Print one JSON object, progress on stderr.")] = False
    debug: Annotated[bool, Parameter(negative="", help="Log commands, and show tracebacks.")] = False


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class What:
    """Options that say what is planned."""

    target: Annotated[
        list[str], Parameter(negative="", help="The architecture: a name from `cluster targets`; may be repeated.")
    ] = field(default_factory=list)
    variant: Annotated[list[str], Parameter(negative="", help="A variant of the configuration; may be repeated.")] = (
        field(default_factory=list)
    )
    repo: Annotated[list[str], Parameter(negative="", help="NAME=DIR, an ebuild repository; may be repeated.")] = field(
        default_factory=list
    )
    profile: Annotated[Path | None, Parameter(help="A profile's directory.")] = None
    portage: Annotated[str | None, Parameter(help="A directory like /etc/portage, for master and nodes.")] = None
    installed: Annotated[Path | None, Parameter(help="A /var/db/pkg to take as what the stage has.")] = None
    emptytree: Annotated[bool, Parameter(negative="", help="Plan everything anew.")] = False
    order: Annotated[Order, Parameter(help="Build with the newest dependencies, or as parallel as can be.")] = (
        Order.NEWEST
    )
    break_cycles: Annotated[
        bool, Parameter(negative="", help="Build packages of a circle twice, first with USE flags that break it.")
    ] = False
    stages: Annotated[Literal[1, 2], Parameter(help="2: build all once more, in a stage of what came out.")] = 1


KeepGoing = Annotated[
    bool, Parameter(negative="", help="Leave out what cannot be planned, name it, and exit with 2 if that is not all.")
]


def open_all(what: What, common: Common) -> tuple[Session, ...]:
    """A session for each target or variant that is asked for."""
    settings = config.load(common.config)
    chosen = _variants(what, settings)
    return tuple(_session(what, common, settings, name, chosen[name], alone=len(chosen) == 1) for name in chosen)


def open_one(what: What, common: Common) -> Session:
    """The one session that is asked for. Raises InputError where there are more."""
    opened = open_all(what, common)
    if len(opened) > 1:
        names = ", ".join(session.name for session in opened)
        raise InputError(f"this is for one target or variant at a time, not for {names}", "name one")
    return opened[0]


def _variants(what: What, settings: config.Config) -> dict[str, config.Variant]:
    """The variants that are asked for by their names; a target is one too."""
    if what.variant and what.target:
        raise InputError("--variant and --target exclude each other", "a variant names its target itself")
    for name in what.variant:
        if name not in settings.variants:
            known = ", ".join(settings.variants) or "none, write [variants.NAME] into your configuration"
            raise InputError(f"there is no variant {name!r}", f"variants: {known}")
    named = {name: settings.variants[name] for name in what.variant}
    return named or {name: config.Variant(target=name) for name in what.target or [settings.build.target]}


def _session(
    what: What, common: Common, settings: config.Config, name: str, variant: config.Variant, *, alone: bool
) -> Session:
    chosen = target.load(variant.target or settings.build.target)
    directories = paths.directories(common.state)
    user = userconfig.find(what.portage or variant.portage or settings.portage.directory, chosen.name)
    configured = variant.profile or settings.profile.path
    profile = what.profile or (Path(configured).expanduser() if configured else userconfig.profile(user))
    if what.installed is not None and not what.installed.is_dir():
        raise InputError(f"--installed {what.installed} is not a directory", "name a /var/db/pkg")
    own = common.binhost if common.binhost is None or alone else common.binhost / name
    return Session(
        config=settings,
        directories=directories,
        binhost=(own or directories.binhosts / name).absolute(),
        target=chosen,
        repositories=_repositories(what, settings, directories),
        profile=(profile or paths.data("profiles", chosen.profile)).absolute(),
        installed=what.installed.absolute() if what.installed else None,
        emptytree=what.emptytree,
        name=name,
        user=user,
        order=what.order,
        break_cycles=what.break_cycles,
        stages=what.stages,
    )


def trees_of(settings: config.Config, directories: paths.Directories) -> tuple[ebuild_trees.Tree, ...]:
    """The configured repositories, or the one that comes with the project."""
    configured = ebuild_trees.configured(settings.repositories, ebuild_trees.places(directories))
    return configured or (ebuild_trees.Tree(_REPOSITORY, "directory", paths.data("overlays", _REPOSITORY)),)


def _repositories(what: What, settings: config.Config, directories: paths.Directories) -> tuple[Repository, ...]:
    given = []
    for word in what.repo:
        name, equals, directory = word.partition("=")
        if not (name and equals and directory):
            raise InputError(f"--repo {word!r} is not NAME=DIR", "for example --repo mine=/home/me/overlay")
        given.append(Repository(name, Path(directory).absolute()))
    return tuple(given) or tuple(tree.repository for tree in trees_of(settings, directories))


def print_json(value: Any) -> None:
    """Print the one object that `--json` is answered with."""
    print(json.dumps(value, indent=1))


def console_for(common: Common) -> Console:
    """Where a person reads: stdout, or stderr where that is taken by JSON."""
    console = Console(stderr=common.json)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _WIDTH
    return console


def at_least_one(count: int, option: str = "--repeat") -> None:
    """Raise InputError unless `count`, given by `option`, is 1 or more."""
    if count < 1:
        raise InputError(f"{option} {count} is too few", "use at least 1")


def seconds(text: str, option: str) -> float:
    """The time `text`, as 90m or 5h, given by `option`. Raises InputError."""
    found = _TIME.fullmatch(text)
    if found is None or not float(found[1]):
        raise InputError(f"{option} {text!r} is no time", f"for example {option} 90m or 5h")
    return float(found[1]) * _UNITS[found[2]]
