"""Bad input: it is named in one line, and with `keep_going` the rest is planned, by the real Portage."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from repos import MAKE_DEFAULTS, Ebuilds, manifest, write_repository

from cluster import target
from cluster.errors import InputError
from cluster.master import keepgoing, portagelib
from cluster.master.keepgoing import Refusal, Wanting, Wish
from cluster.master.resolver import NothingToPlan, Request, resolve
from cluster.model import LeftOut, Plan, Repository
from cluster.node.installed import write_installed

pytestmark = pytest.mark.slow

SETS = {
    "sets.conf": "[test sets]\nclass = portage.sets.files.StaticFileSet\nmultiset = true\n"
    "directory = ${repository:test}/sets\n"
}

Change = Callable[[Path, Repository], Mapping[str, object] | None]


@dataclass
class Asked:
    """What a request came to."""

    plan: Plan | None = None
    error: InputError | None = None
    runs: list[tuple[str, ...]] = field(default_factory=list)

    @property
    def order(self) -> list[str]:
        assert self.plan is not None, self.error
        return [package.cpv for package in self.plan.packages]

    @property
    def left(self) -> dict[str, str]:
        """What is left out, with the whole line."""
        found = self.plan.left_out if self.plan else getattr(self.error, "left_out", ())
        return {one.what: str(one) for one in found}

    @property
    def warnings(self) -> tuple[str, ...]:
        assert self.plan is not None, self.error
        return self.plan.warnings


Ask = Callable[..., Asked]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Write a repository, do `change` to it, and resolve atoms over it."""
    asked = Asked()
    solve = portagelib.Target.solve

    def counted(self: portagelib.Target, atoms: Sequence[str], *, emptytree: bool = False) -> object:
        asked.runs.append(tuple(atoms))
        return solve(self, atoms, emptytree=emptytree)

    monkeypatch.setattr(portagelib.Target, "solve", counted)

    def run(
        *atoms: str,
        ebuilds: Ebuilds,
        files: Mapping[str, str] | None = None,
        change: Change = lambda root, repository: None,
        **options: object,
    ) -> Asked:
        repository = write_repository(tmp_path / "repo", ebuilds, files=files)
        values: dict[str, object] = {
            "target": target.load("arm64"),
            "atoms": atoms,
            "repositories": (repository,),
            "profile": repository.location / "profiles/arm64",
            "installed": write_installed([], tmp_path / "stage", "arm64"),
            "keep_going": True,
            **(change(tmp_path, repository) or {}),
            **options,
        }
        try:
            asked.plan = resolve(Request(**values), tmp_path / "work")  # type: ignore[arg-type]
        except InputError as error:
            asked.error = error
        return asked

    return run


# A broken ebuild: what its line has to say.

BROKEN: dict[str, tuple[Mapping[str, str], str]] = {
    "syntax error": ({"_body": "if then\n"}, "bad-1.ebuild cannot be read"),
    "die": ({"_body": 'die "no way"\n'}, "bad-1.ebuild cannot be read: mend it: no way"),
    "missing eclass": ({"_body": "inherit nowhere\n"}, "nowhere.eclass could not be found"),
    "exit": ({"_body": "exit 3\n"}, "failed with unexpected returncode 3"),
    "future EAPI": ({"EAPI": "99"}, "bad-1.ebuild has EAPI 99, which this Portage does not know"),
    "EAPI set late": ({"_body": "EAPI=7\n"}, "bash returned EAPI '7'"),
    "SLOT": ({"SLOT": "!!"}, "bad-1.ebuild is invalid: mend it: SLOT: invalid value: '!!'"),
    "DEPEND": ({"DEPEND": "( x/other"}, "bad-1.ebuild is invalid: mend it: DEPEND: Missing ')'"),
    "REQUIRED_USE": ({"IUSE": "a b", "REQUIRED_USE": "|| ( a b"}, "REQUIRED_USE: malformed syntax"),
    "SRC_URI": ({"SRC_URI": "( https://x/y"}, "its SRC_URI is invalid"),
}


