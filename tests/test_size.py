"""The tree of any size, and how planning it is measured."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from cluster import target
from cluster.bench import bigtree, size
from cluster.errors import InputError
from cluster.master.resolver import Request, resolve
from cluster.node.installed import write_installed


def test_a_tree_has_so_many_packages_and_ten_dependencies_of_each(tmp_path: Path) -> None:
    repository = bigtree.write(tmp_path / "tree", 100)
    installed = write_installed((), tmp_path / "stage", "arm64")
    profile = repository.location / "profiles/arm64"
    request = Request(target.load("arm64"), (f"@{bigtree.SET}",), (repository,), profile, installed, manifests=False)
    plan = resolve(request, tmp_path / "work")
    assert len(plan.packages) == 100
    wanted = [min(int(package.cpv.partition("pkg")[2].removesuffix("-2")), 10) for package in plan.packages]
    assert [len(package.dependencies) for package in plan.packages] == wanted
    assert {package.slot for package in plan.packages} == {"0", "0/2"}


def test_the_same_number_gives_the_same_tree(tmp_path: Path) -> None:
    one, other = (bigtree.write(tmp_path / name, 40).location for name in ("one", "other"))
    files = [path.relative_to(one) for path in one.rglob("*") if path.is_file()]
    assert len(files) > 80
    assert all((one / file).read_bytes() == (other / file).read_bytes() for file in files)


def test_a_size_is_planned_and_growth_is_an_exponent() -> None:
    planned = size.plan(30)
    assert (planned.packages, planned.dependencies) == (30, sum(min(number, 10) for number in range(30)))
    assert planned.total_s == round(planned.portage_s + planned.ours_s, 2)
    assert planned.portage_s > 0
    first = size.Planned(10, 100, 50, portage_s=1, ours_s=1, peak_mib=100)
    last = size.Planned(1000, 10000, 500, portage_s=100, ours_s=10000, peak_mib=200)
    report = size.Report((first, last), {})
    assert report.exponents["portage_s"] == 1
    assert report.exponents["ours_s"] == 2
    assert report.exponents["peak_mib"] == round(math.log(2) / math.log(100), 2)
    assert size.Report((first,), {}).exponents == {}


@pytest.mark.parametrize("text", ["", "x", "10,-1", "1", ","])
def test_what_is_no_number_of_packages(text: str) -> None:
    with pytest.raises(InputError, match="is no number of packages: for example"):
        size.parse(text)


def test_sizes_come_from_small_to_large() -> None:
    assert size.parse("20, 10,20") == (10, 20)
