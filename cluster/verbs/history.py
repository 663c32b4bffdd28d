"""`cluster history`: past builds, and what is expected of the next ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cluster import config, historytable, paths, target
from cluster.errors import InputError
from cluster.master import backup, historyfile, s3, subject
from cluster.master.estimate import qualities
from cluster.master.history import Build, Course, by_target, courses
from cluster.master.journal import Journal
from cluster.options import Common, console_for, print_json

OfTarget = Annotated[str | None, Parameter(name="--target", help="Of this target alone.")]


def history_show(*names: str, of: OfTarget = None, common: Common | None = None) -> int:
    """Show what the builds of each version come to: of NAMES (atoms, or names alone), or of all."""
    common = common or Common()
    builds = _builds(of, common)
    if names:
        absent = ("was never built", "`cluster history show` lists what was")
        wanted = subject.among(names, {build.cpv for build in builds}, absent=absent)
        builds = tuple(build for build in builds if build.cpv in wanted)
    found = _courses(builds)
    if common.json:
        print_json(historytable.packages_json(found))
    else:
        historytable.packages(console_for(common), found)
    return 0


def history_errors(file: Path | None = None, /, *, of: OfTarget = None, common: Common | None = None) -> int:
    """Show how good estimates are: of each version on record, or in FILE, as if its last build were still to come."""
    common = common or Common()
    found = qualities(_builds(of, common) if file is None else historyfile.read(file))
    if common.json:
        print_json(historytable.errors_json(found))
    else:
        historytable.errors(console_for(common), found)
    return 0


def history_export(file: Path, /, *, of: OfTarget = None, common: Common | None = None) -> int:
    """Write all builds on record into FILE: .jsonl or .csv, packed if .xz or .gz follows."""
    common = common or Common()
    builds = _builds(of, common)
    historyfile.write(file, builds)
    return _said(common, f"{len(builds)} builds written to {file}", {"written": len(builds)})


def history_import(
    file: Path,
    /,
    *,
    of: Annotated[
        str | None, Parameter(name="--target", help="The target that they count for; by default what FILE says.")
    ] = None,
    common: Common | None = None,
) -> int:
    """Add the builds in FILE to those on record: an export, or the history of pkgsrc's builder bob, packed or not.

    A build that is on record already is not added again.
    """
    common = common or Common()
    builds = historyfile.read(file, of)
    for name in by_target(builds):
        if not name:
            raise InputError(f"{file} does not say what its builds were for", "name it with --target")
        target.load(name)
    added = Journal(paths.directories(common.state).journal).add(builds)
    words = f"{added} builds added, {len(builds) - added} were on record already"
    return _said(common, words, {"added": added, "known": len(builds) - added})


def history_restore(where: str | None = None, /, *, common: Common | None = None) -> int:
    """Add to the builds on record those of every backup at WHERE, s3://BUCKET/PREFIX as in binhost.mirror."""
    common = common or Common()
    where = where or config.load(common.config).binhost.mirror
    if not where:
        raise InputError("it is not said where in S3", "name s3://BUCKET/PREFIX, or set binhost.mirror")
    restored = backup.restore(Journal(paths.directories(common.state).journal), s3.place(where))
    words = f"{restored.added} builds added of {len(restored.backups)} backups, {restored.known} were on record already"
    numbers = {"backups": len(restored.backups), "added": restored.added, "known": restored.known}
    return _said(common, words, numbers)


def _builds(of: str | None, common: Common) -> tuple[Build, ...]:
    """The builds on record; to ask makes no journal."""
    if of is not None:
        target.load(of)
    journal = paths.directories(common.state).journal
    return Journal(journal).builds(of) if journal.exists() else ()


def _courses(builds: tuple[Build, ...]) -> list[Course]:
    found = [course for own in by_target(builds).values() for course in courses(own).values()]
    return sorted(found, key=lambda course: (course.last.name, course.last.target, course.last.ended))


def _said(common: Common, words: str, numbers: dict[str, int]) -> int:
    if common.json:
        print_json(numbers)
    else:
        console_for(common).print(words, highlight=False, soft_wrap=True)
    return 0
