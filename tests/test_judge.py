"""What is built anew, and why: against a naive oracle over generated worlds, and through the real resolver."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from factories import package, plan
from hypothesis import given, settings
from hypothesis import strategies as st
from repos import Ebuilds, write_repository

from cluster import target, userconfig
from cluster.master.abi import Link
from cluster.master.judge import KEPT, Record, Records, judged, missing_bumps, settled
from cluster.master.resolver import Request, resolve
from cluster.model import Action, Cpv, Package, Plan, full_slot
from cluster.node.installed import write_installed

pytestmark = pytest.mark.slow

CHOST = "aarch64-linux-gnu"


@dataclass(frozen=True)
class Recipe:
    """A package of a generated world: what it is made from, and which library comes out."""

    version: int = 1
    ebuild: int = 0
    use: tuple[str, ...] = ()
    subslot: int = 0
    soname: int = 0
    symbols: int = 0


@dataclass(frozen=True)
class World:
    """Packages by number; each links to some of the earlier ones."""

    recipes: tuple[Recipe, ...]
    links: tuple[frozenset[int], ...]

    def package(self, number: int) -> Package:
        recipe = self.recipes[number]
        slots = ",".join(f"lib/p{other}:0/{self.recipes[other].subslot}" for other in sorted(self.links[number]))
        return package(
            f"lib/p{number}-{recipe.version}",
            *(f"lib/p{other}-{self.recipes[other].version}" for other in sorted(self.links[number])),
            slot=f"0/{recipe.subslot}",
            use=recipe.use,
            iuse=("x", "y"),
            ebuild=Path(f"/repo/lib/p{number}/p{number}-{recipe.version}.ebuild"),
            fingerprint=(("ebuild", str(recipe.ebuild)), ("slots", slots)),
        )

    @property
    def plan(self) -> Plan:
        return plan(*map(self.package, range(len(self.recipes))))

    def library(self, number: int) -> tuple[str, str]:
        recipe = self.recipes[number]
        return f"libp{number}.so.{recipe.soname}", str(recipe.symbols)

    def built(self, number: int) -> Record:
        """What a build of the package, against the libraries as they are in this world, gives."""
        wanted = self.package(number)
        links = (
            Link(*self.library(other), f"lib/p{other}", f"0/{self.recipes[other].subslot}")
            for other in sorted(self.links[number])
        )
        return Record(
            cpv=wanted.cpv,
            name=wanted.name,
            slot=full_slot(wanted.slot),
            use=wanted.use,
            chost=CHOST,
            fingerprint=wanted.fingerprint,
            provides=(self.library(number),),
            links=tuple(links),
        )


def number_of(cpv: Cpv) -> int:
    return int(cpv.removeprefix("lib/p").partition("-")[0])


def executed(world: World, records: Records) -> tuple[set[int], dict[Cpv, Record]]:
    """Which packages a run builds, and what the binhost has then."""
    made = judged(world.plan, records)
    now, built = dict(records), set()
    for each in made.packages:
        if each.action is Action.BUILD or (each.action is Action.CHECK and settled(made, each, now)):
            built.add(number_of(each.cpv))
            now[each.cpv] = world.built(number_of(each.cpv))
    return built, now


def oracle(before: World, after: World) -> set[int]:
    """What must be built, from the words of the promise: its own making changed, or what it links to."""
    return {
        number
        for number, (old, new) in enumerate(zip(before.recipes, after.recipes, strict=True))
        if (old.version, old.ebuild, old.use, old.subslot) != (new.version, new.ebuild, new.use, new.subslot)
        or any(
            (before.library(other), before.recipes[other].subslot)
            != (after.library(other), after.recipes[other].subslot)
            for other in after.links[number]
        )
    }


@st.composite
def worlds(draw: st.DrawFn) -> World:
    size = draw(st.integers(1, 9))
    links = (draw(st.frozensets(st.integers(0, number - 1))) if number else frozenset() for number in range(size))
    return World((Recipe(),) * size, tuple(links))


RECIPES = st.builds(
    Recipe,
    version=st.integers(1, 2),
    ebuild=st.integers(0, 1),
    use=st.sampled_from([(), ("x",), ("x", "y")]),
    subslot=st.integers(0, 1),
    soname=st.integers(0, 1),
    symbols=st.integers(0, 1),
)


def edited(old: Recipe, new: Recipe) -> Recipe:
    """`new`, whose library is another only if the package is: nothing changes by itself."""
    same = (old.version, old.ebuild, old.use, old.subslot) == (new.version, new.ebuild, new.use, new.subslot)
    return old if same else new


@given(worlds(), st.data())
def test_just_what_changed_and_what_links_to_it_is_built(before: World, data: st.DataObject) -> None:
    built, records = executed(before, {})
    assert built == set(range(len(before.recipes)))
    assert executed(before, records)[0] == set()
    chosen = data.draw(st.sets(st.integers(0, len(before.recipes) - 1), max_size=3))
    recipes = tuple(
        edited(old, data.draw(RECIPES)) if number in chosen else old for number, old in enumerate(before.recipes)
    )
    after = replace(before, recipes=recipes)
    built, records = executed(after, records)
    assert built == oracle(before, after)
    for number in range(len(recipes)):
        assert records[after.package(number).cpv] == after.built(number)
    assert executed(after, records)[0] == set()


# What the lines of a plan say.

LIBRARY = World((Recipe(), Recipe()), (frozenset(), frozenset({0})))
"""p1 links to p0."""


def change(number: int, **fields: object) -> World:
    recipes = list(LIBRARY.recipes)
    recipes[number] = replace(recipes[number], **fields)  # type: ignore[arg-type]
    return replace(LIBRARY, recipes=tuple(recipes))


def lines(world: World, records: Records | None = None) -> dict[str, tuple[str, str]]:
    had = executed(LIBRARY, {})[1] if records is None else records
    return {p.cpv.removeprefix("lib/"): (p.action.value, p.reason) for p in judged(world.plan, had).packages}


def test_each_line_says_why() -> None:
    pending = ("check", "if the libraries of lib/p0 change")
    assert lines(LIBRARY) == {"p0-1": ("skip", KEPT), "p1-1": ("skip", KEPT)}
    assert lines(change(0, ebuild=1)) == {"p0-1": ("build", "its ebuild changed"), "p1-1": pending}
    assert lines(change(0, version=2)) == {"p0-2": ("build", "version 1 -> 2"), "p1-1": pending}
    assert lines(change(1, use=("x",))) == {"p0-1": ("skip", KEPT), "p1-1": ("build", "USE: +x")}
    assert lines(change(0, subslot=1)) == {
        "p0-1": ("build", "its slot was 0/0"),
        "p1-1": ("build", "lib/p0 is 0/1 and was 0/0"),
    }


def test_a_new_package_keeps_the_reason_why_it_is_in_the_plan() -> None:
    wanted = package("lib/p0-1", reason="needed by app/x-1")
    assert judged(plan(wanted), {}).packages[0].reason == "needed by app/x-1"


def test_another_chost_and_many_reasons() -> None:
    record = replace(LIBRARY.built(0), chost="other", use=("y",), fingerprint=(("ebuild", "9"), ("files", "1")))
    wanted = replace(LIBRARY.package(0), use=("x",), fingerprint=(("ebuild", "0"), ("files", "2")))
    (found,) = judged(plan(wanted), {record.cpv: record}).packages
    assert (
        found.reason == "USE: +x -y; it is for CHOST other; its ebuild changed; a file of its ebuild's files/ changed"
    )


def test_a_library_that_changed_under_the_same_package_is_noticed() -> None:
    """As when the binhost's package was replaced by somebody else's."""
    records = dict(executed(LIBRARY, {})[1])
    records[Cpv("lib/p0-1")] = replace(records[Cpv("lib/p0-1")], provides=(("libp0.so.0", "other"),))
    assert lines(LIBRARY, records)["p1-1"] == ("build", "the symbols of libp0.so.0 of lib/p0-1 changed")
    records[Cpv("lib/p0-1")] = replace(records[Cpv("lib/p0-1")], provides=())
    assert lines(LIBRARY, records)["p1-1"] == (
        "build",
        "lib/p0-1 has no libp0.so.0, though its slot is still 0/0",
    )


def test_a_missing_bump_is_reported() -> None:
    had = executed(LIBRARY, {})[1]
    after = change(0, version=2, soname=1)
    made = judged(after.plan, had)
    halfway = {**had, Cpv("lib/p0-2"): after.built(0)}
    assert settled(made, made.packages[1], halfway) == "lib/p0-2 has no libp0.so.0, though its slot is still 0/0"
    assert missing_bumps(made, had, {**halfway, Cpv("lib/p1-1"): after.built(1)}) == (
        "lib/p0-2 no longer has libp0.so.0 and its subslot is the same: its ebuild lacks a bump",
    )
    bumped = change(0, version=2, soname=1, subslot=1)
    assert missing_bumps(judged(bumped.plan, had), had, {**had, Cpv("lib/p0-2"): bumped.built(0)}) == ()


def test_a_package_that_is_gone_when_its_turn_comes_is_built() -> None:
    made = judged(change(0, ebuild=1).plan, executed(LIBRARY, {})[1])
    assert settled(made, made.packages[1], {}) == "it is gone from the binhost"


# What other binhosts have.

OTHER = Path("/binhosts/other")


def taken(world: World, records: Records, others: Records) -> dict[str, tuple[str, str]]:
    packages = judged(world.plan, records, {OTHER: others}).packages
    assert all((each.origin == OTHER) == (each.action is Action.TAKE) for each in packages)
    return {each.cpv.removeprefix("lib/"): (each.action.value, each.reason) for each in packages}


def test_what_another_binhost_has_just_as_a_build_makes_it_is_taken() -> None:
    take = ("take", f"{OTHER} has the same")
    theirs = executed(LIBRARY, {})[1]
    assert taken(LIBRARY, {}, theirs) == {"p0-1": take, "p1-1": take}
    assert taken(LIBRARY, theirs, theirs) == {"p0-1": ("skip", KEPT), "p1-1": ("skip", KEPT)}
    other_use = change(0, use=("x",))
    assert taken(other_use, {}, theirs) == {"p0-1": ("build", ""), "p1-1": ("build", "")}
    assert taken(change(1, use=("x",)), {}, theirs) == {"p0-1": take, "p1-1": ("build", "")}


def test_what_was_linked_to_another_library_is_not_taken() -> None:
    mine = executed(LIBRARY, {})[1]
    del mine[Cpv("lib/p1-1")]
    theirs = executed(change(0, symbols=1), {})[1]
    assert taken(LIBRARY, mine, theirs) == {"p0-1": ("skip", KEPT), "p1-1": ("build", "")}


# Through the real resolver: an edit of a tree or of the configuration, and the lines that follow.

EBUILDS: Ebuilds = {
    "app/a-1": {"IUSE": "x", "DEPEND": "lib/l:=", "RDEPEND": "lib/l:=", "_inherit": "one"},
    "lib/l-1": {"SLOT": "0/1"},
    "app/b-1": {},
}
FILES = {"eclass/one.eclass": "# one\n", "lib/l/files/fix.patch": "--- a\n"}


@dataclass(frozen=True)
class Tree:
    """A tree and a configuration in a directory, planned against the records of what was planned before."""

    place: Path

    def planned(
        self,
        ebuilds: Ebuilds = EBUILDS,
        user: Mapping[str, str] | None = None,
        atoms: tuple[str, ...] = ("app/a", "app/b"),
        **files: str,
    ) -> Plan:
        overlay = {**FILES, **{name.replace("__", "/"): text for name, text in files.items()}}
        repository = write_repository(self.place / "repo", ebuilds, files=overlay)
        for name, text in (user or {}).items():
            (self.place / "user" / name).parent.mkdir(parents=True, exist_ok=True)
            (self.place / "user" / name).write_text(text)
        own = self.place / "user" if user else None
        request = Request(
            target.load("arm64"),
            atoms,
            (repository,),
            repository.location / "profiles/arm64",
            write_installed((), self.place / "stage", "arm64"),
            make_conf=userconfig.make_conf(own, ""),
            user=own,
        )
        return resolve(request, self.place / "work")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def record_of(wanted: Package) -> Record:
    return Record(wanted.cpv, wanted.name, full_slot(wanted.slot), wanted.use, CHOST, wanted.fingerprint)


def changed(before: Plan, after: Plan) -> dict[str, str]:
    records = {each.cpv: record_of(each) for each in before.packages}
    return {each.cpv: each.reason for each in judged(after, records).packages if each.action is not Action.SKIP}


Edit = Callable[[Tree], Plan]


def edit(ebuilds: Ebuilds = EBUILDS, user: Mapping[str, str] | None = None, **files: str) -> Edit:
    return lambda tree: tree.planned(ebuilds, user, **files)


@pytest.mark.parametrize(
    ("plans", "lines"),
    [
        (edit(), {}),
        (edit({**EBUILDS, "app/b-1": {"DESCRIPTION": "other"}}), {"app/b-1": "its ebuild changed"}),
        (edit({**EBUILDS, "app/b-2": {}}), {"app/b-2": "version 1 -> 2"}),
        (edit(eclass__one__=""), {}),
        (edit(**{"eclass__one.eclass": "# two\n"}), {"app/a-1": "eclass one changed"}),
        (edit(**{"lib__l__files__fix.patch": "--- b\n"}), {"lib/l-1": "a file of its ebuild's files/ changed"}),
        (
            edit({**EBUILDS, "lib/l-1": {"SLOT": "0/2"}}),
            {"lib/l-1": "its slot was 0/1; its ebuild changed", "app/a-1": "lib/l is 0/2 and was 0/1"},
        ),
        (edit(user={"package.use": "app/a x\n"}), {"app/a-1": "USE: +x"}),
        (edit(user={"patches/app/b/one.patch": "--- a\n"}), {"app/b-1": "the user's patches for it changed"}),
        (edit(user={"patches/app/b-2/one.patch": "--- a\n"}), {}),
        (edit(user={"make.conf": 'MAKEOPTS="-j99"\n'}), {}),
        (edit(user={"make.conf": 'EXTRA_ECONF="--x"\n'}), dict.fromkeys(EBUILDS, "EXTRA_ECONF is new")),
        (edit(user={"package.env": "app/b small\n", "env/small": 'CFLAGS="-Os"\n'}), {"app/b-1": "CFLAGS is new"}),
        (edit(user={"env/app/b": "export X=1\n"}), {"app/b-1": "env/b is new"}),
    ],
)  # fmt: skip
def test_an_edit_concerns_just_what_is_made_from_it(tree: Tree, plans: Edit, lines: dict[str, str]) -> None:
    assert changed(tree.planned(), plans(tree)) == lines


# A generated tree, an edit of it, and what the promise says of that.


@dataclass(frozen=True)
class Grown:
    """Packages lib/p0, lib/p1…, each of which needs some of the earlier, bound to their subslots or not."""

    needs: tuple[Mapping[int, bool], ...]
    """For each package the earlier ones that it needs, and whether with a slot operator."""
    inherits: tuple[bool, ...]

    def ebuilds(self, edited: int = -1, kind: str = "") -> Ebuilds:
        return {
            f"lib/p{number}-1": {
                "SLOT": "0/2" if (number, kind) == (edited, "subslot") else "0/1",
                "IUSE": "x",
                "DEPEND": " ".join(f"lib/p{other}{':=' if bound else ''}" for other, bound in needs.items()),
                "DESCRIPTION": "other" if (number, kind) == (edited, "ebuild") else "a test",
                **({"_inherit": "one"} if self.inherits[number] else {}),
            }
            for number, needs in enumerate(self.needs)
        }

    def planned(self, place: Path, edited: int = -1, kind: str = "") -> Plan:
        files = {"eclass__one.eclass": f"# {kind if kind == 'eclass' else ''}\n"}
        files |= {f"lib__p{edited}__files__a": "a"} if kind == "files" else {}
        user = {
            "use": {"package.use": f"lib/p{edited} x\n"},
            "patch": {f"patches/lib/p{edited}/a.patch": "--- a\n"},
            "jobs": {"make.conf": 'MAKEOPTS="-j3"\n'},
        }.get(kind)
        atoms = tuple(f"lib/p{number}" for number in range(len(self.needs)))
        return Tree(place).planned(self.ebuilds(edited, kind), user, atoms=atoms, **files)

    def expected(self, edited: int, kind: str) -> set[str]:
        """The packages that the edit concerns."""
        numbers = {
            "eclass": {number for number, inherits in enumerate(self.inherits) if inherits},
            "subslot": {edited, *(number for number, needs in enumerate(self.needs) if needs.get(edited))},
            "jobs": set(),
        }.get(kind, {edited})
        return {f"lib/p{number}-1" for number in numbers}


@st.composite
def grown(draw: st.DrawFn) -> Grown:
    size = draw(st.integers(1, 6))
    needs = (
        draw(st.dictionaries(st.integers(0, number - 1), st.booleans())) if number else {} for number in range(size)
    )
    return Grown(tuple(needs), tuple(draw(st.lists(st.booleans(), min_size=size, max_size=size))))


@settings(max_examples=20)
@given(grown(), st.sampled_from(["ebuild", "eclass", "files", "subslot", "use", "patch", "jobs"]), st.data())
def test_an_edit_of_any_tree_concerns_just_what_is_made_from_it(
    tmp_path_factory: pytest.TempPathFactory, before: Grown, kind: str, data: st.DataObject
) -> None:
    edited = data.draw(st.integers(0, len(before.needs) - 1))
    old = before.planned(tmp_path_factory.mktemp("old"))
    new = before.planned(tmp_path_factory.mktemp("new"), edited, kind)
    assert set(changed(old, new)) == before.expected(edited, kind)
