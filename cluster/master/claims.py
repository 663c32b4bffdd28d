"""Where the runs of one machine meet: a directory for all its users, with a file for each run that lives.

DIRECTORY/      mode 1777; locked (flock) by the run whose turn it is
    claim-ID    what a run wants and holds, as JSON; locked (flock) as long as the run lives

In its turn a run reads what the others claim, decides by `shares`, and writes down what it may use from then on. Nodes
count from when they are given, not from when they are used, so all runs together never use more than there are.
With a killed run goes its lock, and with that its claim.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cluster import paths
from cluster.config import Weight
from cluster.errors import MachineError
from cluster.master.shares import Claim, shares

PLACES = (Path("/run/lock"), Path("/tmp"))
"""Where every user may make files, on every machine of one kind: the first that is there is taken by all."""

_NAME = "portage-cluster"
_FOR_ALL = stat.S_ISVTX | 0o777
_LONGEST = 4096  # bytes of a claim
_Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0)]


class _Written(BaseModel):
    """What a claim's file says. Another user has written it, so nothing is taken on trust."""

    model_config = ConfigDict(frozen=True, strict=True)

    nodes: _Count
    """How many the run takes the machine to bear."""
    at: _Number
    """When it was written, by the machine's monotonic clock."""
    weight: Weight
    urgent: bool
    wants: _Count
    holds: _Count
    served: _Number

    def claim(self, name: str, now: float) -> Claim:
        """What it comes to by `now`."""
        claim = Claim(name, self.weight, self.urgent, self.wants, self.holds, self.served)
        return claim.after(max(0.0, now - self.at))


def directory() -> Path:
    """Where the runs of this machine meet: of all users if there is such a place, else of this one."""
    for place in PLACES:
        if _is_for_all(place):
            with suppress(OSError):
                _make_for_all(place / _NAME)
            if _is_for_all(place / _NAME):
                return place / _NAME
    own = paths.runtime() / "claims"
    own.mkdir(parents=True, exist_ok=True)
    return own


def _is_for_all(path: Path) -> bool:
    """Whether it is a directory, no link to one, in which every user may make files and remove none but his own."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False
    return stat.S_ISDIR(mode) and mode & _FOR_ALL == _FOR_ALL


def _make_for_all(path: Path) -> None:
    before = os.umask(0)  # a chmod after it would be too late for one who looks in between
    try:
        path.mkdir(_FOR_ALL)
    finally:
        os.umask(before)


class Sharing:
    """A run's part in the nodes of its machine, as long as its context lasts."""

    def __init__(self, place: Path, *, weight: float, nodes: int, tell: Callable[[str], None]) -> None:
        """The runs meet in `place`. The machine bears `nodes` nodes, or what another of them says if that is more.

        `tell` is given a line when a person should know that the share has changed.
        """
        self._path = place / f"claim-{secrets.token_hex(8)}"
        self._claim = Claim(self._path.name, weight)
        self._at = time.monotonic()
        self._nodes = nodes
        self._tell = tell
        self._told = ""
        self._allowed = 0
        self._lock = ExitStack()

    def __enter__(self) -> Self:
        """Raises MachineError when no claim can be written."""
        try:
            self._publish()
        except OSError as error:
            raise MachineError(
                f"{self._path} cannot be written: {error.strerror}", "make room, or remove it"
            ) from error
        return self

    def __exit__(self, *exception: object) -> None:
        with suppress(OSError):
            self._path.unlink()
        self._lock.close()

    def allowed(self, *, wants: int, holds: int, urgent: bool) -> int:
        """How many nodes this run may use, which could use `wants` and uses `holds`.

        Where no turn can be taken the last answer stands until the next question.
        """
        try:
            with _turn(self._path.parent):
                self._decide(wants, holds, urgent)
        except OSError as error:
            self._say(f"no word to other builds ({error}): this one may use {self._allowed} nodes until there is")
        return self._allowed

    def _decide(self, wants: int, holds: int, urgent: bool) -> None:
        now = time.monotonic()
        others = dict(_others(self._path, now))
        mine = self._claim.after(now - self._at).among(others)
        mine = replace(mine, urgent=urgent, wants=wants, holds=holds)
        nodes = max((self._nodes, *others.values()))
        allowed = shares((mine, *others), nodes)[mine.id] if others else self._nodes
        self._claim, self._at = replace(mine, holds=max(holds, allowed)), now
        self._publish()
        self._allowed = allowed
        self._note(len(others), wants, nodes)

    def _publish(self) -> None:
        """Let the claim's file say what the claim is, locked before it has its name."""
        written = {**asdict(self._claim), "nodes": self._nodes, "at": self._at}
        text = _Written.model_validate(written).model_dump_json()
        with ExitStack() as fresh:
            paths.publish(self._path, lambda part: _write_locked(part, text, fresh))
            self._lock.close()
            self._lock = fresh.pop_all()

    def _note(self, others: int, wants: int, nodes: int) -> None:
        """Say what the others leave of the nodes, if they leave less than could be used, and when they are gone."""
        if others and self._allowed < wants:
            share = "1 other build shares" if others == 1 else f"{others} other builds share"
            self._say(f"{share} this machine: this one may use {self._allowed} of {nodes} nodes")
        elif self._told and not others:
            self._say(f"no other build shares this machine: this one may use {self._allowed} of {nodes} nodes")

    def _say(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self._tell(text)


@contextmanager
def _turn(place: Path) -> Iterator[None]:
    """Have the turn, after whoever has it: that takes less than a millisecond, and no longer than its run lives."""
    handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write_locked(path: Path, text: str, stack: ExitStack) -> None:
    stream = stack.enter_context(path.open("w"))
    fcntl.flock(stream, fcntl.LOCK_EX)
    stream.write(text)
    stream.flush()


def _others(own: Path, now: float) -> Iterator[tuple[Claim, int]]:
    """The claims of the other runs that live, and how many nodes each takes the machine to bear.

    Those of dead ones are removed, as far as they are this user's.
    """
    for path in sorted(own.parent.glob("claim-*")):
        if path == own:
            continue
        with suppress(OSError, ValidationError):
            text = _read(path)
            if text is None:
                path.unlink()
                continue
            written = _Written.model_validate_json(text)
            yield written.claim(path.name, now), written.nodes


def _read(path: Path) -> bytes | None:
    """What a live run's claim says; None where nobody holds its lock."""
    # A pipe or a link that somebody has put there must neither hold us up nor lead us elsewhere.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return stream.read(_LONGEST)
    return None
