"""Which packages of a run are urgent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from cluster.errors import InputError
from cluster.model import Cpv, Package, Plan


def urgent(plans: Iterable[Plan], words: Sequence[str]) -> frozenset[Cpv]:
    """The packages of `plans`, and of what is built before them, that one of `words` names.

    A word is CATEGORY/NAME-VERSION, CATEGORY/NAME or NAME. Raises InputError for one that names none of them.
    """
    packages = [package for plan in plans for package in _packages(plan)]
    found = {word: {package.cpv for package in packages if word in _names(package)} for word in words}
    for word, cpvs in found.items():
        if not cpvs:
            raise InputError(
                f"--priority {word} names no package of the plan",
                "name one of `cluster plan` as NAME, CATEGORY/NAME or CATEGORY/NAME-VERSION",
            )
    return frozenset().union(*found.values())


def _packages(plan: Plan) -> Iterator[Package]:
    yield from plan.packages
    if plan.first is not None:
        yield from _packages(plan.first)


def _names(package: Package) -> tuple[str, str, str]:
    return package.cpv, package.name, package.name.partition("/")[2]
