"""A rental: instances of Amazon EC2 that were asked for together, and the record of them that outlives the master.

ec2/builds.lock  shared (flock) by the builds that look after what is rented
ec2/RUN/
    lock         held (flock) by whoever changes what is rented
    rental.json  the record, published by rename: it is there before the first call that makes anything
    key          the private key that opens the instances; key.pub beside it
    host_key     what the instances answer with; host_key.pub is pinned
    spans.jsonl  which package took which host's nodes and when, a JSON object each
"""

from __future__ import annotations

import fcntl
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import IO

from pydantic import TypeAdapter, ValidationError

from cluster import paths
from cluster.errors import InputError, MachineError

TAG = "portage-cluster"
"""The key of the tag that everything made for a rental has from the call that makes it; its value is the run."""

_RECORD = "rental.json"
_SPANS = "spans.jsonl"
_PRIVATE = 0o700
_HOUR_S = 3600.0
_LOOK_S = 0.1


class Market(StrEnum):
    """How instances are paid for."""

    SPOT = "spot"
    ON_DEMAND = "on-demand"


class State(StrEnum):
    """How far a rental has come."""

    STARTING = "starting"
    UP = "up"
    ENDING = "ending"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a rental never exceeds."""

    hosts: int
    """Instances at once."""
    usd_h: float
    """Of all of them together, disks and addresses included."""
    budget_usd: float
    """In all."""
    hours: float | None = None
    """None for as long as the budget lasts."""


@dataclass(frozen=True, slots=True)
class Part:
    """Instances that are to be alike."""

    type: str
    count: int
    compiles_only: bool = False
    """Whether they have no nodes, and compile for those of others."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be rented."""

    instances: Mapping[str, int]
    """How many of each type."""
    market: Market
    region: str
    limits: Limits
    targets: tuple[str, ...] = ()
    """That it is to build for."""
    grows: bool = False
    """Whether builds may rent more of these types, within the limits."""
    image: str = ""
    """An AMI for all of it in the place of Debian's."""
    compiling: Mapping[str, int] = field(default_factory=dict)
    """How many of these have no nodes and compile for the others."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """What it consists of: those that build, and then those that only compile."""
        building = {name: count - self.compiling.get(name, 0) for name, count in self.instances.items()}
        each = [Part(name, count) for name, count in building.items()]
        each += [Part(name, count, compiles_only=True) for name, count in self.compiling.items()]
        return tuple(part for part in each if part.count)


@dataclass(frozen=True, slots=True)
class Instance:
    """One that AWS has started."""

    id: str
    type: str
    usd_h: float
    """The most that an hour of it costs, its disk and address included."""
    since: float
    """Seconds since the epoch."""
    until: float | None = None
    """When it was seen to be gone; None while it is paid for."""
    address: str = ""
    """Where the master reaches it; "" until it has one."""
    joined: bool = False
    """Whether it answered with the rental's host key and was taken among the hosts."""
    why: str = ""
    """Why it was ended before the others."""
    compiles_only: bool = False
    """Whether it is to have no nodes, and to compile for those of others."""

    @property
    def name(self) -> str:
        """Its name among the hosts."""
        return f"ec2-{self.id.removeprefix('i-')[-8:]}"


@dataclass(frozen=True, slots=True)
class Span:
    """A node's time with a package."""

    package: str
    host: str
    """The name of the machine: `Instance.name`."""
    began: float
    """Seconds since the epoch, as `ended`."""
    ended: float

    @property
    def seconds(self) -> float:
        """How long it was."""
        return max(0.0, self.ended - self.began)


