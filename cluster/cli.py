"""The command line: `cluster VERB`. Exit 0 done, 1 could not run, 2 packages failed, 130 interrupted."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from cluster import answers, config, paths, report, target, treetable, userconfig
from cluster.bench import chart, emulation, gentoo, plans, size, starts, tables
from cluster.bench import nodes as node_bench
from cluster.drawing import formats
from cluster.errors import ClusterError, InputError
from cluster.master import binhost as binhosts
from cluster.master import building, planning, resolver, subject
from cluster.master import shape as shapes
from cluster.master import trees as ebuild_trees
from cluster.master.chains import why as find_chains
from cluster.master.impact import impact as find_impact
from cluster.master.resolver import Order
from cluster.master.session import Session
from cluster.model import Cpv, Plan, Repository
from cluster.node import kernel as kernels
from cluster.node import stage as stages

app = App(
    name="cluster",
    help="Build a Gentoo-like distribution for another architecture, one package per QEMU node.",
    suppress_keyboard_interrupt=False,  # run() has something to say about it
)
stage_app = App(name="stage", help="Stages: the root file systems that nodes boot.")
binhost_app = App(name="binhost", help="The directory of finished binary packages.")
app.command(stage_app)
app.command(binhost_app)
bench_app = App(name="bench", help="Measure what emulation costs, and what each of our levers brings.")
app.command(bench_app)
tree_app = App(name="tree", help="The ebuild repositories of the configuration.")
app.command(tree_app)

_REPOSITORY = "demo"
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


def _trees(settings: config.Config, directories: paths.Directories) -> tuple[ebuild_trees.Tree, ...]:
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
    return tuple(given) or tuple(tree.repository for tree in _trees(settings, directories))


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


def _open_all(what: What, common: Common) -> tuple[Session, ...]:
    """A session for each target or variant that is asked for."""
    settings = config.load(common.config)
    chosen = _variants(what, settings)
    return tuple(_session(what, common, settings, name, chosen[name], alone=len(chosen) == 1) for name in chosen)


def _open(what: What, common: Common) -> Session:
    opened = _open_all(what, common)
    if len(opened) > 1:
        names = ", ".join(session.name for session in opened)
        raise InputError(f"this is for one target or variant at a time, not for {names}", "name one")
    return opened[0]


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


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1))


def _console(common: Common) -> Console:
    console = Console(stderr=common.json)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _WIDTH
    return console


def _plans(
    opened: Sequence[Session], atoms: tuple[str, ...], keep_going: bool, *, sources: bool = False
) -> tuple[Plan, ...]:
    """The plans; what is wrong and does not stop them is said on stderr, which leaves stdout to the answer."""
    with _said_what_is_left_out():
        plans = planning.make_plans(opened, atoms, sources=sources, keep_going=keep_going)
    for session, made in zip(opened, plans, strict=True):
        if len(opened) > 1 and (made.left_out or made.warnings):
            print(f"{session.name}:", file=sys.stderr)
        report.beside(Console(stderr=True), made.left_out, made.warnings)
    return plans


def _plan(session: Session, atoms: tuple[str, ...], keep_going: bool, *, defaults: bool = False) -> Plan:
    """As `_plans`, for one."""
    with _said_what_is_left_out():
        made = planning.make_plan(session, atoms, sources=False, defaults=defaults, keep_going=keep_going)
    report.beside(Console(stderr=True), made.left_out, made.warnings)
    return made


@contextmanager
def _said_what_is_left_out() -> Iterator[None]:
    try:
        yield
    except resolver.NothingToPlan as error:
        report.beside(Console(stderr=True), error.left_out)
        raise


def _beside(made: Plan, keep_going: bool) -> dict[str, Any]:
    """What is added to the JSON of an answer about a plan that may do without something."""
    return report.beside_json(made) if keep_going else {}


def _code(made: Plan) -> int:
    return 2 if made.left_out else 0


@app.command
def plan(
    *atoms: str,
    keep_going: KeepGoing = False,
    reason: Annotated[bool, Parameter(negative="", help="Say why, one line for each package.")] = False,
    what: What | None = None,
    common: Common | None = None,
) -> int:
    """Show what `build` would do for ATOMS (packages and @sets), in order."""
    what, common = what or What(), common or Common()
    opened = _open_all(what, common)
    plans = _plans(opened, atoms, keep_going)
    show = report.plan_reasons if reason else report.plan_table
    if common.json:
        _print_json(_one_or_all([report.plan_json(each) for each in plans], opened))
        return max(map(_code, plans))
    for session, each in zip(opened, plans, strict=True):
        _heading(common, session, opened)
        show(_console(common), each)
    return max(map(_code, plans))


@app.command
def graph(
    *atoms: str,
    output: Annotated[Path | None, Parameter(help="Write the graph into this file.")] = None,
    format: Annotated[
        formats.Format | None, Parameter(help="Of the file; by default its suffix. Without --output, print it.")
    ] = None,
    keep_going: KeepGoing = False,
    what: What | None = None,
    common: Common | None = None,
) -> int:
    """Draw the dependencies of the plan for ATOMS (packages and @sets), and say what takes longest.

    Levels are columns in the picture: a package is built after all it needs on the levels before.
    """
    what, common = what or What(), common or Common()
    if format is not None and output is None and common.json:
        raise InputError(f"--format {format} and --json both want stdout", "give --format a file with --output")
    chosen = format or (formats.by_suffix(output) if output else None)
    session = _open(what, common)
    made = _plan(session, atoms, keep_going)
    found = shapes.shape(made, planning.past_seconds(session))
    drawn = formats.render(found, chosen, answers.title(made.packages, made.target)) if chosen else ""
    if output is not None:
        formats.write(output, drawn)
    if common.json:
        _print_json({**formats.as_json(found), **_beside(made, keep_going)})
    elif drawn and output is None:
        print(drawn, end="")
    else:
        answers.graph_summary(_console(common), found, output)
    return _code(made)


def _asked(package: str, atoms: tuple[str, ...], session: Session, keep_going: bool) -> tuple[Plan, Cpv]:
    made = _plan(session, atoms, keep_going, defaults=True)
    return made, subject.find(made, package)


@app.command
def why(
    package: str,
    /,
    *atoms: str,
    chains: Annotated[int, Parameter(help="How many chains at most.")] = 5,
    keep_going: KeepGoing = False,
    what: What | None = None,
    common: Common | None = None,
) -> int:
    """Show what pulls PACKAGE (an atom, or a name alone) into the plan for ATOMS.

    ATOMS default to every set of the repositories, or @system where they have none.
    """
    what, common = what or What(), common or Common()
    _at_least_one(chains, "--chains")
    made, cpv = _asked(package, atoms, _open(what, common), keep_going)
    answer = find_chains(made, cpv, chains)
    if common.json:
        _print_json({**answers.why_json(answer), **_beside(made, keep_going)})
    else:
        answers.why_tree(_console(common), answer)
    return _code(made)


@app.command
def impact(
    package: str,
    /,
    *atoms: str,
    keep_going: KeepGoing = False,
    what: What | None = None,
    common: Common | None = None,
) -> int:
    """Show what a change of PACKAGE (an atom, or a name alone) would rebuild of the plan for ATOMS, and for how long.

    ATOMS default to every set of the repositories, or @system where they have none.
    """
    what, common = what or What(), common or Common()
    session = _open(what, common)
    made, cpv = _asked(package, atoms, session, keep_going)
    answer = find_impact(made, cpv, planning.past_seconds(session))
    if common.json:
        _print_json({**answers.impact_json(answer), **_beside(made, keep_going)})
    else:
        answers.impact_table(_console(common), answer)
    return _code(made)


def _one_or_all(parts: Sequence[dict[str, Any]], opened: Sequence[Session]) -> Mapping[str, Any]:
    """The one of `parts` by itself; of several each under its session's name."""
    if len(parts) == 1:
        return parts[0]
    return {session.name: part for session, part in zip(opened, parts, strict=True)}


