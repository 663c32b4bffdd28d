"""Which hosts may be given packages, and what is said of the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.host.facts import Facts, Rates
from cluster.host.fitness import Fitness
from cluster.master.hosts import check
from cluster.master.hosts.check import Bare
from cluster.master.hosts.registry import Machine

MASTER = Facts("x86_64", 2, 4000, 9000, "3.11.2", "0.1.0", "Debian 12", False, 1.0, Rates(700.0, 600.0))
HOST = replace(MASTER, cpus=8, memory_mib=16000, disk_mib=90000)
FIT = Fitness(sandbox=True, emulators={"arm64": "11.0.0"}, problems={})
MACHINE = Machine("farm", "me", "farm.example", 22, "", {"arm64": 4}, {"arm64": "qemu"}, software="ours")
BARE = Bare("x86_64", 5000, 0.5, (), debian=True, root="sudo -n", may=False)


def test_a_host_like_the_master_is_fit() -> None:
    assert check.before(MACHINE, BARE) == ()
    assert check.room(MACHINE, BARE, 5000) == ()
    assert check.current(MACHINE, BARE, "ours") == ()
    assert check.after(MACHINE, MASTER, HOST, FIT, 1536) == ()


@pytest.mark.parametrize(
    ("spoiled", "said"),
    [
        (lambda bare: replace(bare, clock_offset_s=31.0), "its clock is 31 s ahead of"),
        (lambda bare: replace(bare, clock_offset_s=-90.0), "its clock is 90 s behind"),
        (lambda bare: replace(bare, debian=False), "it is no Debian machine"),
        (lambda bare: replace(bare, missing=("bubblewrap", "distcc")), "as root, run: .* bubblewrap distcc$"),
    ],
)
def test_what_forbids_to_set_a_host_up_is_one_line(spoiled: Callable[[Bare], Bare], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(*map(str, check.before(MACHINE, spoiled(BARE))))


def test_missing_packages_are_no_problem_where_its_user_may_install_them() -> None:
    assert check.before(MACHINE, replace(BARE, missing=("distcc",), may=True)) == ()


def test_a_disk_that_is_too_small_is_said_in_numbers() -> None:
    (problem,) = check.room(MACHINE, BARE, 5001)
    assert problem.what == "its disk has 5000 MiB free and 5001 MiB are needed to set it up"
    assert "me's home" in problem.mend


@pytest.mark.parametrize(
    ("machine", "bare", "said"),
    [
        (replace(MACHINE, software=""), BARE, "it has not been set up"),
        (replace(MACHINE, software="old"), BARE, "its portage-cluster is old and this master's ours"),
        (MACHINE, replace(BARE, missing=("distcc",)), "it lacks Debian packages: distcc"),
    ],
)
def test_what_changed_since_is_mended_by_adding_it_again(machine: Machine, bare: Bare, said: str) -> None:
    (problem,) = check.current(machine, bare, "ours")
    assert problem.what == said
    assert problem.mend == "run `cluster host add me@farm.example` again"


@pytest.mark.parametrize(
    ("facts", "fitness", "said"),
    [
        (replace(HOST, version="0.0.9"), FIT, "it has portage-cluster 0.0.9, this master 0.1.0"),
        (replace(HOST, clock_offset_s=40.0), FIT, "its clock is 40 s ahead of this machine's"),
        (replace(HOST, memory_mib=6000), FIT, "its memory is 6000 MiB and 4 nodes need 7168 MiB"),
        (replace(HOST, disk_mib=8191), FIT, "its disk has 8191 MiB free and 4 nodes need 8192 MiB"),
        (HOST, replace(FIT, problems={"arm64": "its compiler differs"}), "no arm64 nodes: its compiler differs"),
        (HOST, Fitness(False, {}, {"arm64": "no sandbox"}), "bubblewrap cannot make namespaces for me"),
    ],
)
def test_each_failed_check_is_one_line_with_its_mend(facts: Facts, fitness: Fitness, said: str) -> None:
    (problem,) = check.after(MACHINE, MASTER, facts, fitness, 1536)
    assert problem.what == said
    assert problem.mend
    assert check.reason((problem, problem)) == f"{problem}; {problem}"


@given(st.integers(1, 512), st.integers(256, 1 << 22), st.integers(256, 65536))
def test_a_host_bears_the_nodes_that_it_is_given_by_default_or_one(cpus: int, memory_mib: int, node_mib: int) -> None:
    facts = replace(HOST, cpus=cpus, memory_mib=memory_mib, disk_mib=1 << 30)
    nodes = check.nodes_for(facts, node_mib)
    assert 1 <= nodes <= cpus
    if nodes > 1:
        machine = replace(MACHINE, nodes={"arm64": nodes})
        assert check.after(machine, MASTER, facts, FIT, node_mib) == ()


COMPILING = replace(MACHINE, nodes={"arm64": 0}, compiles_only=True)


def test_a_host_without_nodes_needs_memory_for_its_compiles_and_no_disk_for_nodes() -> None:
    assert check.after(COMPILING, MASTER, replace(HOST, memory_mib=5120, disk_mib=100), FIT, 1536) == ()
    (problem,) = check.after(COMPILING, MASTER, replace(HOST, memory_mib=5119), FIT, 1536)
    assert problem.what == "its memory is 5119 MiB and 8 compiles at once need 5120 MiB"


def test_a_compiler_that_differs_makes_a_host_without_nodes_useless() -> None:
    (problem,) = check.after(COMPILING, MASTER, HOST, replace(FIT, problems={"arm64": "its compiler differs"}), 1536)
    assert problem.what == "no arm64 compiles: its compiler differs"
