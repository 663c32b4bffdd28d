"""What a package of Portage's solution is made from, read from the repositories and the configuration.

cluster.master.fingerprint says what each part is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from cluster.master import buildconfig, portagelib
from cluster.master.fingerprint import Parts, digest
from cluster.master.solution import Need, Node
from cluster.model import Cpv, Distfile, full_slot, main_slot
from cluster.subset import Subset, Universe


def of(
    target: portagelib.Target,
    node: Node,
    needs: Iterable[Need],
    requires: Subset[Cpv],
    distfiles: Iterable[Distfile],
    metadata: str,
) -> Parts:
    """The fingerprint of `node`, which has `needs`, and in its node `requires`; without the stage's part of it.

    `metadata` is its entry for metadata/md5-cache.
    """
    ebuild = target.ebuild(node.cpv, node.repository)
    digests = _digests(metadata)
    config = buildconfig.relevant(target.variables(node), target.use_expand)
    environment = dict(_environment_files(target.place.root / "etc/portage/env", node))
    return (
        *digests,
        ("files", _tree(ebuild.parent / "files")),
        ("sources", digest(*(f"{file.name} {file.digests}" for file in distfiles))),
        ("patches", _patches(target.place.root / "etc/portage/patches", node)),
        ("config", buildconfig.part({**config, **environment})),
        ("slots", _slots(needs)),
        ("tools", ",".join(requires.among(_tools_of(requires.universe)))),
    )


@lru_cache(maxsize=1)
def _tools_of(plan: Universe[Cpv]) -> int:
    """Those of a plan's packages that are tools, as bits: found once, not again for every package."""
    return plan.bits(cpv for cpv in plan.items if portagelib.name(cpv) in buildconfig.tools())


def _digests(metadata: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """What `portagelib.Target.cache_entry` says of the contents of ebuild and eclasses."""
    values = dict(line.partition("=")[::2] for line in metadata.splitlines())
    words = values.get("_eclasses_", "").split("\t")
    eclasses = ",".join(f"{name}:{value}" for name, value in zip(words[::2], words[1::2], strict=False))
    return ("ebuild", values["_md5_"]), ("eclasses", eclasses)


def _tree(directory: Path) -> str:
    """A hash of the files below `directory`; of none that it is not there."""
    files = (path for path in sorted(directory.rglob("*")) if path.is_file()) if directory.is_dir() else ()
    return digest(*(part for path in files for part in (str(path.relative_to(directory)), path.read_bytes())))


def _patches(directory: Path, node: Node) -> str:
    return digest(*(part for path in patches(directory, node) for part in (path.name, path.read_bytes())))


def patches(directory: Path, node: Node) -> tuple[Path, ...]:
    """The patches below `directory` that eapply_user would apply to `node`, in its order.

    As in Portage's phase-helpers.sh: a more specific directory's patch is taken before another of
    its name, and an empty one takes that away.
    """
    category, name, version, revision = portagelib.split(node.cpv)
    if not (directory / category).is_dir():
        return ()
    slot = main_slot(node.slot)
    found: dict[str, Path] = {}
    for stem in (name, f"{name}-{version}", f"{name}-{version}-{revision}"):
        for place in (directory / category / stem, directory / category / f"{stem}:{slot}"):
            for path in sorted(place.iterdir()) if place.is_dir() else ():
                if path.suffix in (".diff", ".patch"):
                    found[path.name] = path
    return tuple(found[each] for each in sorted(found) if found[each].stat().st_size)


def _environment_files(directory: Path, node: Node) -> Iterator[tuple[str, str]]:
    """The shell files that Portage sources for `node` alone (__source_env_files in its ebuild.sh)."""
    category, name, version, _ = portagelib.split(node.cpv)
    if not (directory / category).is_dir():
        return
    slot = main_slot(node.slot)
    stems = (name, f"{name}:{slot}", f"{name}-{version}", node.cpv.partition("/")[2])
    for path in dict.fromkeys(directory / category / stem for stem in stems):
        if path.is_file():
            yield f"{buildconfig.FILE}{path.name}", path.read_text(errors="replace")


def _slots(needs: Iterable[Need]) -> str:
    """What the slot operators of `needs` are bound to: only these tell of a library's ABI (PMS 8.3.3)."""
    bound = (need.child for need in needs if any(map(portagelib.is_bound, need.atoms)))
    return ",".join(sorted({f"{child.cp}:{full_slot(child.slot)}" for child in bound}))
