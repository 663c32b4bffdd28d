"""What of a request is left out when not all of it can be planned. Decides; Portage is asked by the caller."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cluster.errors import InputError
from cluster.model import LeftOut

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Wish:
    """One atom of a request."""

    atom: str
    argument: str
    """The set that has it, or the atom again where it was asked for itself."""

    @property
    def asker(self) -> str:
        """The set that has it, or ""."""
        return self.argument if self.argument != self.atom else ""


@dataclass(frozen=True, slots=True)
class Wanting:
    """Who wants whom in a graph of packages, complete or not."""

    edges: tuple[tuple[str, str], ...] = ()
    """A package and one that it needs."""
    asked: tuple[tuple[str, str], ...] = ()
    """An atom of the request, or of a set in it, and the package that it stands for."""

    def above(self, packages: Iterable[str]) -> frozenset[str]:
        """The atoms of the request that lead to one of `packages`. Linear in edges."""
        parents: dict[str, list[str]] = {}
        for parent, child in self.edges:
            parents.setdefault(child, []).append(parent)
        stack = list(packages)
        found = set(stack)
        while stack:
            new = [parent for parent in parents.get(stack.pop(), ()) if parent not in found]
            found.update(new)
            stack.extend(new)
        return frozenset(atom for atom, package in self.asked if package in found)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why wishes cannot be planned together, and which atoms are to blame as far as that is known."""

    problems: tuple[tuple[InputError, frozenset[str]], ...]


def left_out(what: str, error: InputError) -> LeftOut:
    """The line that says why `what` is left out. Its name is not said twice."""
    for between in (": ", " "):
        if error.what.startswith(what + between):
            return LeftOut(what, error.what.removeprefix(what + between), error.mend)
    return LeftOut(what, error.what, error.mend)


def arguments(wishes: Sequence[Wish], kept: Sequence[Wish], torn: Iterable[str] = ()) -> tuple[str, ...]:
    """What to ask Portage for so that it plans `kept` of `wishes`.

    That is a set itself where all of it is kept, so that nothing differs from a plan without
    `--keep-going`. Of others, and those in `torn`, it is the atoms.
    """
    there = set(kept)
    apart = {*torn, *(wish.argument for wish in wishes if wish not in there)}
    return tuple(dict.fromkeys(wish.atom if wish.argument in apart else wish.argument for wish in kept))


def weakest(sides: Sequence[frozenset[str]], order: Sequence[str]) -> frozenset[str]:
    """Which atoms to give up when of `sides`, each wanted by the atoms in it, only one can be had.

    Atoms that want every side contradict themselves. Else it is the side that fewest want, of
    equals the one asked for last in `order`.
    """
    wanted = [side for side in sides if side]
    if not wanted:
        return frozenset()
    common = frozenset.intersection(*wanted)
    if common:
        return common
    place = {atom: index for index, atom in enumerate(order)}
    return min(wanted, key=lambda side: (len(side), -min(place.get(atom, 0) for atom in side)))


def most(
    wishes: Sequence[Wish], attempt: Callable[[Sequence[Wish]], Answer | Refusal]
) -> tuple[Answer | None, tuple[LeftOut, ...]]:
    """The answer for as many of `wishes` as there is one for, None if for none, and what was left out.

    `attempt` is called once for each group of atoms that is to blame for one refusal, and once for
    the answer. A refusal that blames no atom costs as many more as it takes to bisect the wishes.
    """
    kept = tuple(wishes)
    left: list[LeftOut] = []
    while kept:
        answer = attempt(kept)
        if not isinstance(answer, Refusal):
            return answer, tuple(left)
        blamed = dict(_blamed(answer, kept)) or _first_refused(kept, attempt, answer)
        left.extend(left_out(atom, error) for atom, error in blamed.items())
        kept = tuple(wish for wish in kept if wish.atom not in blamed)
    return None, tuple(left)


def _blamed(refusal: Refusal, wishes: Sequence[Wish]) -> Iterator[tuple[str, InputError]]:
    """The atoms of `wishes` that `refusal` blames, in their order, with the first reason for each."""
    for wish in wishes:
        error = next((error for error, atoms in refusal.problems if wish.atom in atoms), None)
        if error is not None:
            yield wish.atom, error


def _first_refused(
    wishes: Sequence[Wish], attempt: Callable[[Sequence[Wish]], Answer | Refusal], refusal: Refusal
) -> dict[str, InputError]:
    """The last atom of the shortest beginning of `wishes` that is refused, found by halving, with the reason.

    So what was asked for first is kept, also where two atoms are good alone and not together.
    """
    good, bad = 0, len(wishes)
    while bad - good > 1:
        middle = (good + bad) // 2
        answer = attempt(wishes[:middle])
        if isinstance(answer, Refusal):
            bad, refusal = middle, answer
        else:
            good = middle
    return {wishes[bad - 1].atom: refusal.problems[0][0]}
