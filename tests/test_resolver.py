"""The resolver, with the real Portage over small repositories. Over a real one: test_exactness.py."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import networkx as nx
import portage
import pytest
from repos import Ebuilds, manifest, write_repository

from cluster import paths, target
from cluster.errors import InputError
from cluster.master.graph import dependency_graph
from cluster.master.refusal import ResolveError
from cluster.master.resolver import Request, resolve
from cluster.model import Cpv, Dependency, Kind, Plan, Repository
from cluster.node.installed import write_installed

pytestmark = pytest.mark.slow

EBUILDS = {
    # app needs a library to build and run, a tool to build, a plugin only some time after.
    "app/editor-1": {
        "DEPEND": "lib/text:=",
        "RDEPEND": "lib/text:= app/data",
        "BDEPEND": "dev/tool",
        "PDEPEND": "app/plug",
    },
    "app/plug-1": {"RDEPEND": "app/editor"},
    "app/data-1": {},
    "lib/text-1": {"KEYWORDS": "arm64"},
    "lib/text-2": {"SLOT": "0/2", "RDEPEND": "lib/glyph", "IUSE": "+icu x test", "BDEPEND": "test? ( dev/check )"},
    "lib/text-3": {"KEYWORDS": "~arm64"},
    "lib/glyph-1": {"DEPEND": "lib/table"},
    "lib/table-1": {},
    "dev/tool-1": {"RDEPEND": "dev/script sys-devel/gcc"},
    "dev/script-1": {},
    "dev/check-1": {},
}

STAGE = ("sys-devel/gcc-12.2.0:12",)

Plans = Callable[..., Plan]


@pytest.fixture
def plans(tmp_path: Path) -> Plans:
    """Write a repository, resolve atoms over it and a stage with a compiler."""

    def run(
        *atoms: str,
        ebuilds: Ebuilds = EBUILDS,
        files: Mapping[str, str] | None = None,
        stage: tuple[str, ...] = STAGE,
        **options: object,
    ) -> Plan:
        repository = write_repository(tmp_path / "repo", ebuilds, files=files)
        installed = write_installed(stage, tmp_path / "stage", "arm64")
        request = Request(
            target.load("arm64"),
            atoms,
            (repository,),
            repository.location / "profiles/arm64",
            installed,
            **options,  # type: ignore[arg-type]
        )
        return resolve(request, tmp_path / "work")

    return run


def names(plan: Plan) -> list[str]:
    return [package.cpv for package in plan.packages]


def check_order(plan: Plan) -> None:
    """Every package comes after what it requires."""
    seen: set[str] = set()
    for package in plan.packages:
        assert set(package.requires) <= seen, package.cpv
        seen.add(package.cpv)


# Plans.


def test_build_dependencies_are_closed_over_what_they_need_to_run(plans: Plans) -> None:
    plan = plans("app/editor")
    editor = plan.package(Cpv("app/editor-1"))
    assert set(editor.requires) == {"lib/text-2", "lib/glyph-1", "dev/tool-1", "dev/script-1"}
    assert plan.package(Cpv("lib/glyph-1")).requires == ("lib/table-1",)
    assert {"app/data-1", "app/plug-1"} <= set(names(plan))
    assert list(editor.requires) == [cpv for cpv in names(plan) if cpv in editor.requires]
    check_order(plan)


def test_each_dependency_says_when_it_is_needed_and_in_which_words(plans: Plans) -> None:
    plan = plans("app/editor", ">=app/data-1")
    editor = plan.package(Cpv("app/editor-1"))
    assert {(str(need.cpv), need.kinds, need.atoms) for need in editor.dependencies} == {
        ("lib/text-2", (Kind.BUILD, Kind.RUN), ("lib/text:=",)),
        ("app/data-1", (Kind.RUN,), ("app/data",)),
        ("dev/tool-1", (Kind.BUILD,), ("dev/tool",)),
        ("app/plug-1", (Kind.POST,), ("app/plug",)),
    }
    tool = plan.package(Cpv("dev/tool-1"))
    assert Dependency(Cpv("sys-devel/gcc-12.2.0"), (Kind.RUN,), ("sys-devel/gcc",)) in tool.dependencies
    assert editor.arguments == ("app/editor",)
    assert plan.package(Cpv("app/data-1")).arguments == (">=app/data-1",)
    assert tool.arguments == ()


def test_what_a_package_says_of_itself(plans: Plans) -> None:
    plan = plans("app/editor")
    text = plan.package(Cpv("lib/text-2"))
    assert (text.slot, text.use, text.iuse) == ("0/2", ("icu",), ("icu", "test", "x"))
    assert text.repository == "test"
    assert text.ebuild.name == "text-2.ebuild"
    assert text.reason == "needed by app/editor-1"
    assert plan.package(Cpv("app/editor-1")).reason == "requested"
    assert plan.package(Cpv("lib/table-1")).slot == "0"
    assert (plan.target, plan.chost) == ("arm64", "aarch64-linux-gnu")


def test_the_plan_has_the_metadata_that_spares_portage_the_ebuild(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = 'inherit one\nDESCRIPTION="${WORDS}"\nDEPEND="sys-devel/gcc\n\tsys-devel/gcc"\nsrc_compile() { :; }\n'
    eclasses = {"eclass/one.eclass": "inherit two\n", "eclass/two.eclass": 'WORDS="from an eclass"\n'}
    repository = write_repository(tmp_path / "repo", {"a/b-1": {"_body": body}}, files=eclasses)

    def planned(work: str) -> Plan:
        (tmp_path / work).mkdir()
        installed = write_installed(("sys-devel/gcc-12.2.0:12",), tmp_path / work / "installed", "arm64")
        profile = repository.location / "profiles/arm64"
        request = Request(target.load("arm64"), ("a/b",), (repository,), profile, installed)
        return resolve(request, tmp_path / work)

    entry = planned("first").package(Cpv("a/b-1")).metadata
    assert {"DESCRIPTION=from an eclass", "DEFINED_PHASES=compile", "DEPEND=sys-devel/gcc sys-devel/gcc"} <= set(
        entry.splitlines()
    )
    place = repository.location / "metadata/md5-cache/a/b-1"
    place.parent.mkdir(parents=True)
    place.write_text(entry)
    monkeypatch.delattr("portage.dbapi.porttree.portdbapi._run_metadata_phase")  # what sources an ebuild
    assert planned("second").package(Cpv("a/b-1")).metadata == entry


def test_what_the_stage_has_is_left_out_unless_everything_is_wanted_anew(plans: Plans) -> None:
    ebuilds = {**EBUILDS, "sys-devel/gcc-12.2.0": {"SLOT": "12"}}
    stage = (*STAGE, "dev/tool-1", "lib/table-1")
    assert {"dev/tool-1", "lib/table-1", "sys-devel/gcc-12.2.0"}.isdisjoint(
        names(plans("app/editor", ebuilds=ebuilds, stage=stage))
    )
    anew = plans("app/editor", ebuilds=ebuilds, stage=stage, emptytree=True)
    assert {"dev/tool-1", "lib/table-1", "sys-devel/gcc-12.2.0"} <= set(names(anew))
    check_order(anew)


def test_tests_bring_their_dependencies_when_asked(plans: Plans) -> None:
    assert "dev/check-1" not in names(plans("lib/text"))
    tested = plans("lib/text", test=True)
    assert tested.package(Cpv("lib/text-2")).use == ("icu", "test")
    assert tested.package(Cpv("lib/text-2")).requires[-1] == "dev/check-1" or "dev/check-1" in names(tested)


def test_the_users_own_make_conf_counts(plans: Plans) -> None:
    plan = plans("lib/text", make_conf='ACCEPT_KEYWORDS="~arm64"\n')
    assert names(plan) == ["lib/text-3"]
    assert plans("lib/text", make_conf='USE="x -icu"\n').package(Cpv("lib/text-2")).use == ("x",)


def test_a_set_of_the_repository(plans: Plans) -> None:
    files = {
        "sets.conf": "[test sets]\nclass = portage.sets.files.StaticFileSet\nmultiset = true\n"
        "directory = ${repository:test}/sets\n",
        "sets/small": "lib/glyph\ndev/tool\n",
    }
    plan = plans("@small", files=files)
    assert {package.cpv for package in plan.packages if package.reason == "requested"} == {"lib/glyph-1", "dev/tool-1"}
    check_order(plan)
    with pytest.raises(ResolveError, match=r"unknown set @smal: known sets: .*@small, @system"):
        plans("@smal", files=files)


def test_a_runtime_cycle_still_gives_an_order(plans: Plans) -> None:
    ebuilds = {"c/a-1": {"RDEPEND": "c/b"}, "c/b-1": {"RDEPEND": "c/a"}, "c/user-1": {"DEPEND": "c/a"}}
    plan = plans("c/user", ebuilds=ebuilds)
    assert set(plan.package(Cpv("c/user-1")).requires) == {"c/a-1", "c/b-1"}
    check_order(plan)
    assert nx.is_directed_acyclic_graph(dependency_graph(plan))


def test_a_later_repository_wins(tmp_path: Path) -> None:
    first = write_repository(tmp_path / "first", {"a/b-1": {}}, name="first")
    second = write_repository(tmp_path / "second", {"a/b-1": {}}, name="second")
    installed = write_installed([], tmp_path, "arm64")
    for repositories, winner in (((first, second), "second"), ((second, first), "first")):
        request = Request(target.load("arm64"), ("a/b",), repositories, first.location / "profiles/arm64", installed)
        assert resolve(request, tmp_path / winner).packages[0].repository == winner


def test_the_installed_database_is_only_read(plans: Plans, tmp_path: Path) -> None:
    def state() -> dict[Path, tuple[int, int]]:
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in (tmp_path / "stage").rglob("*")}

    ebuilds = {**EBUILDS, "sys-devel/gcc-12.2.0": {"SLOT": "12"}}
    plans("app/editor", ebuilds=ebuilds)
    before = state()
    plans("app/editor", ebuilds=ebuilds, emptytree=True)
    assert {path for path in state() if path.is_file()} == {path for path in before if path.is_file()}
    assert not list((tmp_path / "stage").rglob("*lock*"))


# Source archives.

FETCH = {
    "a/b-1": {
        "SRC_URI": "mirror://ours/b-1.tar.gz -> b.tar.gz https://up.example/b-1.tar.gz -> b.tar.gz"
        " x? ( https://up.example/x.gz )",
        "IUSE": "x",
    }
}
MIRRORS = {"profiles/thirdpartymirrors": "ours https://one.example/pub/ https://two.example\n"}


def test_source_archives_have_the_manifests_checksums_and_their_mirrors_expanded(plans: Plans) -> None:
    files = {**MIRRORS, "a/b/Manifest": manifest("b.tar.gz", b"hello")}
    (distfile,) = plans("a/b", ebuilds=FETCH, files=files).packages[0].distfiles
    assert (distfile.name, distfile.size) == ("b.tar.gz", 5)
    assert [name for name, _ in distfile.digests] == ["BLAKE2B", "SHA512"]
    assert distfile.uris == (
        "https://one.example/pub/b-1.tar.gz",
        "https://two.example/b-1.tar.gz",
        "https://up.example/b-1.tar.gz",
    )


def test_a_flag_brings_its_archive(plans: Plans) -> None:
    files = {**MIRRORS, "a/b/Manifest": manifest("b.tar.gz", b"hello") + manifest("x.gz", b"x")}
    distfiles = plans("a/b", ebuilds=FETCH, files=files, make_conf='USE="x"\n').packages[0].distfiles
    assert [distfile.name for distfile in distfiles] == ["b.tar.gz", "x.gz"]


def test_an_archive_without_a_manifest_entry_is_an_error_unless_only_the_plan_is_wanted(plans: Plans) -> None:
    with pytest.raises(
        InputError, match=r"a/b-1: its Manifest has no checksum of b.tar.gz: run `ebuild .*/b-1.ebuild manifest`"
    ):
        plans("a/b", ebuilds=FETCH, files=MIRRORS)
    (distfile,) = plans("a/b", ebuilds=FETCH, files=MIRRORS, manifests=False).packages[0].distfiles
    assert distfile.digests == ()


# What cannot be planned. Each message names the thing and the mend.

ERRORS: dict[str, tuple[Ebuilds, Mapping[str, str], str, str]] = {
    "unknown atom": (EBUILDS, {}, "lib/txt", r"unknown package lib/txt \(not in test\): did you mean lib/text"),
    "unknown name": (EBUILDS, {}, "glyf", r"unknown package glyf \(not in test\): did you mean lib/glyph"),
    "wrong category": (EBUILDS, {}, "app/glyph", r"did you mean lib/glyph"),
    "unknown version": (EBUILDS, {}, "=lib/text-9", r"=lib/text-9 no ebuild matches: there are text-1, text-2, text-3"),
    "invalid atom": (EBUILDS, {}, "lib/text-2", r"'lib/text-2' is not a package atom: write CATEGORY/NAME"),
    "not an atom": (EBUILDS, {}, "a b", r"'a b' is not a package atom"),
    "unknown set": (EBUILDS, {}, "@nothing", r"unknown set @nothing: known sets: .*@system"),
    "keyword": (
        {"a/b-1": {"KEYWORDS": "~arm64"}}, {}, "a/b",
        r'a/b-1 is masked by ~arm64 keyword: put ACCEPT_KEYWORDS="~arm64" in make_conf',
    ),
    "no keyword": (
        {"a/b-1": {"KEYWORDS": "amd64"}}, {}, "a/b",
        r'a/b-1 is masked by missing keyword: put ACCEPT_KEYWORDS="\*\*" in make_conf',
    ),
    "package.mask": (
        {"a/b-1": {}}, {"profiles/package.mask": "a/b\n"}, "a/b",
        r"a/b-1 is masked by package.mask: take it from .*/profiles/package.mask",
    ),
    "license": (
        {"a/b-1": {"LICENSE": "EULA"}}, {"licenses/EULA": "no\n"}, "a/b",
        r'a/b-1 is masked by EULA license\(s\): put ACCEPT_LICENSE="EULA" in make_conf',
    ),
    "future EAPI": ({"a/b-1": {"EAPI": "99"}}, {}, "a/b", r"b-1.ebuild has EAPI 99, which this Portage does not know"),
    "masked dependency": (
        {"a/b-1": {"DEPEND": "a/c"}, "a/c-1": {"KEYWORDS": "~arm64"}}, {}, "a/b",
        r"a/c-1 \(for a/b-1\) is masked by ~arm64 keyword",
    ),
    "unsatisfied dependency": (
        {"a/b-1": {"DEPEND": ">=a/c-2"}, "a/c-1": {}}, {}, "a/b",
        r"a/b-1 needs >=a/c-2, which no ebuild matches: there are c-1",
    ),
    "unknown dependency": (
        {"a/b-1": {"RDEPEND": "a/tez"}, "a/tex-1": {}}, {}, "a/b",
        r"a/b-1 needs a/tez, which no repository has \(test\): did you mean a/tex",
    ),
    "USE dependency": (
        {"a/b-1": {"DEPEND": "a/c[x,-y]"}, "a/c-1": {"IUSE": "x +y"}}, {}, "a/b",
        r'a/b-1 needs a/c\[x,-y\], which a/c-1 satisfies only with other USE flags: put USE="x -y" in make_conf',
    ),
    "USE flag that is not there": (
        {"a/b-1": {"DEPEND": "a/c[x]"}, "a/c-1": {}}, {}, "a/b",
        r"a/b-1 needs a/c\[x\], which a/c-1 cannot satisfy: it has no USE flag x",
    ),
    "REQUIRED_USE": (
        {"a/b-1": {"IUSE": "x y", "REQUIRED_USE": "|| ( x y )"}}, {}, "a/b",
        r"a/b-1: its USE flags break its REQUIRED_USE \( any-of \( x y \) \): set USE in make_conf",
    ),
    "slot conflict": (
        {
            "a/b-1": {"DEPEND": "a/x a/y"}, "a/x-1": {"RDEPEND": "=a/c-1"}, "a/y-1": {"RDEPEND": "=a/c-2"},
            "a/c-1": {}, "a/c-2": {},
        },
        {}, "a/b",
        r"slot conflict: a/c:0 cannot be two versions at once \(.*a/c-1 for a/x-1 \(=a/c-1\).*\): ask for",
    ),
    "blocker": (
        {"a/b-1": {"RDEPEND": "!!a/c a/d"}, "a/d-1": {"RDEPEND": "a/c"}, "a/c-1": {}}, {}, "a/b",
        r"a/b-1 cannot be installed beside a/c: ask for one of the two",
    ),
    "circular": (
        {
            "a/b-1": {"DEPEND": "a/c"}, "a/c-1": {"DEPEND": "a/d"}, "a/d-1": {"DEPEND": "a/c a/e"},
            "a/e-1": {"DEPEND": "a/b"},
        },
        {}, "a/b",
        r"circular dependencies: a/c-1 -> a/d-1 -> a/c-1: break the circle: have the stage provide",
    ),
    "broken ebuild": (
        {"a/b-1": {"_body": "if then\n"}}, {}, "a/b",
        r"a/b/b-1.ebuild cannot be read: .*syntax error",
    ),
    "missing eclass": (
        {"a/b-1": {"_body": "inherit nowhere\n"}}, {}, "a/b",
        r"a/b/b-1.ebuild cannot be read: .*nowhere.eclass",
    ),
    "broken dependency string": (
        {"a/b-1": {"DEPEND": "( a/c"}, "a/c-1": {}}, {}, "a/b",
        r"/b-1.ebuild is invalid: mend it: DEPEND: Missing '\)'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_what_cannot_be_planned_is_said_in_one_line(plans: Plans, case: str, capfd: pytest.CaptureFixture[str]) -> None:
    ebuilds, files, atom, message = ERRORS[case]
    with pytest.raises(ResolveError) as caught:
        plans(atom, ebuilds=ebuilds, files=files)
    assert re.search(message, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_portages_own_words_are_kept(plans: Plans) -> None:
    with pytest.raises(ResolveError) as caught:
        plans("lib/txt")
    assert 'there are no ebuilds to satisfy "lib/txt"' in caught.value.detail


def test_an_unknown_package_in_a_set_names_the_set(plans: Plans) -> None:
    files = {
        "sets.conf": "[test sets]\nclass = portage.sets.files.StaticFileSet\nmultiset = true\n"
        "directory = ${repository:test}/sets\n",
        "sets/small": "lib/glif\n",
    }
    with pytest.raises(ResolveError, match="set @small has lib/glif, which no repository has"):
        plans("@small", files=files)


def _request(tmp_path: Path, **changes: object) -> Request:
    repository = write_repository(tmp_path / "repo", {"a/b-1": {}})
    installed = write_installed([], tmp_path, "arm64")
    values: dict[str, object] = {
        "target": target.load("arm64"),
        "atoms": ("a/b",),
        "repositories": (repository,),
        "profile": repository.location / "profiles/arm64",
        "installed": installed,
        **changes,
    }
    return Request(**values)  # type: ignore[arg-type]


def test_a_missing_or_broken_profile(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no profile .*/nowhere"):
        resolve(_request(tmp_path, profile=tmp_path / "nowhere"), tmp_path / "work")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "parent").write_text("../gone\n")
    with pytest.raises(
        InputError, match=r"profile .*/broken: its parent .*/gone is not there: mend the line \.\./gone of"
    ):
        resolve(_request(tmp_path, profile=broken), tmp_path / "work")
    (broken / "parent").unlink()
    (broken / "make.defaults").write_text('CHOST="x"\n')
    with pytest.raises(ResolveError, match=r"profile .*/broken sets no ARCH"):
        resolve(_request(tmp_path, profile=broken), tmp_path / "work")


def test_a_repository_that_is_none(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    with pytest.raises(InputError, match=r"bare is no ebuild repository: it has no profiles/repo_name"):
        resolve(_request(tmp_path, repositories=(Repository("bare", bare),)), tmp_path / "work")
    with pytest.raises(InputError, match=r"repository gone: there is no directory"):
        resolve(_request(tmp_path, repositories=(Repository("gone", tmp_path / "gone"),)), tmp_path / "work")
    with pytest.raises(InputError, match=r"repository other at .*/repo calls itself 'test'"):
        resolve(_request(tmp_path, repositories=(Repository("other", tmp_path / "repo"),)), tmp_path / "work")
    with pytest.raises(InputError, match="there is no ebuild repository"):
        resolve(_request(tmp_path, repositories=()), tmp_path / "work")


def test_a_repository_whose_master_is_not_given(tmp_path: Path) -> None:
    overlay = write_repository(
        tmp_path / "o", {"a/b-1": {}}, name="over", files={"metadata/layout.conf": "masters = gentoo\n"}
    )
    with pytest.raises(
        InputError, match="repository over builds on repository gentoo, which is not given: add --repo gentoo=DIR"
    ):
        resolve(_request(tmp_path, repositories=(overlay,)), tmp_path / "work")


def test_nothing_asked_for_and_no_database(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to plan"):
        resolve(_request(tmp_path, atoms=()), tmp_path / "work")
    with pytest.raises(InputError, match="there is no installed database"):
        resolve(_request(tmp_path, installed=tmp_path / "none"), tmp_path / "work")


# As an ordinary user, and in a directory of its own.

_AS_NOBODY = """
import os, pathlib, sys
from repos import write_repository
from cluster import target
from cluster.node.installed import write_installed
from cluster.master.resolver import Request, resolve
arm64 = target.load("arm64")
os.setgroups([]); os.setgid(65534); os.setuid(65534)
root = pathlib.Path(sys.argv[1])
repository = write_repository(root / "repo", {"a/b-1": {"_body": "DEPEND=a/c\\n"}, "a/c-1": {}})
installed = write_installed([], root, "arm64")
request = Request(arm64, ("a/b",), (repository,), repository.location / "profiles/arm64", installed)
print(*(package.cpv for package in resolve(request, root / "work").packages))
"""


def _readable_by_all(path: Path) -> bool:
    return all(step.stat().st_mode & 0o001 for step in (path, *path.parents))


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another; else all tests are this one")
def test_an_ordinary_user_can_plan() -> None:
    for place in (Path(sys.base_prefix), Path(sys.prefix), Path(__file__).parent):
        if not _readable_by_all(place.resolve()):
            pytest.skip(f"another user cannot read {place}")
    with tempfile.TemporaryDirectory() as name:
        os.chown(name, 65534, 65534)
        done = subprocess.run(
            [sys.executable, "-c", _AS_NOBODY, name], capture_output=True, text=True, env=_environment(), timeout=60
        )
    assert (done.stdout, done.returncode) == ("a/c-1 a/b-1\n", 0), done.stderr


def _environment() -> dict[str, str]:
    """For a child Python that imports the same Portage and this checkout."""
    where = [str(Path(__file__).parent), str(Path(__file__).parents[1]), str(Path(portage.__file__).parents[1])]
    return {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(where)}


# The overlay that the project carries.


@pytest.mark.slow
@pytest.mark.parametrize("name", target.names())
def test_the_demo_overlay_resolves(tmp_path: Path, name: str) -> None:
    overlay = paths.data("overlays", "demo")
    if not (overlay / "sets/demo").is_file():
        pytest.skip(f"{overlay} has no set demo")
    chosen = target.load(name)
    installed = write_installed(target.load_recipe().provides, tmp_path, name)
    request = Request(
        chosen, ("@demo",), (Repository("demo", overlay),), paths.data("profiles", chosen.profile), installed
    )
    plan = resolve(request, tmp_path / "work")
    assert plan.chost == chosen.chost
    check_order(plan)
    graph = dependency_graph(plan)
    deepest = nx.dag_longest_path(graph)
    assert len(deepest) >= 4
    assert any(cpv.startswith("sys-libs/zlib-") for cpv in nx.ancestors(graph, Cpv("sys-apps/grep-3.11")))
    assert all(distfile.digests for package in plan.packages for distfile in package.distfiles)
