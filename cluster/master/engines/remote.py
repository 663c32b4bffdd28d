"""The engine of a run on other hosts, with all that it needs here: a scheduler, the master's files, workers there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import InputError
from cluster.host import blobs
from cluster.host.bench import Equipment
from cluster.host.pool import LOOPBACK, Member, Offer
from cluster.host.shelf import Shelf
from cluster.host.store import Store
from cluster.host.tls import Authority, Identity
from cluster.master import equipment
from cluster.master.dispatch import Compiles
from cluster.master.ec2 import notices
from cluster.master.ec2.steward import Steward
from cluster.master.engines import crew, scheduler
from cluster.master.engines.courier import Courier
from cluster.master.engines.dask import DaskEngine
from cluster.master.engines.delivery import Delivery
from cluster.master.engines.engine import Change, Draining
from cluster.master.engines.helpers import Helpers
from cluster.master.engines.lender import Lender
from cluster.master.hosts import link, outposts
from cluster.master.hosts.outposts import Headquarters, Outposts
from cluster.master.hosts.registry import Machine, Registry, State
from cluster.master.progress import Reporter, Watcher
from cluster.master.session import Session

_MASTER = "master"


def machines(session: Session) -> tuple[Machine, ...]:
    """The hosts that are ready to build for the session's target; none where it is to build on this machine alone.

    Raises InputError for a broken registry, and where those that are ready have no nodes.
    """
    if not session.config.hosts.use:
        return ()
    name, known = session.target.name, Registry(session.directories.hosts).all()
    found = tuple(one for one in known if one.state is State.READY and one.serves(name))
    if found and all(one.compiles_only for one in found):
        names = ", ".join(one.name for one in found)
        raise InputError(
            f"no host that is ready has nodes for {name}: {names} only compile for others",
            "add or resume one that has, or build on this machine with --local",
        )
    return found


@dataclass(frozen=True, slots=True)
class Remote:
    """What a run on other hosts goes by."""

    engine: DaskEngine
    watchers: tuple[Watcher, ...]
    """What hands out the hosts' compile slots and what looks after rented ones, which have to see the run for that."""
    compiles: Compiles
    """How many there may be at once, with what the hosts lend each other."""


@contextmanager
def engine(
    session: Session,
    chosen: tuple[Machine, ...],
    delivery: Delivery,
    directory: Path,
    reporter: Reporter,
    steward: Steward | None = None,
) -> Iterator[Remote]:
    """An engine on the `chosen` hosts, and on those that are added meanwhile; its files here are in `directory`.

    The `steward` of what is rented begins with it, and may bring hosts.
    Raises InputError without Dask, MachineError where the master's part does not start.
    """
    scheduler.require()
    reporter.step(f"starting workers on {', '.join(machine.name for machine in chosen)}")
    with ExitStack() as stack:
        hosts = session.directories.hosts
        authority = Authority(hosts / "authority")
        mine = authority.issue(_MASTER)
        courier, files = _courier(session, mine, delivery, directory, stack)
        running = stack.enter_context(scheduler.running(mine, directory))
        name = session.target.name
        base = Headquarters(name, running.port, files, courier, authority, link.identity(hosts))
        posts = stack.enter_context(outposts.kept(base, Registry(hosts), reporter.warn))
        gathered = stack.enter_context(crew.gathering(running, mine, name))
        post, helpers = _Post(session, posts, steward, stack), Helpers(reporter.warn)
        made = stack.enter_context(
            DaskEngine(
                gathered, delivery, courier, post.equipment, post.expects, post.attend, posts.quarantine, helpers
            )
        )
        compiler, compiles = f"{session.target.chost}-gcc", equipment.compiles_of(session)
        lender = stack.enter_context(Lender(gathered, post.way, compiler, compiles, reporter.warn, helpers.ready))
        gathered.offered, gathered.refused = lender.offered, lender.refused
        yield Remote(made, (lender,) if steward is None else (lender, steward), lender.compiles)


def _courier(
    session: Session, mine: Identity, delivery: Delivery, directory: Path, stack: ExitStack
) -> tuple[Courier, int]:
    """What brings files to hosts and back, and the port of loopback on which the master's are served."""
    shelf, store = Shelf(session.directories.cache / "shelf"), Store(directory / "came")
    files = stack.enter_context(blobs.serving(shelf.find, mine))
    client = stack.enter_context(blobs.Client(mine))
    return Courier(shelf, store, client, delivery.log), files.port


@dataclass(frozen=True, slots=True)
class _Post:
    """What the master knows of the hosts of a run, and the engine asks."""

    session: Session
    posts: Outposts
    steward: Steward | None
    stack: ExitStack

    def attend(self, hear: Callable[[Change], None]) -> None:
        """Tell `hear` what users, Amazon and the steward do to hosts, as long as the run lasts."""
        hosts = self.session.directories.hosts
        self.posts.attend(hear)
        self.stack.enter_context(notices.watching(Registry(hosts).all, link.identity(hosts), _noticed(hear)))
        if self.steward is not None:
            self.steward.attend(hear)

    def expects(self) -> bool:
        """Whether hosts may come that are not there."""
        return self.posts.expects() or (self.steward is not None and self.steward.expects())

    def equipment(self, host: str) -> Equipment:
        """What a host builds with."""
        return equipment.trade_for(self.session, self.posts.machine(host))

    def way(self, here: str, there: str, offer: Offer) -> Member:
        """How `here` reaches the distccd of `there`: in a trusted network that both are in, or else through ssh."""
        mine = self.posts.machine(here)
        network = None if mine.tunnel else equipment.trusted_network(self.session, offer.address)
        if network is not None and network == equipment.trusted_network(self.session, mine.address):
            return Member(there, offer.address, offer.port, offer.cores)
        return Member(there, LOOPBACK, self.posts.way(here, there, offer.port), offer.cores, tunnel=True)


def _noticed(hear: Callable[[Change], None]) -> Callable[[notices.News], None]:
    """Tells the run of hosts that Amazon takes back; of those that are gone Dask tells."""

    def heard(news: notices.News) -> None:
        if isinstance(news, notices.Draining):
            hear(Draining(news.name, f"Amazon takes it back at {news.at}" if news.at else "Amazon takes it back"))

    return heard
