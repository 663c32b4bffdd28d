"""Why a package is where it is, as values that say themselves in a sentence; times are seconds since the start."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from cluster.model import Cpv, Verdict

Say = Callable[[float], str]
"""How a time is said: `14:02`."""
Resource = Literal["memory", "disk", "company"]
_ORDINALS = ("first", "second", "third")


# How it ended.


@dataclass(frozen=True, slots=True)
class Ended:
    """It is built, kept as it was, failed, or was lost too often."""

    kind: ClassVar = "ended"
    verdict: Verdict
    at: float
    attempts: int

    def sentence(self, say: Say) -> str:
        words = {
            Verdict.BUILT: "built at {}",
            Verdict.SKIPPED: "kept as it was at {}: the libraries that it links to are what they were",
            Verdict.FAILED: "failed at {}",
            Verdict.LOST: f"lost its node at {{}}, for the last of {self.attempts} attempts",
        }
        return words[self.verdict].format(say(self.at))


@dataclass(frozen=True, slots=True)
class Blocked:
    """It needs, directly or not, what was not built."""

    kind: ClassVar = "blocked"
    cause: Cpv
    verdict: Verdict
    at: float

    def sentence(self, say: Say) -> str:
        return f"blocked since {say(self.at)}: needs {self.cause}, which {self.verdict.in_passing}"


# What goes on.


@dataclass(frozen=True, slots=True)
class Building:
    """It has a node."""

    kind: ClassVar = "building"
    node: str
    since: float
    phase: str
    """"" where it is not known."""
    part: float
    """Of what it was expected to take, so far."""
    attempt: int

    def sentence(self, say: Say) -> str:
        again = f", attempt {self.attempt}" if self.attempt > 1 else ""
        phase = f", {self.phase}" if self.phase else ""
        return f"building on {self.node} since {say(self.since)}{again}{phase}, {self._usual}"

    def aside(self, say: Say) -> str:
        """The same beside another package."""
        return f"building on {self.node}, {self._usual}"

    @property
    def _usual(self) -> str:
        return f"{self.part:.0%} of its usual time"


@dataclass(frozen=True, slots=True)
class Unbegun:
    """What another package waits for, and that is not being built yet."""

    kind: ClassVar = "unbegun"
    at: float
    """When it is expected to start; infinity if that cannot be told."""

    def aside(self, say: Say) -> str:
        return f"which is to start {_about(say, self.at)}"


@dataclass(frozen=True, slots=True)
class Waiting:
    """It needs what is not built yet."""

    kind: ClassVar = "waiting"
    since: float
    need: Cpv
    """The one that is expected to end last."""
    need_now: Building | Unbegun
    others: int
    """How many it waits for beside."""

    def sentence(self, say: Say) -> str:
        several = f", and {self.others} others that end before"
        more = {0: "", 1: ", and another that ends before"}.get(self.others, several)
        return f"waiting since {say(self.since)} for {self.need} ({self.need_now.aside(say)}){more}"


# Why what could start has not.


@dataclass(frozen=True, slots=True)
class Starting:
    """Nothing keeps it any more."""

    kind: ClassVar = "starting"
    since: float
    host: str

    def sentence(self, say: Say) -> str:
        return f"ready since {say(self.since)}, about to start on {self.host}"


@dataclass(frozen=True, slots=True)
class Turn:
    """There are nodes, but not for this run."""

    kind: ClassVar = "turn"
    since: float
    allowed: int

    def sentence(self, say: Say) -> str:
        nodes = "1 node" if self.allowed == 1 else f"{self.allowed or 'no'} nodes"
        return f"ready since {say(self.since)}, waits for its turn: this run may use {nodes} at the moment"


@dataclass(frozen=True, slots=True)
class Queued:
    """No node is free for it."""

    kind: ClassVar = "queued"
    since: float
    turn: int
    """Its place among all that is ready, from 1."""
    of: int
    at: float

    def sentence(self, say: Say) -> str:
        turn = _ORDINALS[self.turn - 1] if self.turn <= len(_ORDINALS) else f"number {self.turn}"
        if self.at == math.inf:
            return f"ready since {say(self.since)}, {turn} of {self.of}, and no node is expected for it"
        return f"ready since {say(self.since)}, {turn} of {self.of}, no node is free for it before about {say(self.at)}"


@dataclass(frozen=True, slots=True)
class Crowded:
    """A node is free, but its host has no room for it."""

    kind: ClassVar = "crowded"
    since: float
    host: str
    lacks: Resource
    needs_mib: float
    free_mib: float
    until: Cpv | None
    """What runs there and is expected to make room by ending, if that can be told."""
    at: float
    """When it is expected to start."""

    def sentence(self, say: Say) -> str:
        end = f" until {self.until} ends {_about(say, self.at)}" if self.until else ""
        ready = f"ready since {say(self.since)}"
        if self.lacks == "company":
            return f"{ready}, waiting for {self.host}, where a package is built that it shares no host with{end}"
        sizes = f"needs {self.needs_mib:.0f} MiB, {self.free_mib:.0f} free{end}"
        return f"{ready}, waiting for {self.lacks} on {self.host} ({sizes})"


@dataclass(frozen=True, slots=True)
class Patient:
    """A node is free, but it ends sooner by waiting for a faster one."""

    kind: ClassVar = "patient"
    since: float
    host: str
    at: float
    """When the faster one is expected."""
    end: float
    slow: str
    slow_end: float
    """When it would end if it took what is free."""

    def sentence(self, say: Say) -> str:
        return (
            f"ready since {say(self.since)}, but a fast node of {self.host}, expected at {say(self.at)}, ends it "
            f"at {say(self.end)}, sooner than one of {self.slow} now ({say(self.slow_end)})"
        )


@dataclass(frozen=True, slots=True)
class Behind:
    """There is room for it, which is kept for one that is wanted more."""

    kind: ClassVar = "behind"
    since: float
    host: str
    first: Cpv
    at: float

    def sentence(self, say: Say) -> str:
        return (
            f"ready since {say(self.since)}, but on {self.host} it would put off {self.first}, which is wanted more; "
            f"it starts {_about(say, self.at)}"
        )


Reason = Ended | Blocked | Building | Waiting | Starting | Turn | Queued | Crowded | Patient | Behind


def _about(say: Say, at: float) -> str:
    return "at a time that cannot be told" if at == math.inf else f"about {say(at)}"
