"""`cluster simulate`: how long a build would take, on which hosts, by which policy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from cluster import simulationtable
from cluster.drawing import formats
from cluster.drawing import gantt as chart
from cluster.errors import InputError
from cluster.master import trial
from cluster.master.schedule.hosts import parse
from cluster.options import Common, KeepGoing, What, console_for, print_json
from cluster.verbs.workloads import workload_of


def simulate(
    *atoms: str,
    hosts: Annotated[
        str, Parameter(help="COUNTxSPEED,...: so many nodes, each so many times as fast as the reference.")
    ],
    graph: Annotated[
        Path | None, Parameter(help="In the place of ATOMS: lines `A -> B` (B needs A), or a plan's JSON.")
    ] = None,
    history: Annotated[Path | None, Parameter(help="Past builds, in the place of the journal's.")] = None,
    policy: Annotated[trial.Policy | Literal["all"], Parameter(help="Who chooses: we, or as another builder does.")] = (
        "ours"
    ),
    fail_rate: Annotated[float, Parameter(help="Share of nodes that are lost under their package.")] = 0.0,
    spot_loss: Annotated[float, Parameter(help="Share of hosts that leave for good.")] = 0.0,
    estimate_error: Annotated[float, Parameter(help="Standard deviation of the logarithm of estimates.")] = 0.0,
    seed: Annotated[int, Parameter(help="Of all that is drawn.")] = 0,
    gantt: Annotated[Path | None, Parameter(help="Draw into this SVG file what is on which node when.")] = None,
    keep_going: KeepGoing = False,
    what: What | None = None,
    common: Common | None = None,
) -> int:
    """Show how long the plan for ATOMS (packages and @sets), or any graph, would build on hosts that there may be."""
    what, common = what or What(), common or Common()
    upset = trial.Upset(fail_rate, spot_loss, estimate_error, seed)
    on = parse(hosts)
    if gantt is not None and policy == "all":
        raise InputError("--gantt is of one policy, not of all", "name one with --policy")
    policies = trial.POLICIES if policy == "all" else (policy,)
    work = workload_of(atoms, graph, history, keep_going, what, common)
    trials = [trial.run(each, work.tasks, on, upset) for each in policies]
    if gantt is not None:
        formats.write(
            gantt, chart.svg(trials[0], on, f"{len(work.tasks)} packages on {hosts}, by {trials[0].policy}"), "--gantt"
        )
    if common.json:
        answers = [{**each.json(), "hosts": hosts, "unknown": work.unknown, "seed": seed} for each in trials]
        print_json(answers if policy == "all" else answers[0])
    else:
        simulationtable.show(console_for(common), trials, hosts, work.unknown)
    return 0