def _heading(common: Common, session: Session, opened: Sequence[Session]) -> None:
    if len(opened) > 1:
        _console(common).print(f"[bold]{escape(session.name)}[/]", highlight=False)


def _helped(session: Session, plain: bool, audit: float | None) -> Session:
    """The session with the help for nodes that `build`'s options ask for."""
    chosen = config.plain(session.config) if plain else session.config
    if audit is not None:
        if not 0 <= audit <= 100:
            raise InputError(f"--audit-compiles {audit:g} is no percentage", "use 0 to 100")
        chosen = chosen.model_copy(update={"compile": chosen.compile.model_copy(update={"audit_percent": audit})})
    return replace(session, config=chosen)


@app.command
def build(
    *atoms: str,
    nodes: Annotated[int | None, Parameter(help="QEMU nodes at once.")] = None,
    plain: Annotated[
        bool, Parameter(negative="", help="Give nodes no help: boot, emerge and compile in them.")
    ] = False,
    audit_compiles: Annotated[float | None, Parameter(help="Percent of compiles to do in the node as well.")] = None,
    keep_going: KeepGoing = False,
    what: What | None = None,
    common: Common | None = None,
) -> int:
    """Build ATOMS (packages and @sets) into the binhost."""
    what, common = what or What(), common or Common()
    opened = tuple(_helped(session, plain, audit_compiles) for session in _open_all(what, common))
    if nodes is not None:
        _at_least_one(nodes, "--nodes")
    console = _console(common)
    results = []
    for session, made in zip(opened, _plans(opened, atoms, keep_going, sources=True), strict=True):
        _heading(common, session, opened)
        usable = planning.over(session, made)
        with report.Reporter(console) as reporter:
            results.append(building.build(usable, made, nodes or session.config.build.nodes, reporter))
        if not common.json:
            report.summary(console, results[-1])
            report.beside(console, made.left_out)
    if common.json:
        _print_json(_one_or_all([report.build_json(result) for result in results], opened))
    return max(result.exit_code for result in results)


