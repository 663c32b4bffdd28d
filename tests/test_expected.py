"""A plan's packages as tasks."""

from __future__ import annotations

from pathlib import Path

from factories import package, past, plan

from cluster.master import expected
from cluster.model import Action, Cpv

A, B, C = (Cpv(f"cat/{name}-1") for name in "abc")


def test_tasks_are_what_is_built_with_what_was_learnt() -> None:
    made = plan(package(A, action=Action.SKIP), package(B, A), package(C, A, B))
    builds = past(B, 50.0, cpu_s=75.0, memory_mib=900.0, disk_mib=300.0)
    todo = expected.tasks_of(made, expected.estimates(made, builds), expected.Node(1536.0, 1500.0))
    b, c = todo.all
    assert (b.cpv, b.seconds, b.memory_mib, b.disk_mib, b.parallelism) == (B, 50.0, 900.0, 300.0, 1.5)
    assert todo.needs == ((), (0,))
    assert (c.cpv, c.needs) == (C, (B,))


def test_of_what_nothing_is_known_the_whole_node_is_counted() -> None:
    made = plan(package(A))
    todo = expected.tasks_of(made, expected.estimates(made, ()), expected.Node(1536.0, 1500.0))
    assert (todo.all[0].memory_mib, todo.all[0].disk_mib, todo.all[0].parallelism) == (1536.0, 1500.0, None)


def test_disk_in_memory_counts_as_memory() -> None:
    made = plan(package(A))
    node = expected.Node(1000.0, 500.0, disk_is_memory=True)
    assert expected.tasks_of(made, expected.estimates(made, ()), node).all[0].memory_mib == 1500.0


def test_a_package_waits_for_what_it_needs_even_where_what_stands_between_is_there() -> None:
    """C requires A through B, which is in the binhost: that A is built first must not be lost with B."""
    made = plan(package(A), package(B, A, action=Action.SKIP), package(C, A, B))
    todo = expected.tasks_of(made, expected.estimates(made, ()))
    assert todo.needs[todo.places[C]] == (todo.places[A],)


def test_packages_of_a_group_are_apart() -> None:
    fox = package("www/fox-1", ebuild=Path("/repo/www/fox/fox-1.ebuild"))
    rust = package("dev/rust-1", ebuild=Path("/repo/dev/rust/rust-1.ebuild"))
    made = plan(fox, rust, package(A))
    todo = expected.tasks_of(made, expected.estimates(made, ()), apart=[["www/fox", "dev/rust"]])
    assert [task.apart for task in todo.all] == ["1", "1", ""]
