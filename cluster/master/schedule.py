"""Which package next, on which node: pure decisions over frozen values.

`start` makes the state, `step` takes an event and returns the next state and what to do. No
I/O, no clock; the same code could run a simulation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from cluster.model import Cpv, Verdict


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Action: build this package on this node."""

    cpv: Cpv
    node: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Block:
    """Action: this package can't be built, because that one failed."""

    cpv: Cpv
    cause: Cpv


@dataclass(frozen=True, slots=True)
class Finished:
    """Event: the job of `cpv` ended, or was none because the package is kept as it is."""

    cpv: Cpv
    verdict: Verdict


Action = Dispatch | Block


@dataclass(frozen=True, slots=True)
class State:
    """Where a run stands."""

    requires: Mapping[Cpv, frozenset[Cpv]]
    """What each package of this run needs from this run."""
    rank: Mapping[Cpv, float]
    """Seconds from a package's start to the end of the longest chain behind it."""
    attempts: int
    idle: tuple[str, ...]
    waiting: frozenset[Cpv]
    running: Mapping[Cpv, str]
    tried: Mapping[Cpv, int]
    """How often each package was dispatched."""
    built: frozenset[Cpv] = frozenset()

    @property
    def done(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return not self.waiting and not self.running


def start(
    requires: Mapping[Cpv, Iterable[Cpv]], rank: Mapping[Cpv, float], nodes: Iterable[str], attempts: int
) -> tuple[State, tuple[Action, ...]]:
    """The first state of a run over the packages in `requires`, and its first actions."""
    inside = {cpv: frozenset(need for need in needs if need in requires) for cpv, needs in requires.items()}
    state = State(inside, dict(rank), attempts, tuple(nodes), frozenset(inside), running={}, tried={})
    return _fill(state)


def step(state: State, event: Finished) -> tuple[State, tuple[Action, ...]]:
    """What follows from `event`: its node is idle again, and others may start or never will."""
    running = dict(state.running)
    node = running.pop(event.cpv)
    state = replace(state, running=running, idle=(*state.idle, node))
    actions: tuple[Action, ...] = ()
    if event.verdict in (Verdict.BUILT, Verdict.SKIPPED):
        state = replace(state, built=state.built | {event.cpv})
    elif event.verdict is Verdict.LOST and state.tried[event.cpv] < state.attempts:
        state = replace(state, waiting=state.waiting | {event.cpv})
    else:
        blocked = _downstream(state, event.cpv)
        state = replace(state, waiting=state.waiting - blocked)
        actions = tuple(Block(cpv, event.cpv) for cpv in sorted(blocked))
    state, dispatches = _fill(state)
    return state, (*actions, *dispatches)


def _downstream(state: State, failed: Cpv) -> frozenset[Cpv]:
    """The waiting packages that cannot be built without `failed`.

    `requires` holds what a node needs for a build, not what those were built with: of a
    chain of build dependencies a package names the last only, so this follows the chain.
    """
    gone = {failed}
    while more := {cpv for cpv in state.waiting - gone if state.requires[cpv] & gone}:
        gone |= more
    return frozenset(gone - {failed})


def _fill(state: State) -> tuple[State, tuple[Action, ...]]:
    """Give the idle nodes the ready packages with the longest remaining path first."""
    ready = sorted(
        (cpv for cpv in state.waiting if state.requires[cpv] <= state.built), key=lambda cpv: (-state.rank[cpv], cpv)
    )
    pairs = list(zip(ready, state.idle, strict=False))
    tried = {**state.tried, **{cpv: state.tried.get(cpv, 0) + 1 for cpv, _ in pairs}}
    state = replace(
        state,
        idle=state.idle[len(pairs) :],
        waiting=state.waiting - {cpv for cpv, _ in pairs},
        running={**state.running, **dict(pairs)},
        tried=tried,
    )
    return state, tuple(Dispatch(cpv, node, tried[cpv]) for cpv, node in pairs)