@app.command
def verify(*atoms: str, keep_going: KeepGoing = False, what: What | None = None, common: Common | None = None) -> int:
    """Let a fresh node install ATOMS from the binhost over HTTP, and run their programs."""
    what, common = what or What(), common or Common()
    session = _open(what, common)
    (made,) = _plans((session,), atoms, keep_going, sources=True)
    session = planning.over(session, made)
    console = _console(common)
    with report.Reporter(console) as reporter:
        proof = building.prove(session, made, reporter)
    if common.json:
        answer = {"installed": [p.cpv for p in made.packages], "ran": proof.ran, "failed": proof.failed}
        _print_json({**answer, **_beside(made, keep_going)})
    else:
        for program in proof.ran:
            console.print(f"   [green]ran[/] {escape(program)}", highlight=False)
        for program in proof.failed:
            console.print(f"[red]failed[/] {escape(program)}", highlight=False)
    return _code(made) if proof.good else 2


@app.command
def targets(*, common: Common | None = None) -> int:
    """List the targets that have a data file."""
    if (common or Common()).json:
        _print_json([target.load(name).model_dump() for name in target.names()])
        return 0
    for name in target.names():
        found = target.load(name)
        print(f"{name}\t{found.chost}\t{found.qemu.binary} {found.qemu.machine} {found.qemu.cpu}")
    return 0


@app.command(name="config")
def show_config(*, common: Common | None = None) -> int:
    """Print the default configuration, which is its reference, after checking yours."""
    common = common or Common()
    checked = config.load(common.config)
    if common.json:
        _print_json(checked.model_dump())
    else:
        print(config.DEFAULT.read_text(), end="")
    return 0


