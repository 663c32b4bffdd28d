"""`cluster binhost`: the directory of finished binary packages."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from cluster.errors import InputError
from cluster.master import binhost as binhosts
from cluster.master import mirror, s3
from cluster.master.session import Session
from cluster.options import Common, What, console_for, open_one, print_json


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


def binhost_push(where: str | None = None, /, *, what: What | None = None, common: Common | None = None) -> int:
    """Copy to WHERE, a place in S3, what it lacks of the binhost; what others have put there stays.

    WHERE is s3://BUCKET/PREFIX, by default the place where builds are mirrored (binhost.mirror).
    """
    common = common or Common()
    session = open_one(what or What(), common)
    bucket = s3.Bucket(_place(session, where))
    moved = mirror.push(binhosts.Binhost(session.binhost, session.target.chost), bucket)
    return _said(common, moved, f"copied to {bucket.place}")


def binhost_pull(where: str | None = None, /, *, what: What | None = None, common: Common | None = None) -> int:
    """Copy to the binhost what it lacks of that at WHERE, a place in S3.

    WHERE is s3://BUCKET/PREFIX, by default the place where builds are mirrored (binhost.mirror).
    """
    common = common or Common()
    session = open_one(what or What(), common)
    bucket = s3.Bucket(_place(session, where))
    moved = mirror.pull(bucket, binhosts.Binhost(session.binhost, session.target.chost))
    return _said(common, moved, f"copied from {bucket.place}")


def _place(session: Session, where: str | None) -> s3.Place:
    place = mirror.place_of(session) if where is None else s3.place(where)
    if place is None:
        raise InputError("it is not said where in S3", "name s3://BUCKET/PREFIX, or set binhost.mirror")
    return place


def _said(common: Common, moved: mirror.Moved, words: str) -> int:
    if common.json:
        print_json({"copied": moved.packages, "bytes": moved.size, "packages": moved.there})
    else:
        line = f"{moved} {words}; there are {moved.there} now"
        console_for(common).print(line, highlight=False, soft_wrap=True)
    return 0
