"""Where a host builds what a master sends it: parcels in, binary packages and logs out, by their content.

    DIRECTORY/gate.json     how the master reaches this host: see `Gate`
    DIRECTORY/state/        of the nodes

What has come stays in a store in the user's cache, for the next run.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from cluster import paths
from cluster.host import blobs, parcel
from cluster.host import kit as kits
from cluster.host.builder import Builder
from cluster.host.pool import Offer, Pool
from cluster.host.runs import Run
from cluster.host.store import Blob, Store
from cluster.host.tls import Identity
from cluster.host.work import Product

_KEPT_BYTES = 20 << 30
"""Of what masters have sent, between runs."""


@dataclass(frozen=True, slots=True)
class Gate:
    """How the files of a host are reached by others."""

    identity: Path
    """The directory of its certificate (`tls.Identity.at`)."""
    address: str
    """Where its blobs are served."""
    port: int

    def save(self, directory: Path) -> None:
        """Write it where a worker with `directory` looks for it."""
        (directory / "gate.json").write_text(json.dumps(asdict(self), default=str))

    @classmethod
    def of(cls, directory: Path) -> Gate:
        """The one that was saved in `directory`."""
        known = json.loads((directory / "gate.json").read_text())
        return cls(Path(known["identity"]), known["address"], known["port"])


@dataclass(frozen=True, slots=True)
class Sent:
    """What a host is sent for one package."""

    parcel: parcel.Parcel
    sources: Mapping[Blob, Sequence[str]]
    """Where it gets each file from that it has not."""


@dataclass(frozen=True, slots=True)
class Came:
    """What a host made of it."""

    product: Product
    """Its binpkg is the file's name."""
    binpkg: Blob | None
    log: Blob
    pilot: Blob | None
    """The log of the pilot, where one flew."""


@dataclass(frozen=True, slots=True)
class Trade:
    """What a host is to build, and how: what makes a `Workshop` there."""

    kit: kits.Kit
    """The master's; a host's cache takes the place of the one that it names."""
    nodes: int
    """The most at once."""
    membership: kits.Membership | None = None
    """None for no pool of distccds."""

    @property
    def is_early(self) -> bool:
        """A snapshot may have to be made, and others wait for the distccd."""
        return True

    def bench(self, directory: Path) -> Workshop:
        """The workshop of this host, whose own files are below `directory`. Raises ClusterError."""
        with ExitStack() as stack:
            cache = paths.directories().cache
            mine = replace(self.kit, cache=cache)
            live = stack.enter_context(Run(directory / "state"))
            hardware = kits.hardware_of(mine, self.nodes, says := kits.Logged())
            builder = kits.builder_of(mine, hardware, live, stack, says, nodes=self.nodes, membership=self.membership)
            gate, store = Gate.of(directory), Store(cache / "blobs")
            store.prune(_KEPT_BYTES)
            identity = Identity.at(gate.identity)
            stack.enter_context(blobs.serving(store.find, identity, gate.address, gate.port))
            client = stack.enter_context(blobs.Client(identity))
            return Workshop(builder, store, client, live.directory, stack.pop_all())


@dataclass(frozen=True, slots=True)
class Workshop:
    """Builds parcels; may be used from several threads."""

    builder: Builder
    store: Store
    client: blobs.Client
    directory: Path
    stack: ExitStack = field(repr=False)
    """What ends with it."""

    def build(self, sent: Sent, node: str, entered: Callable[[str], None]) -> Came:
        """Build what is `sent` in the fresh node `node`. Raises ClusterError."""
        with tempfile.TemporaryDirectory(prefix=f"{node}-", dir=self.directory) as place:
            entered("files")
            work = parcel.unpack(sent.parcel, self.store, sent.sources, self.client, Path(place))
            said = Path(place) / "build.log"
            product = self.builder.build(work, node, said, entered)
            return self._kept(product, said)

    def abandon(self, node: str) -> None:
        """End what is being built in `node`."""
        self.builder.abandon(node)

    def share(self, slots: Mapping[str, int]) -> None:
        """How many of this host's compile slots each of its nodes has."""
        self.builder.share(slots)

    def pool(self, pool: Pool) -> None:
        """Which distccds nodes may use from now on."""
        self.builder.pool(pool)

    @property
    def offer(self) -> Offer | None:
        """What this host has for a pool."""
        return self.builder.offer

    def stop(self) -> None:
        """End all nodes, and let no new one start."""
        self.builder.stop()
        self.stack.close()

    def _kept(self, product: Product, said: Path) -> Came:
        """The product, with its files in the store."""
        built, pilot = product.built, said.with_suffix(".pilot.log")
        binpkg = self.store.add(built.binpkg) if built.binpkg is not None else None
        named = replace(built, binpkg=built.binpkg and Path(built.binpkg.name))
        flown = self.store.add(pilot) if pilot.exists() else None
        return Came(replace(product, built=named), binpkg, self.store.add(said), flown)