@stage_app.command(name="build")
def stage_build(*, what: What | None = None, common: Common | None = None) -> int:
    """Build the target's stage, unless the cache has it."""
    session = _open(what or What(), common or Common())
    with report.Reporter(_console(common or Common())) as reporter:
        built = stages.ensure(session.target, target.load_recipe(), session.directories.cache, reporter.step)
    return _show_stage(built, common or Common())


@stage_app.command(name="kernel")
def stage_kernel(
    *,
    newest: Annotated[bool, Parameter(negative="", help="Build anew if there is a newer source.")] = False,
    what: What | None = None,
    common: Common | None = None,
) -> int:
    """Build a kernel for emulated nodes in which processes start 1.6 times as fast: once, some 10 minutes."""
    common = common or Common()
    session = _open(what or What(), common)
    cache = session.directories.cache
    with report.Reporter(_console(common)) as reporter:
        if newest or kernels.find(session.target, cache) is None:
            reporter.warn("a kernel is compiled from source, once: some 10 minutes on two processors")
        built = kernels.ensure(session.target, target.load_recipe(), cache, reporter.step, newest=newest)
        if not session.config.node.own_kernel:
            reporter.warn("nodes do not boot it, because node.own_kernel is false")
    return _show({"directory": str(built.directory), **built.facts}, common)


@stage_app.command(name="list")
def stage_list(*, common: Common | None = None) -> int:
    """List the stages in the cache, and which kernel emulated nodes of each will boot."""
    common = common or Common()
    found = [_facts(stage, common) for stage in stages.all_stages(paths.directories().cache)]
    if common.json:
        _print_json(found)
        return 0
    columns = ("stage", "release", "kernel", "nodes boot", "compiler", "portage", "MiB")
    table = Table(*(Column(name, overflow="fold") for name in columns))
    for facts in found:
        directory = Path(facts["directory"])
        size = sum(path.lstat().st_blocks * 512 for path in directory.rglob("*")) >> 20
        row = (facts["release"], facts["kernel"], facts["boots"], facts["compiler"], facts["portage"], str(size))
        table.add_row(directory.name, *row)
    _console(common).print(table)
    return 0


def _find_stage(name: str) -> stages.Stage:
    found = stages.all_stages(paths.directories().cache)
    for stage in found:
        if stage.directory.name == name:
            return stage
    known = ", ".join(stage.directory.name for stage in found) or "none yet"
    raise InputError(f"there is no stage {name!r}", f"stages: {known}")


def _facts(stage: stages.Stage, common: Common) -> dict[str, str]:
    """What is known of a stage, with the release of the kernel that emulated nodes of it boot."""
    facts = stage.facts
    wanted = config.load(common.config).node.own_kernel and facts["target"] in target.names()
    own = kernels.find(target.load(facts["target"]), paths.directories().cache) if wanted else None
    return {"directory": str(stage.directory), **facts, "boots": own.release if own else facts["kernel"]}


def _show_stage(stage: stages.Stage, common: Common) -> int:
    return _show(_facts(stage, common), common)


def _show(facts: dict[str, str], common: Common) -> int:
    if common.json:
        _print_json(facts)
    else:
        for key, value in facts.items():
            print(f"{key}: {value}")
    return 0


@stage_app.command(name="show")
def stage_show(name: str, *, common: Common | None = None) -> int:
    """Show what a stage is made of."""
    return _show_stage(_find_stage(name), common or Common())


@stage_app.command(name="remove")
def stage_remove(name: str, *, common: Common | None = None) -> int:
    """Delete a stage; the next build makes it anew."""
    stages.remove(_find_stage(name))
    return 0


