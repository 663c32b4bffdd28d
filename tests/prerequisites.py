"""What the node has before each package of @system, against what emerge would install before that package alone.

    python tests/prerequisites.py [arm64|arm|riscv] [TREE]

asks emerge once for each package, some minutes in all, and prints every difference.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import built
import portage
from emerge import Emerge, running

from cluster.bench import gentoo
from cluster.master.resolver import Request, resolve
from cluster.model import Cpv, Plan

_OPTIONS = ("-pve", "--onlydeps", "--onlydeps-with-rdeps=n", "--usepkg")


def implicit(arch: str) -> tuple[str, ...]:
    """The flags that a profile of Gentoo turns on for every ebuild."""
    return (arch, "elibc_glibc", "kernel_linux")


@dataclass(frozen=True, slots=True)
class Compared:
    """One package's prerequisites, as we have them and as emerge lists them."""

    cpv: Cpv
    ours: frozenset[str]
    emerges: frozenset[str]
    """All that emerge would install before it."""
    before: frozenset[str]
    """Those of them that come before it in the plan; the others form a circle with it, and the stage has them."""

    @property
    def same(self) -> bool:
        """Whether ours are those of emerge's that come before the package."""
        return self.ours == self.before

    @property
    def whole(self) -> bool:
        """Whether ours are all of emerge's."""
        return self.ours == self.emerges

    def __str__(self) -> str:
        more, less = sorted(self.ours - self.before), sorted(self.before - self.ours)
        return f"{self.cpv}: ours alone {' '.join(more) or '-'}; emerge's alone {' '.join(less) or '-'}"


def compare(emerge: Emerge, request: Request, plan: Plan, arch: str, cpvs: tuple[Cpv, ...]) -> Iterator[Compared]:
    """`plan`, of `request`, against emerge for each of `cpvs`, with binary packages of everything else."""
    built.index(built.records(plan, implicit(arch)), plan.chost, emerge.prefix.root / "binpkgs")
    place = {package.cpv: index for index, package in enumerate(plan.packages)}
    for cpv in cpvs:
        words = (*_OPTIONS, "--usepkg-exclude", str(portage.cpv_getkey(cpv)), f"={cpv}")
        # The packages are for the target's CHOST, which need not be the profile's.
        features = "pkgdir-index-trusted -binpkg-multi-instance"
        answer = emerge.ask(request, words, FEATURES=features, ACCEPT_CHOSTS=".*")
        assert answer.status == 0, answer.printed
        listed = [Cpv(merge.cpv) for merge in answer.merges]
        assert set(listed) <= set(place), f"{cpv}: emerge chose {sorted(set(listed) - set(place))}"
        before = (other for other in listed if place[other] < place[cpv])
        yield Compared(cpv, frozenset(plan.package(cpv).requires), frozenset(listed), frozenset(before))


def main(arch: str = "arm64", tree: str = str(gentoo.TREE)) -> int:
    """Compare all of @system; returns the number of differences."""
    with tempfile.TemporaryDirectory() as name, running(Path(name, "prefix")) as emerge:
        scratch = Path(name)
        request = gentoo.system(gentoo.repository(Path(tree), scratch / "tree"), arch, scratch / "stage")
        plan = resolve(request, scratch / "work")
        same = whole = 0
        for compared in compare(emerge, request, plan, arch, tuple(package.cpv for package in plan.packages)):
            same += compared.same
            whole += compared.whole
            if not compared.same:
                print(compared, flush=True)
    total = len(plan.packages)
    print(f"{arch}: {same} of {total} as emerge, {whole} of them with nothing of emerge's after the package")
    return total - same


if __name__ == "__main__":
    sys.exit(min(main(*sys.argv[1:]), 1))