def _around(bad: Mapping[str, str]) -> Ebuilds:
    needs = {"x/needs-1": {"DEPEND": "x/bad"}, "x/above-1": {"RDEPEND": "x/needs"}}
    return {"x/bad-1": bad, **needs, "x/fine-1": {"DEPEND": "x/other"}, "x/other-1": {}}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_ebuild_is_left_out_with_all_that_needs_it(
    ask: Ask, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    bad, words = BROKEN[kind]
    asked = ask("x/bad", "x/above", "x/fine", "x/needs", ebuilds=_around(bad))
    assert asked.order == ["x/other-1", "x/fine-1"]
    assert set(asked.left) == {"x/bad", "x/needs", "x/above"}
    assert words in asked.left["x/bad"]
    assert "x/bad-1" in asked.left["x/above"] or "bad-1.ebuild" in asked.left["x/above"]
    assert not any("\n" in line for line in asked.left.values())
    assert len(asked.runs) <= 4
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_ebuild_that_nobody_wants_does_not_matter(ask: Ask, kind: str) -> None:
    asked = ask("x/fine", ebuilds=_around(BROKEN[kind][0]), keep_going=False)
    assert (asked.order, asked.left, asked.warnings) == (["x/other-1", "x/fine-1"], {}, ())


@pytest.mark.parametrize("kind", ["syntax error", "die"])
def test_an_older_version_takes_its_place_and_that_is_said(ask: Ask, kind: str) -> None:
    asked = ask("x/needs", ebuilds={**_around({}), "x/bad-2": BROKEN[kind][0]})
    assert (asked.order, asked.left) == (["x/bad-1", "x/needs-1"], {})
    (warning,) = asked.warnings
    assert "bad-2.ebuild cannot be read, so other versions were looked at" in warning


def _instead(path: str, what: str) -> Change:
    """Put a directory, a text file or a link that leads nowhere in the place of `path`."""

    def change(root: Path, repository: Repository) -> None:
        place = repository.location / path
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        if what == "directory":
            place.mkdir()
        elif what == "link":
            place.symlink_to("nowhere")
        else:
            place.write_text(what)

    return change


def _both(*changes: Change) -> Change:
    def change(root: Path, repository: Repository) -> None:
        for one in changes:
            one(root, repository)

    return change


ENTRY = "metadata/md5-cache/x/up-1"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_instead("x/up/up-1.ebuild", "directory"), "up-1.ebuild cannot be read: mend it: it is a directory"),
        # Without an entry of the cache Portage would wait for ever.
        (
            _both(_instead("x/up/up-1.ebuild", "directory"), _instead(ENTRY, "gone")),
            "up-1.ebuild cannot be read: mend it: it is a directory",
        ),
        (_instead("x/up/up-1.ebuild", "link"), "up-1.ebuild cannot be read: mend it: it is a link that leads nowhere"),
        (_instead("x/up", "text"), "x/up cannot be read"),
        (_instead("x/up", "link"), "x/up cannot be read"),
        (_instead("profiles/categories", "y\n"), "x/up is not seen: its category is in no profiles/categories"),
    ],
)
def test_a_package_that_is_no_files(ask: Ask, change: Change, words: str) -> None:
    asked = ask("x/up", "y/a", ebuilds={"x/up-1": {}, "y/a-1": {}}, change=change)
    assert asked.order == ["y/a-1"]
    assert words in asked.left["x/up"]


# Profiles.

PROFILE = "profiles/arm64"