@dataclass(frozen=True, slots=True)
class Rental:
    """The record."""

    run: str
    region: str
    market: Market
    wished: Mapping[str, int]
    """How many of each type, without those that only compile."""
    limits: Limits
    hours: float
    """After which each instance ends itself, from its own start."""
    silence_min: int
    """Minutes without a word from the master after which an instance ends itself."""
    source: str
    """The network in CIDR notation from which ssh is let in."""
    began: float
    state: State = State.STARTING
    instances: tuple[Instance, ...] = ()
    missing: tuple[str, ...] = ()
    """What of the wish was not to be had, and why."""
    targets: tuple[str, ...] = ()
    """That it builds for."""
    grows: bool = False
    """Whether builds may rent more of what was wished for, within the limits."""
    image: str = ""
    """The AMI of its instances, if it is not Debian's."""

    @property
    def until(self) -> float:
        """When the last instance has ended itself at the latest, in seconds since the epoch."""
        return self.began + self.hours * _HOUR_S

    @property
    def living(self) -> tuple[Instance, ...]:
        """The instances that are paid for now."""
        return tuple(one for one in self.instances if one.until is None)

    def known(self, instance: Instance) -> Rental:
        """The same with `instance` in the place of the one with its id, or added."""
        others = tuple(one for one in self.instances if one.id != instance.id)
        return replace(self, instances=(*others, instance))

    def updated(self, instances: Iterable[Instance]) -> Rental:
        """The same with what is known anew of `instances`; one that has an end keeps it."""
        rental, over = self, {one.id for one in self.instances if one.until is not None}
        for one in instances:
            rental = rental if one.id in over else rental.known(one)
        return rental

    def gone(self, ids: frozenset[str], at: float, why: str = "") -> Rental:
        """The same after the instances of `ids`, where they still were, have ended at `at`."""
        return replace(
            self,
            instances=tuple(
                replace(one, until=at, why=why or one.why) if one.id in ids and one.until is None else one
                for one in self.instances
            ),
        )


def new_run(now: float) -> str:
    """A name that sorts by time and that no other rental has."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}-{secrets.token_hex(2)}"


_ADAPTER = TypeAdapter(Rental)
_SPAN = TypeAdapter(Span)


class Rentals:
    """The records of one installation, in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def place(self, run: str) -> Path:
        """The directory of a rental, in which its keys are."""
        return self._directory / run

    def save(self, rental: Rental) -> None:
        """Write the record, in a directory that only its user can read."""
        place = self.place(rental.run)
        place.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        paths.publish(place / _RECORD, lambda file: file.write_bytes(_ADAPTER.dump_json(rental, indent=1)))

    def get(self, run: str) -> Rental:
        """The rental called `run`. Raises InputError, which names those that are known."""
        path = self.place(run) / _RECORD
        try:
            return _ADAPTER.validate_json(path.read_bytes())
        except FileNotFoundError:
            known = ", ".join(one.run for one in self.all()) or "none"
            raise InputError(f"no rental is called {run!r}", f"known: {known}") from None
        except ValidationError as error:
            mend = "remove its directory, and `cluster ec2 reap --all --yes` ends what it had"
            raise MachineError(f"{path} is not a record of a rental", mend) from error

    def is_held(self, run: str) -> bool:
        """Whether a process is at work on a rental."""
        try:
            with self.held(run):
                return False
        except InputError:
            return True

    def note(self, run: str, spans: Iterable[Span]) -> None:
        """Add what nodes of its instances did, for the bill."""
        with (self.place(run) / _SPANS).open("ab") as stream:
            stream.writelines(_SPAN.dump_json(span) + b"\n" for span in spans)

    def spans(self, run: str) -> tuple[Span, ...]:
        """What was noted. A line that a killed master has not finished is left out."""
        path = self.place(run) / _SPANS
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        return tuple(_SPAN.validate_json(line) for line in lines)

    def all(self) -> tuple[Rental, ...]:
        """Every rental that has a record, the oldest first."""
        return tuple(self.get(path.parent.name) for path in sorted(self._directory.glob(f"*/{_RECORD}")))

    def amend(self, run: str, change: Callable[[Rental], Rental], *, wait_s: float = 0.0) -> Rental:
        """Change the record, as `held` for so long; returns what it is then."""
        with self.held(run, wait_s=wait_s):
            changed = change(self.get(run))
            self.save(changed)
            return changed

    @contextmanager
    def held(self, run: str, *, wait_s: float = 0.0) -> Iterator[None]:
        """Be the one that changes what is rented. Raises InputError if another process or thread does for so long."""
        place, end = self.place(run), time.monotonic() + wait_s
        place.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        with (place / "lock").open("w") as stream:
            while not _locked(stream):
                if time.monotonic() >= end:
                    mend = "wait for it, or interrupt it: it ends what it has begun"
                    raise InputError(f"another process is at work on the rental {run}", mend)
                time.sleep(_LOOK_S)
            yield


def _locked(stream: IO[str]) -> bool:
    """Whether the lock is taken, which nobody else had."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