@binhost_app.command(name="serve")
def binhost_serve(
    *,
    address: Annotated[str, Parameter(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int | None, Parameter(help="The TCP port.")] = None,
    what: What | None = None,
    common: Common | None = None,
) -> int:
    """Serve the binhost over HTTP until interrupted."""
    session = _open(what or What(), common or Common())
    binhosts.Binhost(session.binhost, session.target.chost)
    chosen = session.config.binhost.port if port is None else port

    def ready(where: binhosts.Address) -> None:
        print(f"serving {session.binhost} at {where.url}", flush=True)

    binhosts.serve(session.binhost, address, chosen, ready)
    return 0


@binhost_app.command(name="list")
def binhost_list(*, what: What | None = None, common: Common | None = None) -> int:
    """List the packages of the binhost."""
    common = common or Common()
    session = _open(what or What(), common)
    entries = binhosts.Binhost(session.binhost, session.target.chost).entries()
    if common.json:
        _print_json([{"cpv": entry.metadata.cpv, "size": entry.size, "path": entry.path} for entry in entries])
        return 0
    for entry in entries:
        print(f"{entry.metadata.cpv}\t{entry.size}")
    return 0


@tree_app.command(name="sync")
def tree_sync(*names: str, common: Common | None = None) -> int:
    """Fetch the repositories NAMES, or all, and generate the metadata of their ebuilds."""
    ebuild_trees.check_idle(paths.directories((common or Common()).state).state)
    return _about_trees(names, common or Common(), ebuild_trees.sync, treetable.synced)


@tree_app.command(name="status")
def tree_status(*names: str, common: Common | None = None) -> int:
    """Show where the repositories NAMES, or all, are, at which revision, and whether Portage knows their ebuilds."""
    return _about_trees(names, common or Common(), ebuild_trees.status, treetable.status)


def _about_trees(
    names: tuple[str, ...],
    common: Common,
    act: Callable[..., tuple[ebuild_trees.Status, ...]],
    show: Callable[[Console, tuple[ebuild_trees.Status, ...]], None],
) -> int:
    directories = paths.directories(common.state)
    trees = _trees(config.load(common.config), directories)
    wanted, unknown = ebuild_trees.chosen(trees, names)
    console = _console(common)
    with report.Reporter(console) as reporter:
        for error in unknown:
            reporter.warn(str(error))
        found = act(wanted, trees, ebuild_trees.places(directories), reporter)
    if common.json:
        _print_json({"trees": [one.json() for one in found], "unknown": [str(error) for error in unknown]})
    elif found:
        show(console, found)
    return 0 if not unknown and all(one.good for one in found) else 2


def _at_least_one(count: int, option: str = "--repeat") -> None:
    if count < 1:
        raise InputError(f"{option} {count} is too few", "use at least 1")


@bench_app.command(name="emulation")
def bench_emulation(
    *,
    package: Annotated[str, Parameter(help="What is built.")] = "dev-build/make",
    repeat: Annotated[int, Parameter(help="How often in each variant.")] = 3,
    variants: Annotated[str, Parameter(help="Some of them, with commas.")] = ",".join(emulation.VARIANTS),
    output: Annotated[Path | None, Parameter(help="Write emulation.json, .svg and .png into this directory.")] = None,
    what: What | None = None,
    common: Common | None = None,
) -> int:
    """Build one package natively, under qemu-user, and in nodes with more and more of our levers."""
    what, common = what or What(), common or Common()
    _at_least_one(repeat)
    names = [name.strip() for name in variants.split(",") if name.strip()]
    emulation.check_names(names)
    if output is not None:
        chart.require()
        output.mkdir(parents=True, exist_ok=True)
    session = _open(what, common)
    console = _console(common)
    with report.Reporter(console) as reporter:
        measured = emulation.measure(session, package, names, repeat, reporter)
    if output is not None:
        (output / "emulation.json").write_text(json.dumps(measured.json(), indent=1) + "\n")
        chart.draw(measured, output)
    if common.json:
        _print_json(measured.json())
    else:
        tables.emulation(console, measured)
    return 0


@bench_app.command(name="process")
def bench_process(
    *,
    repeat: Annotated[int, Parameter(help="How often each is started.")] = 20,
    kernel_arguments: Annotated[str, Parameter(help="In the place of the target's.")] = "",
    cpu: Annotated[str, Parameter(help="QEMU's, in the place of the target's.")] = "",
    what: What | None = None,
    common: Common | None = None,
) -> int:
    """Measure what starting a process costs, from /bin/true to a compile and link, in a node and natively."""
    what, common = what or What(), common or Common()
    _at_least_one(repeat)
    session = _open(what, common)
    console = _console(common)
    with report.Reporter(console) as reporter:
        measured = starts.measure(session, repeat, starts.Changes(kernel_arguments, cpu), reporter)
    if common.json:
        _print_json(measured.json())
    else:
        tables.starts(console, measured)
    return 0


@bench_app.command(name="node")
def bench_node(
    *,
    package: Annotated[str, Parameter(help="What is built; one that compiles nothing.")] = "demo-meta/quickstart",
    nodes: Annotated[int, Parameter(help="How many wait at once while their memory is read.")] = 2,
    repeat: Annotated[int, Parameter(help="How often the package is built.")] = 5,
    what: What | None = None,
    common: Common | None = None,
) -> int:
    """Measure how soon a node works, how soon a package that compiles nothing is done, and nodes' memory."""
    what, common = what or What(), common or Common()
    _at_least_one(repeat)
    _at_least_one(nodes, "--nodes")
    session = _open(what, common)
    console = _console(common)
    with report.Reporter(console) as reporter:
        measured = node_bench.measure(session, package, nodes, repeat, reporter)
    if common.json:
        _print_json(measured.json())
    else:
        tables.nodes(console, measured)
    return 0


@bench_app.command(name="plan")
def bench_plan(
    *,
    tree: Annotated[Path, Parameter(help="A Gentoo repository with metadata/md5-cache.")] = gentoo.TREE,
    repeat: Annotated[int, Parameter(help="How often each way is taken.")] = 5,
    common: Common | None = None,
) -> int:
    """Measure how long planning a whole @system takes, against `emerge --pretend` of the same."""
    common = common or Common()
    _at_least_one(repeat)
    console = _console(common)
    with report.Reporter(console) as reporter:
        measured = plans.measure(tree, repeat, reporter)
    if common.json:
        _print_json(measured.json())
    else:
        tables.plans(console, measured)
    return 0


@bench_app.command(name="size")
def bench_size(
    *,
    packages: Annotated[str, Parameter(help="How many, of some trees, with commas.")] = "1000,2000,5000,10000,20000",
    common: Common | None = None,
) -> int:
    """Measure seconds and memory of planning all packages of ever larger trees, each with ten dependencies."""
    common = common or Common()
    wanted = size.parse(packages)
    console = _console(common)
    with report.Reporter(console) as reporter:
        measured = size.measure(wanted, reporter)
    if common.json:
        _print_json(measured.json())
    else:
        tables.size(console, measured)
    return 0


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does, so that every node is ended."""

    def interrupt(signum: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _set_up_logging(debug: bool) -> None:
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, format="%(name)s: %(message)s")
    for name in ("paramiko", "qemu", "asyncio", "httpx", "httpcore"):
        # Their complaints about a node that goes away are ours to make, in one line.
        logging.getLogger(name).setLevel(logging.INFO if debug else logging.CRITICAL)


def run(argv: list[str]) -> int:
    """Run the command line `argv`; returns the exit code."""
    debug = "--debug" in argv
    _set_up_logging(debug)
    try:
        with _terminated_like_interrupted():
            code = app(argv, exit_on_error=False, print_error=False, result_action="return_value")
            return code if isinstance(code, int) else 0
    except ClusterError as error:
        if debug:
            logging.exception("%s", getattr(error, "detail", ""))
        print(f"cluster: {error}", file=sys.stderr)
        return error.exit_code
    except CycloptsError as error:
        what = " ".join(str(error).split()).rstrip(".")
        print(f"cluster: {what}: `cluster --help` lists what there is", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("cluster: interrupted; what was finished is kept, run it again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a full disk or a directory without rights, wherever it is met
        if debug:
            logging.exception("")
        print(f"cluster: {error}", file=sys.stderr)
        return 1


def main() -> None:
    """The `cluster` command."""
    sys.exit(run(sys.argv[1:]))