@pytest.mark.parametrize("keep_going", [False, True])
@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({f"{PROFILE}/parent": "../arm64\n"}, "profiles/arm64 is a parent of itself: "),
        ({f"{PROFILE}/parent": "../two\n", "profiles/two/parent": "../arm64\n"}, "take ../arm64 from "),
        ({f"{PROFILE}/parent": "../two\n", "profiles/two/parent": "test:arm64\n"}, "take test:arm64 from "),
        ({f"{PROFILE}/parent": "../gone\n"}, "its parent {repo}/profiles/gone is not there: mend the line ../gone of"),
        ({f"{PROFILE}/parent": "other:base\n"}, "has the parent other:base, of a repository that is not given"),
        ({f"{PROFILE}/make.defaults": MAKE_DEFAULTS + 'USE="a\n'}, "make.defaults cannot be read: mend it: line "),
        ({f"{PROFILE}/make.defaults": MAKE_DEFAULTS + "a b c\n"}, "make.defaults cannot be read: mend it: line 12"),
    ],
)
def test_a_broken_profile_is_named(
    ask: Ask, files: Mapping[str, str], words: str, keep_going: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = ask("x/up", ebuilds={"x/up-1": {}}, files=files, keep_going=keep_going)
    assert words.format(repo=tmp_path / "repo") in str(asked.error)
    assert "\n" not in str(asked.error)
    assert capfd.readouterr() == ("", "")


def test_lines_for_make_conf_that_cannot_be_read(ask: Ask) -> None:
    asked = ask("x/up", ebuilds={"x/up-1": {}}, make_conf='USE="a\n')
    assert "the lines for make.conf cannot be read: mend your make_conf" in str(asked.error)


# Repositories.


def _second(files: Mapping[str, str] | None = None, change: Change | None = None, name: str = "over") -> Change:
    def made(root: Path, repository: Repository) -> Mapping[str, object]:
        over = write_repository(root / "over", {"x/extra-1": {}}, name=name, files=files)
        if change is not None:
            change(root, over)
        return {"repositories": (repository, over)}

    return made


def _at(change: Change) -> Change:
    """A second repository in the place that `change` makes."""

    def made(root: Path, repository: Repository) -> Mapping[str, object]:
        change(root, Repository("over", root))
        return {"repositories": (repository, Repository("over", root / "place"))}

    return made


REPOSITORIES: dict[str, tuple[Change, str]] = {
    "no name": (_second({"profiles/repo_name": ""}), "over is no ebuild repository: it has no profiles/repo_name"),
    "unreadable name": (_second(None, _instead("profiles/repo_name", "directory")), "repo_name cannot be read"),
    "missing master": (_second({"metadata/layout.conf": "masters = gentoo\n"}), "builds on repository gentoo"),
    "unreadable layout": (_second(None, _instead("metadata/layout.conf", "directory")), "layout.conf cannot be read"),
    "unreadable category": (_second(None, _instead("x", "a file")), "/over/x cannot be read: make it a directory"),
    "broken sets.conf": (_second({"sets.conf": "[no section\n"}), "sets.conf cannot be read: mend it: "),
    "file": (_at(_instead("place", "a file")), "place is no directory"),
    "dangling link": (_at(_instead("place", "link")), "place is a link that leads nowhere"),
    "nothing": (_at(lambda root, repository: None), "there is no directory"),
}


@pytest.mark.parametrize("kind", REPOSITORIES)
def test_a_repository_that_cannot_be_used_is_left_out_with_what_only_it_has(ask: Ask, kind: str) -> None:
    change, words = REPOSITORIES[kind]
    asked = ask("x/extra", "x/up", ebuilds={"x/up-1": {}}, change=change)
    assert asked.order == ["x/up-1"]
    assert list(asked.left) == ["repository over", "x/extra"]
    assert words in asked.left["repository over"]
    assert "unknown package x/extra (not in test)" in asked.left["x/extra"]
    assert asked.plan is not None
    assert [repository.name for repository in asked.plan.repositories] == ["test"]


@pytest.mark.parametrize("kind", REPOSITORIES)
def test_a_repository_that_cannot_be_used_is_named(ask: Ask, kind: str) -> None:
    change, words = REPOSITORIES[kind]
    asked = ask("x/up", ebuilds={"x/up-1": {}}, change=change, keep_going=False)
    assert words in str(asked.error)
    assert "\n" not in str(asked.error)


def test_of_two_repositories_with_one_name_the_first_is_taken(ask: Ask) -> None:
    change = _second(name="test")
    asked = ask("x/up", "x/extra", ebuilds={"x/up-1": {}}, change=change)
    assert asked.order == ["x/up-1"]
    assert "has a name that is taken" in asked.left["repository test"]
    assert "is given twice" in str(ask("x/up", ebuilds={"x/up-1": {}}, change=change, keep_going=False).error)


def test_no_repository_that_can_be_used(ask: Ask) -> None:
    asked = ask("x/up", ebuilds={"x/up-1": {}}, files={"profiles/repo_name": ""})
    assert "is no ebuild repository" in str(asked.error)


def test_a_profile_in_a_repository_that_is_left_out(ask: Ask) -> None:
    def change(root: Path, repository: Repository) -> Mapping[str, object]:
        gone = Repository("gone", root / "gone")
        return {"repositories": (gone, repository), "profile": gone.location / "profiles/arm64"}

    asked = ask("x/up", ebuilds={"x/up-1": {}}, change=change)
    assert list(asked.left) == ["repository gone"]
    assert "there is no profile" in str(asked.error)


# Caches and Manifests.


@pytest.mark.parametrize("keep_going", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        _instead(ENTRY, "garbage\n"),
        _instead(ENTRY, "\0\1"),
        _instead(ENTRY, "directory"),
        _instead(ENTRY, "DEFINED_PHASES=-\nEAPI=8\nSLOT=7\n_md5_=00\n"),
        _instead("metadata/md5-cache", "a file"),
    ],
)
def test_a_damaged_metadata_cache_is_said_and_the_ebuild_sourced(ask: Ask, change: Change, keep_going: bool) -> None:
    asked = ask("x/up", ebuilds={"x/up-1": {"SLOT": "3"}}, change=change, keep_going=keep_going)
    assert asked.plan is not None
    assert [package.slot for package in asked.plan.packages] == ["3"]
    (warning,) = asked.warnings
    assert "repository test: its metadata/md5-cache is damaged or out of date for x/up-1, so Portage sourced" in warning
    assert asked.left == {}


