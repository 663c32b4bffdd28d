"""What a person sees: progress while it goes on, a summary at its end, one JSON object for programs."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import reduce
from itertools import chain
from types import MappingProxyType
from typing import Any, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.table import Table

from cluster import widetable
from cluster.clock import clock
from cluster.model import Action, Compiles, Job, LeftOut, Outcome, Plan, Result, Served, Verdict

_HEARTBEAT_S = 4.0  # nothing is silent for more than five

_STYLES = MappingProxyType(
    {
        Verdict.BUILT: "green",
        Verdict.FAILED: "bold red",
        Verdict.LOST: "yellow",
        Verdict.BLOCKED: "magenta",
        Verdict.SKIPPED: "dim",
    }
)
_ACTIONS = MappingProxyType({Action.BUILD: "", Action.CHECK: "cyan", Action.TAKE: "green", Action.SKIP: "dim"})
_CONFIGURE = ("prepare", "configure")
_INSTALL = ("install", "package")


@dataclass(slots=True)
class _Working:
    """What a node is doing now."""

    cpv: str
    since: float
    phase: str = "starting"
    phase_since: float = 0.0


class Reporter:
    """Progress on `console`: live where it is a terminal, else lines and a heartbeat."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.RLock()
        self._step: tuple[str, float] | None = None
        self._nodes: dict[str, _Working] = {}
        self._total = self._done = 0
        self._end: float | None = None
        self._spoke = time.monotonic()
        self._ended = threading.Event()
        self._live: Live | None = None
        self._heart: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(console=self._console, get_renderable=self._render, refresh_per_second=4, transient=True)
            self._live.start()
        else:
            self._heart = threading.Thread(target=self._beat, daemon=True)
            self._heart.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._finish_step(done=exception[0] is None)
        self._ended.set()
        if self._live is not None:
            self._live.stop()
        if self._heart is not None:
            self._heart.join()

    def step(self, text: str) -> None:
        """Something else begins, which may take a while."""
        with self._lock:
            self._finish_step()
            self._step = (text, time.monotonic())
            if self._live is None:
                self._say(f"[bold]…[/] {escape(text)}")

    def warn(self, text: str) -> None:
        """Something a person should know, which stops nothing."""
        self._say(f"[yellow]![/] {escape(text)}")

    def fail(self, text: str) -> None:
        """What had begun came to nothing; the rest goes on."""
        with self._lock:
            self._finish_step(done=False)
            self._say(f"[bold red]![/] {escape(text)}")

    def tell(self, text: str) -> None:
        """Something came out that is worth seeing before the end."""
        with self._lock:
            self._finish_step()
            self._say(f"  {escape(text)}")

    def start(self, plan: Plan) -> None:
        """The jobs of `plan` begin."""
        with self._lock:
            self._finish_step()
            self._total, self._done, self._end = len(plan.to_build), 0, None
            self._say(f"[bold]{escape(_counts(plan))}[/]")

    def expect(self, end: float) -> None:
        """The jobs are expected to be done then, in seconds since the epoch."""
        with self._lock:
            self._end = end

    def dispatched(self, job: Job, node: str) -> None:
        """A job was given to a node."""
        with self._lock:
            now = time.monotonic()
            self._nodes[node] = _Working(job.package.cpv, now, phase_since=now)
            again = f" (attempt {job.attempt})" if job.attempt > 1 else ""
            if self._live is None:
                why = f": {job.package.reason}" if job.package.reason else ""
                self._say(escape(f"{node}: {job.package.cpv} starts{again}{why}"))

    def entered(self, node: str, phase: str) -> None:
        """The job of `node` is in a new phase."""
        with self._lock:
            working = self._nodes.get(node)
            if working and working.phase != phase:
                working.phase, working.phase_since = phase, time.monotonic()

    def ended(self, outcome: Outcome) -> None:
        """A package ended, in whatever way."""
        with self._lock:
            self._nodes.pop(outcome.node, None)
            if outcome.verdict is not Verdict.LOST:
                self._done += 1
            style = _STYLES[outcome.verdict]
            self._say(f"[{style}]{outcome.verdict.value:>7}[/] {outcome.cpv}  {escape(_details(outcome))}")

    def tick(self) -> None:
        """About a second has passed; the heartbeat has its own clock."""

    def _finish_step(self, *, done: bool = True) -> None:
        if self._step is None:
            return
        text, since = self._step
        self._step = None
        mark = "[green]✓[/]" if done else "[red]✗[/]"
        self._say(f"{mark} {escape(text)} [dim]{time.monotonic() - since:.0f} s[/]")

    def _say(self, text: str) -> None:
        with self._lock:
            self._console.print(text, highlight=False, soft_wrap=True)
            self._spoke = time.monotonic()

    def _beat(self) -> None:
        while not self._ended.wait(1):
            with self._lock:
                waiting = self._waiting_for()
                if waiting and time.monotonic() - self._spoke >= _HEARTBEAT_S:
                    self._say(f"[dim]  {escape(waiting)}[/]")

    def _waiting_for(self) -> str:
        now = time.monotonic()
        if self._step is not None:
            return f"{self._step[0]}: {now - self._step[1]:.0f} s"
        parts = [f"{node} {w.cpv} {w.phase} {now - w.phase_since:.0f} s" for node, w in sorted(self._nodes.items())]
        return f"{self._done_so_far}; {'; '.join(parts)}" if parts else ""

    @property
    def _done_so_far(self) -> str:
        end = f", about {clock(self._end, time.time())}" if self._end is not None else ""
        return f"{self._done} of {self._total} done{end}"

    def _render(self) -> Group | Spinner | str:
        with self._lock:
            now = time.monotonic()
            if self._step is not None:
                return Spinner("dots", f" {escape(self._step[0])} [dim]{now - self._step[1]:.0f} s[/]")
            if not self._nodes:
                return ""
            table = Table.grid(padding=(0, 2))
            for node, working in sorted(self._nodes.items()):
                table.add_row(f"[cyan]{node}[/]", working.cpv, working.phase, f"[dim]{now - working.since:.0f} s[/]")
            return Group(table, Spinner("dots", f" {self._done_so_far}"))


