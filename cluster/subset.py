"""Some of a sequence, as bits: a plan has as many closures as packages, and together they are its square."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar, overload

T = TypeVar("T")


class Universe(Generic[T]):
    """The sequence that subsets are of; its items are different from each other."""

    __slots__ = ("items", "place")

    def __init__(self, items: Iterable[T]) -> None:
        self.items = tuple(items)
        self.place = {item: index for index, item in enumerate(self.items)}

    def bits(self, some: Iterable[T]) -> int:
        """`some` of its items, bit N standing for the item at index N. KeyError for what is none."""
        if isinstance(some, Subset) and some.universe is self:
            return some.bits
        found = 0
        for item in some:
            found |= 1 << self.place[item]
        return found


class Subset(Sequence[T]):
    """Some items of a universe, in its order: a sequence that takes a bit for each item of the universe.

    It equals a tuple of the same items.
    """

    __slots__ = ("bits", "universe")

    def __init__(self, universe: Universe[T], bits: int) -> None:
        self.universe = universe
        self.bits = bits

    def among(self, bits: int) -> Subset[T]:
        """Those that are in `bits` too."""
        return Subset(self.universe, self.bits & bits)

    def __len__(self) -> int:
        return self.bits.bit_count()

    def __iter__(self) -> Iterator[T]:
        items = self.universe.items
        lowest_first = bin(self.bits)[:1:-1]
        index = lowest_first.find("1")
        while index >= 0:
            yield items[index]
            index = lowest_first.find("1", index + 1)

    def __contains__(self, item: object) -> bool:
        place = self.universe.place.get(item)  # type: ignore[arg-type]
        return place is not None and bool(self.bits >> place & 1)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[T, ...]: ...
    def __getitem__(self, index: int | slice) -> T | tuple[T, ...]:
        return tuple(self)[index]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Subset) and other.universe is self.universe:
            return self.bits == other.bits
        return tuple(self) == tuple(other) if isinstance(other, (Subset, tuple)) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))