GOOD = manifest("up.gz", b"up")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD[:60], "x/up-1: its Manifest has a damaged checksum of up.gz: run `ebuild "),
        ("\0 garbage\nDIST\n", "x/up-1: its Manifest has no checksum of up.gz: run `ebuild "),
        ("DIST up.gz many BLAKE2B 00\n", "x/up-1: its Manifest has no checksum of up.gz: run `ebuild "),
        ("directory", "x/up/Manifest is a directory"),
        ("link", "x/up-1: its Manifest has no checksum of up.gz: run `ebuild "),
    ],
)
def test_a_damaged_manifest(ask: Ask, text: str, words: str) -> None:
    ebuilds = {"x/up-1": {"SRC_URI": "https://x/up.gz"}, "x/top-1": {"RDEPEND": "x/up"}, "x/fine-1": {}}
    asked = ask("x/top", "x/fine", ebuilds=ebuilds, change=_instead("x/up/Manifest", text))
    assert asked.order == ["x/fine-1"]
    assert words in asked.left["x/top"]
    assert len(asked.runs) == 2


FAT = {"metadata/layout.conf": "masters =\n"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("link", "Manifest not found"),
        (GOOD, "Missing digest for"),
        (f"EBUILD up-1.ebuild 3 BLAKE2B {'0' * 128}\n", "Digest verification failed"),
    ],
)
def test_a_manifest_that_should_have_the_ebuild(ask: Ask, text: str, words: str) -> None:
    ebuilds = {"x/up-1": {"_body": "\n"}, "x/top-1": {"RDEPEND": "x/up"}, "x/fine-1": {}}
    change = _instead("x/up/Manifest", text)
    asked = ask("x/top", "x/fine", ebuilds=ebuilds, files=FAT, change=change)
    assert asked.order == ["x/fine-1"]
    assert words in asked.left["x/top"]
    assert "up-1.ebuild manifest`" in asked.left["x/top"]