def _details(outcome: Outcome) -> str:
    if outcome.verdict is Verdict.BUILT:
        return f"on {outcome.node} in {outcome.seconds:.0f} s, compiles: {outcome.compiles}"
    log = f" (log: {outcome.log})" if outcome.verdict is Verdict.FAILED and outcome.log else ""
    return f"{outcome.reason}{log}"


def _spent(outcome: Outcome, names: tuple[str, ...]) -> str:
    seconds = [spent for name, spent in outcome.phases if name in names]
    return f"{sum(seconds):.0f}" if seconds else ""


def compiles(result: Result) -> Compiles:
    """The compiles of all packages together."""
    return reduce(Compiles.__add__, (outcome.compiles for outcome in result.outcomes), Compiles())


def served(outcomes: Iterable[Outcome]) -> tuple[Served, ...]:
    """What each host of the distcc pool did for all of `outcomes`, by name."""
    hosts: dict[str, Served] = {}
    for one in chain.from_iterable(outcome.served for outcome in outcomes):
        hosts[one.host] = hosts.get(one.host, Served(one.host)) + one
    return tuple(hosts[name] for name in sorted(hosts))


def _served_line(hosts: Iterable[Served]) -> str:
    counts = [f"{one.host} {one.compiled}{f' ({one.failed} failed)' if one.failed else ''}" for one in hosts]
    return f"distcc: {', '.join(counts)}"


def summary(console: Console, result: Result) -> None:
    """The table at the end of a build, and one line with the totals; of its first round too."""
    if result.first is not None:
        console.print("The first round:", highlight=False)
        summary(console, result.first)
        console.print("The second round:", highlight=False)
    if not result.plan.to_build:
        console.print(
            f"Nothing to build: all {len(result.outcomes)} packages are in the binhost {result.binhost}", soft_wrap=True
        )
        return
    numbers = ("boot", "prereq", "config", "compile", "install", "all s", "host", "distcc", "local")
    table = widetable.table("package", "outcome", "node", numbers=numbers)
    for outcome in result.outcomes:
        table.add_row(*_row(outcome))
    widetable.show(console, table)
    for outcome in result.of(Verdict.FAILED, Verdict.LOST, Verdict.BLOCKED):
        style = _STYLES[outcome.verdict]
        console.print(f"[{style}]{outcome.verdict.value}[/] {outcome.cpv}: {escape(_details(outcome))}", soft_wrap=True)
    total = compiles(result)
    counts = ", ".join(f"{len(result.of(verdict))} {verdict.value}" for verdict in Verdict if result.of(verdict))
    console.print(f"{counts} in {result.seconds:.0f} s; compiles: {total}", soft_wrap=True)
    if pooled := served(result.outcomes):
        console.print(escape(_served_line(pooled)), soft_wrap=True)
    console.print(f"binhost: {result.binhost}", soft_wrap=True)


def _row(outcome: Outcome) -> tuple[str, ...]:
    counts = outcome.compiles
    built = outcome.verdict is Verdict.BUILT
    return (
        outcome.cpv,
        f"[{_STYLES[outcome.verdict]}]{outcome.verdict.value}[/]",
        outcome.node,
        _spent(outcome, ("boot",)),
        _spent(outcome, ("prerequisites",)),
        _spent(outcome, _CONFIGURE),
        _spent(outcome, ("compile",)),
        _spent(outcome, _INSTALL),
        f"{outcome.seconds:.0f}" if outcome.seconds else "",
        str(counts.host) if built else "",
        str(counts.remote) if built else "",
        str(counts.local) if built else "",
    )


