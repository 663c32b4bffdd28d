"""`cluster bench`: what emulation costs, and what each of our levers brings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cluster import report
from cluster.bench import chart, emulation, gentoo, plans, scale, size, starts, tables
from cluster.bench import dispatch as dispatch_bench
from cluster.bench import nodes as node_bench
from cluster.bench import schedule as schedule_bench
from cluster.options import Common, What, at_least_one, console_for, open_one, print_json


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
    at_least_one(repeat)
    names = [name.strip() for name in variants.split(",") if name.strip()]
    emulation.check_names(names)
    if output is not None:
        chart.require()
        output.mkdir(parents=True, exist_ok=True)
    session = open_one(what, common)
    console = console_for(common)
    with report.Reporter(console) as reporter:
        measured = emulation.measure(session, package, names, repeat, reporter)
    if output is not None:
        (output / "emulation.json").write_text(json.dumps(measured.json(), indent=1) + "\n")
        chart.draw(measured, output)
    if common.json:
        print_json(measured.json())
    else:
        tables.emulation(console, measured)
    return 0


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
    at_least_one(repeat)
    session = open_one(what, common)
    console = console_for(common)
    with report.Reporter(console) as reporter:
        measured = starts.measure(session, repeat, starts.Changes(kernel_arguments, cpu), reporter)
    if common.json:
        print_json(measured.json())
    else:
        tables.starts(console, measured)
    return 0


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
    at_least_one(repeat)
    at_least_one(nodes, "--nodes")
    session = open_one(what, common)
    console = console_for(common)
    with report.Reporter(console) as reporter:
        measured = node_bench.measure(session, package, nodes, repeat, reporter)
    if common.json:
        print_json(measured.json())
    else:
        tables.nodes(console, measured)
    return 0


def bench_plan(
    *,
    tree: Annotated[Path, Parameter(help="A Gentoo repository with metadata/md5-cache.")] = gentoo.TREE,
    repeat: Annotated[int, Parameter(help="How often each way is taken.")] = 5,
    common: Common | None = None,
) -> int:
    """Measure how long planning a whole @system takes, against `emerge --pretend` of the same."""
    common = common or Common()
    at_least_one(repeat)
    console = console_for(common)
    with report.Reporter(console) as reporter:
        measured = plans.measure(tree, repeat, reporter)
    if common.json:
        print_json(measured.json())
    else:
        tables.plans(console, measured)
    return 0


def bench_size(
    *,
    packages: Annotated[str, Parameter(help="How many, of some trees, with commas.")] = "1000,2000,5000,10000,20000",
    common: Common | None = None,
) -> int:
    """Measure seconds and memory of planning all packages of ever larger trees, each with ten dependencies."""
    common = common or Common()
    wanted = size.parse(packages)
    console = console_for(common)
    with report.Reporter(console) as reporter:
        measured = size.measure(wanted, reporter)
    if common.json:
        print_json(measured.json())
    else:
        tables.size(console, measured)
    return 0


def bench_schedule(
    *,
    graph: Annotated[Path, Parameter(help="Lines `A -> B` (B needs A), or a plan's JSON.")] = schedule_bench.GRAPH,
    history: Annotated[Path, Parameter(help="What its packages took.")] = schedule_bench.HISTORY,
    parts: Annotated[str, Parameter(help="Some of them, with commas.")] = ",".join(schedule_bench.PARTS),
    output: Annotated[Path | None, Parameter(help="Write schedule.json into this directory.")] = None,
    common: Common | None = None,
) -> int:
    """Measure how near our schedules and those of other builders come to what no schedule can beat."""
    common = common or Common()
    names = [name.strip() for name in parts.split(",") if name.strip()]
    schedule_bench.check_names(names)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    console = console_for(common)
    with report.Reporter(console) as reporter:
        measured = schedule_bench.measure(graph, history, names, reporter)
    if output is not None:
        (output / "schedule.json").write_text(json.dumps(measured.json(), indent=1) + "\n")
    if common.json:
        print_json(measured.json())
    else:
        tables.schedule(console, measured)
    return 0


def bench_scale(
    *,
    graph: Annotated[Path, Parameter(help="Lines `A -> B` (B needs A), or a plan's JSON.")] = schedule_bench.GRAPH,
    history: Annotated[Path, Parameter(help="What its packages took.")] = schedule_bench.HISTORY,
    hosts: Annotated[str, Parameter(help="How many, of some runs, with commas.")] = scale.HOSTS,
    common: Common | None = None,
) -> int:
    """Show what 10 to 1,000 rented hosts bring, cost, move over the network and ask of the master, simulated."""
    common = common or Common()
    wanted = scale.parse(hosts)
    console = console_for(common)
    with report.Reporter(console) as reporter:
        measured = scale.measure(graph, history, wanted, scale.COPIES, reporter)
    if common.json:
        print_json(measured.json())
    else:
        tables.scale(console, measured)
    return 0


def bench_dispatch(
    *,
    workers: Annotated[int, Parameter(help="Hosts of one node each, which take no time to build.")] = 1000,
    packages: Annotated[int, Parameter(help="How many are built.")] = 20_000,
    common: Common | None = None,
) -> int:
    """Measure how many packages a second a master gives to its hosts through Dask, and through its loop alone."""
    common = common or Common()
    at_least_one(workers, "--workers")
    at_least_one(packages, "--packages")
    console = console_for(common)
    with report.Reporter(console) as reporter:
        measured = dispatch_bench.measure(workers, packages, reporter)
    if common.json:
        print_json(measured.json())
    else:
        tables.dispatch(console, measured)
    return 0