# Atoms and sets.

TREE = {
    "x/a-1": {},
    "x/b-1": {},
    "x/masked-1": {"KEYWORDS": "~arm64"},
    "x/wants-1": {"DEPEND": "x/nowhere"},
    "x/one-1": {"DEPEND": "=x/lib-1"},
    "x/two-1": {"DEPEND": "=x/lib-2"},
    "x/lib-1": {},
    "x/lib-2": {},
    "x/block-1": {"RDEPEND": "!!x/a"},
    "loop/one-1": {"DEPEND": "loop/two"},
    "loop/two-1": {"DEPEND": "loop/one"},
    "loop/user-1": {"RDEPEND": "loop/one"},
    "x/flags-1": {"IUSE": "p q", "REQUIRED_USE": "^^ ( p q )"},
}


def test_each_atom_that_cannot_be_had_has_its_line(ask: Ask) -> None:
    asked = ask("x/a", "x/zzz", "zzz", "a//b", "x/masked", "x/wants", "x/flags", "b", "@none", ebuilds=TREE)
    assert asked.order == ["x/a-1", "x/b-1"]
    assert set(asked.left) == {"x/zzz", "zzz", "a//b", "x/masked", "x/wants", "x/flags", "@none"}
    assert asked.left["x/zzz"].startswith("x/zzz: unknown package x/zzz (not in test): ")
    assert "'a//b' is not a package atom: write CATEGORY/NAME" in asked.left["a//b"]
    assert 'put ACCEPT_KEYWORDS="~arm64" in make_conf' in asked.left["x/masked"]
    assert "x/wants-1 needs x/nowhere, which no repository has" in asked.left["x/wants"]
    assert "REQUIRED_USE" in asked.left["x/flags"]
    assert "unknown set @none: known sets: " in asked.left["@none"]
    # What needs no run is left out at once; zzz, x/wants and x/flags take one each.
    assert len(asked.runs) == 4


def test_of_atoms_that_exclude_each_other_what_was_asked_for_first_is_kept(ask: Ask) -> None:
    asked = ask("x/one", "x/two", "x/a", "x/block", ebuilds=TREE)
    assert set(asked.order) == {"x/lib-1", "x/one-1", "x/a-1"}
    assert set(asked.left) == {"x/two", "x/block"}
    assert "slot conflict: x/lib:0 cannot be two versions at once" in asked.left["x/two"]
    assert "x/block-1 cannot be installed beside x/a" in asked.left["x/block"]


def test_a_circle_is_left_out_with_all_above_it(ask: Ask) -> None:
    asked = ask("loop/user", "x/a", "loop/two", ebuilds=TREE)
    assert (asked.order, set(asked.left)) == (["x/a-1"], {"loop/user", "loop/two"})
    assert "circular dependencies: loop/one-1 -> loop/two-1 -> loop/one-1" in asked.left["loop/user"]
    assert len(asked.runs) == 2


def test_a_set_without_its_bad_member(ask: Ask) -> None:
    files = {**SETS, "sets/small": "x/a\nx/masked\nx/wants\nx/b-1\n@gone\n"}
    asked = ask("@small", "x/b", ebuilds=TREE, files=files)
    assert asked.plan is not None
    assert {package.cpv: package.arguments for package in asked.plan.packages} == {
        "x/a-1": ("@small",),
        "x/b-1": ("x/b",),
    }
    assert "x/masked-1 (for @small) is masked" in asked.left["x/masked"]
    assert "x/wants-1 needs x/nowhere" in asked.left["x/wants"]
    assert "is line 4 of set @small" in asked.left["x/b-1"]
    assert "is in set @small and is no set" in asked.left["@gone"]