def plan_json(plan: Plan) -> dict[str, Any]:
    """The contract of `cluster plan --json`."""
    packages = [
        {
            "cpv": package.cpv,
            "use": list(package.use),
            "slot": package.slot,
            "action": package.action.value,
            "reason": package.reason,
            "requires": list(package.requires),
        }
        for package in plan.packages
    ]
    repositories = [
        {"name": repository.name, "location": str(repository.location), "revision": repository.revision}
        for repository in plan.repositories
    ]
    return {
        "target": plan.target,
        **({"first": plan_json(plan.first)} if plan.first else {}),
        "repositories": repositories,
        "packages": packages,
        "order": [package.cpv for package in plan.packages],
        **beside_json(plan),
    }


def beside_json(plan: Plan) -> dict[str, Any]:
    """What a plan does without, and what is wrong beside."""
    return {"left_out": [asdict(one) for one in plan.left_out], "warnings": list(plan.warnings)}


def beside(console: Console, left_out: tuple[LeftOut, ...], warnings: tuple[str, ...] = ()) -> None:
    """A line for each thing that is left out, or is wrong and stopped nothing."""
    for style, words in [*(("bold red", str(one)) for one in left_out), *(("yellow", words) for words in warnings)]:
        console.print(f"[{style}]![/] {escape(words)}", highlight=False, soft_wrap=True)


def _counts(plan: Plan) -> str:
    """How many packages are built, may be, and are there."""
    count = Counter(package.action for package in plan.packages)
    check = f"{count[Action.CHECK]} if what they link to changes, " if count[Action.CHECK] else ""
    take = f"{count[Action.TAKE]} to take from another binhost, " if count[Action.TAKE] else ""
    left = f"; {len(plan.left_out)} left out" if plan.left_out else ""
    return f"{count[Action.BUILD]} to build, {check}{take}{count[Action.SKIP]} in the binhost already{left}"


def plan_table(console: Console, plan: Plan) -> None:
    """The plan for a person, its first round before it."""
    _in_rounds(console, plan, _plan_table)


def _in_rounds(console: Console, plan: Plan, show: Callable[[Console, Plan], None]) -> None:
    if plan.first is None:
        show(console, plan)
        return
    console.print("First, into a binhost of their own:", highlight=False)
    _in_rounds(console, plan.first, show)
    console.print("Then, in nodes that have these:", highlight=False)
    show(console, plan)


def _plan_table(console: Console, plan: Plan) -> None:
    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("")
    table.add_column("package", no_wrap=True)
    for name in ("slot", "USE"):
        table.add_column(name)
    table.add_column("needs", justify="right")
    table.add_column("why", overflow="fold")
    for package in plan.packages:
        flags = " ".join(flag if flag in package.use else f"-{flag}" for flag in package.iuse)
        style = _ACTIONS[package.action]
        row = (package.action.value, package.cpv, package.slot, flags, str(len(package.requires) or ""), package.reason)
        table.add_row(*row, style=style)
    console.print(table)
    console.print(_counts(plan))


def plan_reasons(console: Console, plan: Plan) -> None:
    """A line for each package: what is done with it, why, and who asked for it; the first round before."""
    _in_rounds(console, plan, _plan_reasons)


def _plan_reasons(console: Console, plan: Plan) -> None:
    for package in plan.packages:
        named = f" [{' '.join(package.arguments)}]" if package.arguments else ""
        line = f"{package.action.value:>5} {package.cpv}: {package.reason}{named}"
        console.print(escape(line), style=_ACTIONS[package.action], highlight=False, soft_wrap=True)
    console.print(_counts(plan))


def build_json(result: Result) -> dict[str, Any]:
    """The contract of `cluster build --json`."""
    total = compiles(result)
    verdicts = {verdict.value: [outcome.cpv for outcome in result.of(verdict)] for verdict in Verdict}
    return {
        **({"first": build_json(result.first)} if result.first else {}),
        **verdicts,
        "compiles": _compiles_json(total),
        "distcc": _served_json(served(result.outcomes)),
        "seconds": result.seconds,
        "packages": {outcome.cpv: _outcome_json(outcome) for outcome in result.outcomes},
        **beside_json(result.plan),
    }


def _compiles_json(counts: Compiles) -> dict[str, int]:
    return asdict(counts)


def _served_json(hosts: Iterable[Served]) -> dict[str, Any]:
    """By host."""
    return {one.host: {name: value for name, value in asdict(one).items() if name != "host"} for one in hosts}


def _outcome_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "outcome": outcome.verdict.value,
        "node": outcome.node,
        "attempt": outcome.attempt,
        "phases": dict(outcome.phases),
        "seconds": outcome.seconds,
        "compiles": _compiles_json(outcome.compiles),
        "distcc": _served_json(served([outcome])),
        "log": str(outcome.log) if outcome.log else None,
        "reason": outcome.reason,
    }
