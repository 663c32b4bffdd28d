"""What lies where when several packages' images become one tree."""

from __future__ import annotations

import pytest
from binpkgs import Item, directory, fifo, hard_link, regular, symlink

from cluster.node.layout import MERGED_USR, Tree, Unfit, UnsafeArchive, contents, lay_out, path_of

USR = directory("usr")


def tree_of(*packages: list[Item]) -> Tree:
    return lay_out([[member for member, _ in items] for items in packages])


def origins(tree: Tree) -> dict[str, int]:
    """Which package each path is from."""
    return {path: placed.package for path, placed in tree.items()}


def test_later_files_replace_earlier_ones_and_directories_stay() -> None:
    first = [USR, directory("usr/share", 0o700), regular("usr/share/a"), regular("usr/share/b")]
    second = [USR, directory("usr/share", 0o755), regular("usr/share/b")]
    tree = tree_of(first, second)
    assert origins(tree) == {"usr": 0, "usr/share": 0, "usr/share/a": 0, "usr/share/b": 1}
    assert tree["usr/share"].member.mode == 0o700


@pytest.mark.parametrize("name", ["bin", "sbin", "lib", "lib64"])
def test_what_a_merged_usr_root_links_goes_below_usr(name: str) -> None:
    tree = tree_of([directory(name), regular(f"{name}/x"), symlink(f"{name}/y", "x")])
    assert set(tree) == {"usr", f"usr/{name}", f"usr/{name}/x", f"usr/{name}/y"}


def test_a_package_may_bring_the_links_of_a_merged_usr_root_itself() -> None:
    assert set(tree_of([USR, directory("usr/lib"), symlink("lib", "usr/lib")])) == {"usr", "usr/lib"}


def test_a_link_to_a_directory_of_an_earlier_package_is_followed() -> None:
    first = [USR, directory("usr/real"), symlink("usr/link", "real"), symlink("absolute", "/usr/link")]
    second = [USR, directory("usr/link"), regular("usr/link/a"), directory("absolute"), regular("absolute/b")]
    tree = tree_of(first, second)
    assert {"usr/real/a", "usr/real/b"} <= set(tree)
    assert not {"usr/link/a", "absolute/b"} & set(tree)
    assert tree["usr/link"].member.issym()


def test_a_link_above_the_root_ends_at_the_root() -> None:
    tree = tree_of([symlink("up", "../../../etc")], [directory("up"), regular("up/x")])
    assert {"etc", "etc/x"} < set(tree)


def test_links_in_a_circle_are_unfit() -> None:
    with pytest.raises(Unfit, match="circle"):
        tree_of([symlink("a", "b"), symlink("b", "a")], [directory("a"), regular("a/x")])


def test_parents_that_no_archive_mentions_are_directories() -> None:
    tree = tree_of([regular("opt/deep/file")])
    assert tree["opt"].member.isdir()
    assert tree["opt/deep"].member.mode == 0o755


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([directory("x")], [regular("x")]),
        ([directory("x")], [symlink("x", "y")]),
        ([regular("x")], [directory("x")]),
        ([regular("x")], [regular("x/y")]),
        ([], [regular("lib")]),
        ([], [symlink("lib", "elsewhere")]),
    ],
)
def test_a_directory_that_meets_something_else_is_unfit(first: list[Item], second: list[Item]) -> None:
    with pytest.raises(Unfit):
        tree_of(first, second)


@pytest.mark.parametrize("name", ["/etc/passwd", "image/../x", "image/a/../../x", "other/x", "image/a\nb", "imagex"])
def test_a_name_outside_of_the_image_is_unsafe(name: str) -> None:
    with pytest.raises(UnsafeArchive):
        path_of(name)


def test_names_are_normalised() -> None:
    assert path_of("image/./usr//bin/x") == "usr/bin/x"
    assert path_of("image/") == path_of("./image") == ""


def test_devices_and_a_name_twice_are_unsafe() -> None:
    with pytest.raises(UnsafeArchive, match="device"):
        tree_of([fifo("x")])
    with pytest.raises(UnsafeArchive, match="twice"):
        tree_of([regular("x"), regular("./x")])


def test_a_hard_link_leads_to_the_file_of_its_own_archive() -> None:
    tree = tree_of([directory("lib"), regular("lib/a"), hard_link("lib/b", "lib/a")])
    assert tree["usr/lib/b"].target == "usr/lib/a"


@pytest.mark.parametrize("target", ["never", "lib", "lib/link", "lib/theirs"])
def test_a_hard_link_to_anything_else_is_unsafe(target: str) -> None:
    theirs = [directory("lib"), regular("lib/theirs")]
    with pytest.raises(UnsafeArchive, match="hard link"):
        tree_of(theirs, [directory("lib"), symlink("lib/link", "/etc/shadow"), hard_link("lib/b", target)])


def test_contents_has_the_packages_own_paths() -> None:
    items = [regular("lib/z", b"z", mtime=12.9), symlink("lib/a", "/etc/a"), directory("lib"), directory("")]
    text = contents([member for member, _ in items], {"image/lib/z": "d41d8"})
    assert text == "dir /lib\nsym /lib/a -> /etc/a 1700000000\nobj /lib/z d41d8 12\n"


def test_every_link_of_a_merged_root_leads_below_usr() -> None:
    assert {target.partition("/")[0] for target in MERGED_USR.values()} == {"usr"}