@pytest.mark.parametrize(("line", "words"), [("x/b-1", "x/b-1 is line 2 of set @small"), ("@gone", "@gone is in set")])
def test_a_bad_line_of_a_set_is_an_error(ask: Ask, line: str, words: str) -> None:
    files = {**SETS, "sets/small": f"x/a\n{line}\n"}
    assert words in str(ask("@small", ebuilds=TREE, files=files, keep_going=False).error)


def test_a_plan_of_all_is_the_same_either_way(ask: Ask) -> None:
    files = {**SETS, "sets/small": "x/a\nx/one\n"}
    without = ask("@small", "x/b", ebuilds=TREE, files=files, keep_going=False).plan
    kept = ask("@small", "x/b", ebuilds=TREE, files=files)
    assert kept.plan == without
    assert kept.runs == [("@small", "x/b")] * 2


def test_nothing_that_can_be_planned(ask: Ask) -> None:
    asked = ask("x/masked", "x/wants", ebuilds=TREE)
    assert isinstance(asked.error, NothingToPlan)
    assert set(asked.left) == {"x/masked", "x/wants"}
    assert "nothing of what was asked for can be planned" in str(asked.error)


# Decisions.


def _wishes(*atoms: str) -> tuple[Wish, ...]:
    return tuple(Wish(atom, atom) for atom in atoms)


def test_a_set_is_asked_for_whole_where_all_of_it_is_kept() -> None:
    wishes = (Wish("x/a", "@s"), Wish("x/b", "@s"), Wish("x/c", "x/c"))
    assert keepgoing.arguments(wishes, wishes) == ("@s", "x/c")
    assert keepgoing.arguments(wishes, wishes[1:]) == ("x/b", "x/c")
    assert keepgoing.arguments(wishes, wishes, {"@s"}) == ("x/a", "x/b", "x/c")


def test_above_a_package_are_the_atoms_that_lead_to_it() -> None:
    wanting = Wanting((("a", "b"), ("b", "c"), ("c", "b"), ("d", "e")), (("x/a", "a"), ("x/c", "c"), ("x/d", "d")))
    assert wanting.above(["b"]) == {"x/a", "x/c"}
    assert wanting.above(["e", "a"]) == {"x/d", "x/a"}
    assert wanting.above(["?"]) == frozenset()


def test_which_side_of_a_conflict_is_given_up() -> None:
    order = ("a", "b", "c")
    one, two, three = frozenset("a"), frozenset("b"), frozenset("bc")
    assert keepgoing.weakest([one, two], order) == two
    assert keepgoing.weakest([one, three], order) == one
    assert keepgoing.weakest([two, three], order) == two
    assert keepgoing.weakest([frozenset(), one], order) == one
    assert keepgoing.weakest([], order) == frozenset()


def test_without_a_culprit_the_wishes_are_halved() -> None:
    bad = {"5", "11"}
    runs = []

    def attempt(wishes: Sequence[Wish]) -> str | Refusal:
        runs.append(len(wishes))
        wrong = InputError("no", "mend")
        return Refusal(((wrong, frozenset()),)) if bad & {wish.atom for wish in wishes} else "plan"

    answer, left = keepgoing.most(_wishes(*map(str, range(16))), attempt)
    assert (answer, left) == ("plan", (LeftOut("5", "no", "mend"), LeftOut("11", "no", "mend")))
    assert len(runs) <= 2 * (1 + 4) + 1


def test_a_line_does_not_say_its_subject_twice() -> None:
    assert str(keepgoing.left_out("repository a", InputError("repository a: no", "b"))) == "repository a: no: b"
    assert str(keepgoing.left_out("x/a", InputError("x/a-1 is masked"))) == "x/a: x/a-1 is masked"
