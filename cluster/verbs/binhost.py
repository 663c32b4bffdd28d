"""`cluster binhost`: the directory of finished binary packages."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from cluster.master import binhost as binhosts
from cluster.options import Common, What, open_one, print_json


def binhost_serve(
    *,
    address: Annotated[str, Parameter(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int | None, Parameter(help="The TCP port.")] = None,
    what: What | None = None,
    common: Common | None = None,
) -> int:
    """Serve the binhost over HTTP until interrupted."""
    session = open_one(what or What(), common or Common())
    binhosts.Binhost(session.binhost, session.target.chost)
    chosen = session.config.binhost.port if port is None else port

    def ready(where: binhosts.Address) -> None:
        print(f"serving {session.binhost} at {where.url}", flush=True)

    binhosts.serve(session.binhost, address, chosen, ready)
    return 0


def binhost_list(*, what: What | None = None, common: Common | None = None) -> int:
    """List the packages of the binhost."""
    common = common or Common()
    session = open_one(what or What(), common)
    entries = binhosts.Binhost(session.binhost, session.target.chost).entries()
    if common.json:
        print_json([{"cpv": entry.metadata.cpv, "size": entry.size, "path": entry.path} for entry in entries])
        return 0
    for entry in entries:
        print(f"{entry.metadata.cpv}\t{entry.size}")
    return 0
