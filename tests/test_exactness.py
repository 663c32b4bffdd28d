"""Plans over a real tree against emerge itself: packages, slots, USE, repository, order, prerequisites, refusals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import built
import networkx as nx
import pytest
from emerge import Answer, Emerge, running
from prerequisites import compare, implicit
from repos import write_repository
from test_resolver import ERRORS

from cluster import target
from cluster.bench import gentoo
from cluster.errors import InputError
from cluster.master.graph import dependency_graph
from cluster.master.refusal import ResolveError
from cluster.master.resolver import Request, resolve
from cluster.model import Plan, Repository
from cluster.node.installed import write_installed

pytestmark = pytest.mark.slow


@dataclass(frozen=True, slots=True)
class Stages:
    """What is installed already."""

    root: Path
    tree: Repository

    def system(self, arch: str, *, stable: bool = False) -> Request:
        """All of @system anew, over a stage with just enough to break the circles."""
        return gentoo.system(self.tree, arch, self.root / f"seed-{arch}", stable=stable)


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    if not gentoo.TREE.is_dir():
        pytest.skip(f"the Gentoo tree snapshot {gentoo.TREE} is not here")
    root = tmp_path_factory.mktemp("gentoo")
    return Stages(root, gentoo.repository(gentoo.TREE, root / "tree"))


@pytest.fixture(scope="module")
def emerge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emerge]:
    with running(tmp_path_factory.mktemp("emerge") / "prefix") as child:
        yield child


@pytest.fixture(scope="module")
def systems(stages: Stages) -> dict[str, Plan]:
    """The plan of @system for each architecture that a test has asked for."""
    return {}


@pytest.fixture(scope="module")
def older(stages: Stages) -> Path:
    """A whole system of stable packages, some of them older than the newest, as it would be installed."""
    request = stages.system("arm64", stable=True)
    request = replace(request, atoms=(*request.atoms, "=dev-libs/jsoncpp-1.9.6-r2"))
    plan = resolve(request, stages.root / "work-stable")
    return built.install(built.records(plan, implicit("arm64")), stages.root / "older")


def ask(emerge: Emerge, request: Request) -> Answer:
    """What emerge says, with the flags that it else hides."""
    return emerge.pretend(request, USE_EXPAND_HIDDEN="-*")


def check_same(plan: Plan, answer: Answer) -> None:
    """No difference: packages, versions, slots, repository, USE, order."""
    assert answer.status == 0, answer.printed
    ours = [(package.cpv, package.slot, package.repository) for package in plan.packages]
    emerges = [(merge.cpv, merge.slot, merge.repository) for merge in answer.merges]
    assert sorted(ours) == sorted(emerges)
    check_same_order([cpv for cpv, *_ in ours], [cpv for cpv, *_ in emerges])
    flags = {merge.cpv: merge.flags for merge in answer.merges}
    for package in plan.packages:
        shown = flags[package.cpv]
        assert set(package.iuse) <= set(shown), package.cpv
        assert {flag for flag in shown if shown[flag]} == set(package.use), package.cpv


def check_same_order(ours: list[str], emerges: list[str]) -> None:
    """Equal but for neighbours that changed places.

    Portage walks over sets whose order hangs on hashes, and before Python 3.12 that of None is
    an address: dbus and pambase, of one runtime cycle, come either way from emerge itself.
    """
    differ = [index for index, (one, other) in enumerate(zip(ours, emerges, strict=True)) if one != other]
    assert len(differ) <= 4, [(ours[index], emerges[index]) for index in differ]
    assert all(abs(index - emerges.index(ours[index])) == 1 for index in differ)


def check_order(plan: Plan) -> None:
    """Every package comes after what it requires, and nothing waits for itself."""
    seen: set[str] = set()
    for package in plan.packages:
        assert set(package.requires) <= seen, package.cpv
        seen.add(package.cpv)
    assert nx.is_directed_acyclic_graph(dependency_graph(plan))


# The whole system.


@pytest.mark.parametrize("arch", gentoo.PROFILES)
def test_a_real_system_is_planned_as_emerge_would(
    stages: Stages, emerge: Emerge, systems: dict[str, Plan], arch: str
) -> None:
    request = stages.system(arch)
    systems[arch] = plan = resolve(request, stages.root / f"work-{arch}")
    assert len(plan.packages) == 276
    check_same(plan, ask(emerge, request))
    check_order(plan)
    assert {entry.partition(":")[0] for entry in gentoo.SEED} <= {package.cpv for package in plan.packages}


def test_prerequisites_are_what_emerge_installs_before_a_package(
    stages: Stages, emerge: Emerge, systems: dict[str, Plan]
) -> None:
    request = stages.system("arm64")
    plan = systems.get("arm64") or resolve(request, stages.root / "work-arm64")
    chosen = [package.cpv for package in plan.packages if package.cpv.startswith(SOME)]
    assert len(chosen) == len(SOME)
    compared = list(compare(emerge, request, plan, "arm64", tuple(chosen)))
    assert [str(one) for one in compared if not one.same] == []
    assert sum(len(one.ours) for one in compared) > 150


SOME = ("net-misc/openssh-", "sys-apps/sed-", "app-arch/gzip-")
"""Of all packages of @system, which `python tests/prerequisites.py` compares."""


# Other requests.


@dataclass(frozen=True, slots=True)
class Case:
    """A request over the whole stable system, or over a stage with hardly anything."""

    atoms: tuple[str, ...]
    conf: tuple[str, ...] = ()
    arch: str = "arm64"
    bare: bool = False
    emptytree: bool = False
    test: bool = False
    stable: bool = False
    holds: tuple[str, ...] = ()
    """What is in the plan: else the case is none."""
    count: int = 1
    """At least so many packages."""


PYTHON_13 = ('PYTHON_TARGETS="python3_13"', 'PYTHON_SINGLE_TARGET="python3_13"')

CASES = {
    "updates": Case(("@system",), count=50, holds=("sys-devel/gcc-16.1.1_p20260718", "app-shells/bash-5.3_p15")),
    "large leaves": Case(("app-containers/docker", "dev-vcs/git"), count=10),
    "arm": Case(("net-dns/bind", "net-misc/curl"), arch="arm", bare=True, count=50),
    "slots side by side": Case(("dev-lang/python:3.13", "dev-lang/python:3.12"), count=2),
    "flags": Case(("dev-vcs/git", "app-editors/vim"), conf=PYTHON_13, count=5),
    "flags of what is there": Case(("sys-apps/util-linux",), conf=('USE="python -logger static-libs"',)),
    "tests": Case(("sys-apps/util-linux", "app-editors/nano"), test=True, count=2),
    "rebuilds for a new subslot": Case(
        ("dev-libs/jsoncpp",), stable=True, holds=("dev-libs/jsoncpp-1.9.8", "dev-build/cmake-4.3.4")
    ),
    "an update that others hold back": Case(("dev-lang/perl",), holds=("dev-lang/perl-5.42.2",)),
    "a downgrade": Case(("=sys-libs/glibc-2.41*",), holds=("sys-libs/glibc-2.41-r10",)),
    "a blocker that makes room": Case(
        ("app-text/mandoc",), conf=('USE="system-man"',), holds=("app-text/mandoc-1.14.6-r1",)
    ),
}


def _request(stages: Stages, older: Path, case: Case) -> Request:
    bare = stages.system(case.arch).installed
    return gentoo.request(
        stages.tree,
        case.arch,
        bare if case.bare else older,
        *case.atoms,
        emptytree=case.emptytree,
        test=case.test,
        conf=case.conf,
        stable=case.stable,
    )


@pytest.mark.parametrize("case", CASES)
def test_other_requests_are_planned_as_emerge_would(
    stages: Stages, older: Path, emerge: Emerge, tmp_path: Path, case: str
) -> None:
    request = _request(stages, older, CASES[case])
    plan = resolve(request, tmp_path / "work")
    check_same(plan, ask(emerge, request))
    check_order(plan)
    assert len(plan.packages) >= CASES[case].count
    assert set(CASES[case].holds) <= {package.cpv for package in plan.packages}


# What emerge refuses.

REFUSALS = {
    "no such package": (Case(("app-misc/screen",)), "unknown package app-misc/screen"),
    "masked": (Case(("=app-shells/bash-5.3_p15",), stable=True), "bash-5.3_p15 is masked by ~arm64 keyword"),
    "REQUIRED_USE": (Case(("app-emulation/qemu",)), "qemu-10.1.3-r1: its USE flags break its REQUIRED_USE"),
    "flags that only a change could satisfy": (Case(("dev-util/catalyst",)), r"needs sys-apps/util-linux\[python,"),
    "blocker": (
        Case(("sys-apps/coreutils",), conf=('USE="hostname"',)),
        r"cannot be installed beside sys-apps/\S+\[hostname\]",
    ),
    "two that block": (
        Case(("app-text/mandoc", "sys-apps/man-db"), conf=('USE="system-man"',)),
        "cannot be installed beside",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_emerge_refuses_is_an_error(
    stages: Stages, older: Path, emerge: Emerge, tmp_path: Path, case: str
) -> None:
    asked, message = REFUSALS[case]
    request = _request(stages, older, asked)
    with pytest.raises(ResolveError, match=message):
        resolve(request, tmp_path / "work")
    assert ask(emerge, request).status == 1


def test_a_real_system_in_an_empty_root_is_circular_and_the_circle_is_small(stages: Stages, tmp_path: Path) -> None:
    request = gentoo.request(stages.tree, "arm64", write_installed([], tmp_path, "arm64"), "@system", emptytree=True)
    with pytest.raises(ResolveError, match=r"^circular dependencies: \S+ -> \S+ -> \S+: break the circle"):
        resolve(request, tmp_path / "work")


SMALL = (
    "keyword", "no keyword", "package.mask", "license", "future EAPI", "unsatisfied dependency", "unknown dependency",
    "USE dependency", "REQUIRED_USE", "slot conflict", "blocker", "circular", "broken ebuild",
    "broken dependency string",
)  # fmt: skip


@pytest.mark.parametrize("case", SMALL)
def test_what_emerge_refuses_of_a_small_tree_is_an_error(emerge: Emerge, tmp_path: Path, case: str) -> None:
    ebuilds, files, atom, message = ERRORS[case]
    repository = write_repository(tmp_path / "repo", ebuilds, files=files)
    profile = repository.location / "profiles/arm64"
    request = Request(target.load("arm64"), (atom,), (repository,), profile, write_installed([], tmp_path, "arm64"))
    with pytest.raises(InputError, match=message):
        resolve(request, tmp_path / "work")
    assert emerge.pretend(request).status == 1
