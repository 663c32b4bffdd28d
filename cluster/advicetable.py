"""What `cluster advise` tells a person, and the same for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from cluster.master.estimate import duration
from cluster.master.schedule.advice import Advice, Kind, Link, Mix, saves
from cluster.master.schedule.hosts import Host

_NAMED = 4  # packages of a chain that are named, those that take longest
_MOSTLY = 0.5  # of a run


@dataclass(frozen=True, slots=True)
class Answer:
    """All that was asked, and what came out."""

    hosts: Sequence[Host]
    packages: int
    unknown: int
    """Packages of which no build is known."""
    advice: Advice
    deadline_s: float | None = None
    in_time: Sequence[tuple[Kind, Mix | None]] = ()
    budget: float | None = None
    within: Sequence[Mix] = ()


def show(console: Console, answer: Answer) -> None:
    """One sentence after the other."""
    for line in sentences(answer):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def sentences(answer: Answer) -> Iterator[str]:
    """When it ends, what is to blame, what one more of each kind saves, and what deadline and budget take."""
    advice = answer.advice
    yield f"{answer.packages} packages on {_hosts(answer.hosts)} end in {duration(advice.end_s)}."
    if answer.unknown:
        yield f"Of {answer.unknown} no build is known: their times are assumed."
    yield _blame(advice)
    yield (
        f"The longest chain, {len(advice.longest)} packages, takes {duration(advice.longest_s)} on the fastest node "
        f"there is; no schedule on these nodes ends before {duration(advice.bound_s)}."
    )
    for mix in advice.one_more:
        yield f"{_more(mix)} {_saved(saves(advice, mix))}."
    if answer.deadline_s is not None:
        yield from (_in_time(answer.deadline_s, kind, mix) for kind, mix in answer.in_time)
    if answer.budget is not None:
        yield from (_within(answer.budget, mix) for mix in answer.within)


def json(answer: Answer) -> dict[str, Any]:
    """The same in seconds and USD."""
    advice = answer.advice
    found: dict[str, Any] = {
        "hosts": [{"name": host.name, "nodes": len(host.nodes), "speed": host.speed} for host in answer.hosts],
        "packages": answer.packages,
        "unknown": answer.unknown,
        "end_s": round(advice.end_s, 3),
        "lower_bound_s": round(advice.bound_s, 3),
        "idle": round(advice.idle, 4),
        "longest": {"packages": list(advice.longest), "seconds": round(advice.longest_s, 3)},
        "blame": [
            {"cpv": link.cpv, "node": link.node, "since_s": link.since, "until_s": link.until, "after": link.waited_for}
            for link in advice.blame
        ],
        "one_more": [{**_mix(mix), "saves_s": round(saves(advice, mix), 3)} for mix in advice.one_more],
    }
    if answer.deadline_s is not None:
        mixes = [{"speed": kind.speed, **(_mix(mix) if mix else {"count": None})} for kind, mix in answer.in_time]
        found["deadline"] = {"seconds": answer.deadline_s, "mixes": mixes}
    if answer.budget is not None:
        found["budget"] = {"usd": answer.budget, "mixes": [_mix(mix) for mix in answer.within]}
    return found


def _mix(mix: Mix) -> dict[str, Any]:
    cost = {} if mix.cost is None else {"cost_usd": round(mix.cost, 2)}
    return {"speed": mix.kind.speed, "count": mix.count, "end_s": round(mix.end_s, 3), **cost}


def _hosts(hosts: Sequence[Host]) -> str:
    counts = Counter(dict.fromkeys(sorted({host.speed for host in hosts}, reverse=True), 0))
    for host in hosts:
        counts[host.speed] += len(host.nodes)
    return " and ".join(f"{_nodes(count)} at {speed:g}x" for speed, count in counts.items())


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"


def _blame(advice: Advice) -> str:
    """Whether the end waits for packages that need one another, or for nodes."""
    needed = [link for link in advice.blame if link.waited_for != "node"]
    spent = sum(link.until - link.since for link in needed)
    idle = f"{advice.idle:.0%} of the nodes' time has nothing to do"
    if spent < _MOSTLY * advice.end_s:
        return f"Nodes are what it waits for: {idle}."
    longest = sorted(needed, key=lambda link: link.since - link.until)[:_NAMED]
    named = ", ".join(f"{link.cpv} ({_took(link)})" for link in sorted(longest, key=lambda link: link.since))
    return f"A chain of {len(needed)} packages is what it waits for, above all {named}: {idle}."


def _took(link: Link) -> str:
    return duration(link.until - link.since)


def _more(mix: Mix) -> str:
    return f"One node more at {mix.kind.speed:g}x"


def _saved(seconds: float) -> str:
    return f"saves {duration(seconds)}" if seconds else "saves nothing"


def _in_time(deadline_s: float, kind: Kind, mix: Mix | None) -> str:
    if mix is None:
        return f"No number of nodes at {kind.speed:g}x ends it in {duration(deadline_s)}."
    if not mix.count:
        return f"In {duration(deadline_s)} it ends as it is: nothing more at {kind.speed:g}x is needed."
    return f"{_nodes(mix.count)} more at {kind.speed:g}x end it in {duration(mix.end_s)}{_price(mix)}."


def _within(budget: float, mix: Mix) -> str:
    if not mix.count:
        return f"For {budget:.2f} USD nothing at {mix.kind.speed:g}x is worth it."
    more = f"{_nodes(mix.count)} more at {mix.kind.speed:g}x end it in {duration(mix.end_s)}"
    return f"For at most {budget:.2f} USD {more}{_price(mix)}."


def _price(mix: Mix) -> str:
    return "" if mix.cost is None else f" for {mix.cost:.2f} USD"
