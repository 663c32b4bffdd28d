"""What a build has to do with Amazon: the steward of its rented hosts, and their end after it."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from cluster.errors import ClusterError
from cluster.master.ec2 import catalogue, hosting, renting, speeds
from cluster.master.ec2.client import Cloud
from cluster.master.ec2.estate import Estate
from cluster.master.ec2.ledger import Ledger
from cluster.master.ec2.rental import Rental, Rentals, State
from cluster.master.ec2.steward import Leave, Steward
from cluster.master.hosts import link
from cluster.master.hosts.registry import Registry
from cluster.master.progress import Reporter, Teller
from cluster.master.session import Session

_BUILDS = "builds.lock"


class _Hushed:
    """What is told of setting hosts up, while there is more to tell."""

    def step(self, text: str) -> None:
        """Not said."""

    def tell(self, text: str) -> None:
        """Not said."""


@contextmanager
def steward(session: Session, reporter: Reporter, *, more: bool) -> Iterator[Steward | None]:
    """Looks after what is rented as long as the context lasts; None where nothing is.

    With `more`, as another build follows that is to find the hosts, none is let go for want of work, nor while other
    builds of this master run, which may need them: nobody knows what for.
    """
    directories = session.directories
    rentals = Rentals(directories.rentals)
    hosting.tidy(Registry(directories.hosts), rentals)
    if not any(one.state is State.UP for one in rentals.all()):
        yield None
        return
    scale = session.config.ec2.scale
    with _present(directories.rentals / _BUILDS) as is_alone:

        def leave() -> Leave:
            alone = scale and is_alone()
            return Leave(let_go=alone and not more, rent=alone)

        made = Steward(_estate(session, _Hushed()), Ledger(rentals), leave, reporter)
        try:
            yield made
        finally:
            made.stop()


@contextmanager
def _present(path: Path) -> Iterator[Callable[[], bool]]:
    """Share the lock `path` with other builds; gives what says whether there is none."""
    with path.open("a") as stream:

        def is_alone() -> bool:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            finally:
                fcntl.flock(stream, fcntl.LOCK_SH)  # what failed has given up the share: flock(2)
            return True

        fcntl.flock(stream, fcntl.LOCK_SH)
        yield is_alone


def _estate(session: Session, teller: Teller) -> Estate:
    directories = session.directories
    identity = link.identity(directories.hosts)
    return Estate(
        rentals=Rentals(directories.rentals),
        registry=Registry(directories.hosts),
        target=session.target.name,
        catalogue=lambda region: catalogue.load(directories, region),
        speeds=lambda: speeds.read(speeds.file(directories)),
        cloud=cache(Cloud),
        welcome=lambda known: hosting.reception(directories, known, teller, session.config.node.memory_mib),
        master=identity.with_suffix(".pub").read_text().strip(),
    )


def down(sessions: Iterable[Session], reporter: Reporter) -> None:
    """End what is rented and has hosts for the sessions' targets, and remove all of it; a failure is said."""
    for session in sessions:
        rentals, registry = Rentals(session.directories.rentals), Registry(session.directories.hosts)
        hosts = {one.rented for one in registry.all() if session.target.name in one.nodes}
        for rental in rentals.all():
            if rental.state is State.UP and any(one.id in hosts for one in rental.living):
                _down(rental, rentals, reporter)
        hosting.tidy(registry, rentals)


def _down(rental: Rental, rentals: Rentals, reporter: Reporter) -> None:
    reporter.step(f"ending {rental.run}")
    try:
        renting.down(Cloud(rental.region), rentals, rental.run)
    except ClusterError as error:
        reporter.warn(f"{rental.run} is not ended: {error}; `cluster ec2 down` tries again")
