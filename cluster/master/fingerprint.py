"""What a package is made from, each part by its hash: kept in the binary package, to tell what changed since.

A binary package has it as the file CLUSTER_FINGERPRINT of its metadata, one line of `part=value`:

    ebuild       the ebuild's text
    eclasses     NAME:HASH of each eclass, with commas between
    files        what is in the ebuild's files/
    sources      the Manifest's digests of its source archives
    patches      the user's patches for it
    config       VARIABLE:HASH (cluster.master.buildconfig)
    slots        CATEGORY/NAME:SLOT/SUBSLOT of what its slot operators (`:=`) were bound to
    tools        the packages of the compiler that are prerequisites
    first        what of a first round its build uses (cluster.master.bootstrap)
    stage        the recipe of the stage it was built in
    toolchain    what the stage's own compilers say of themselves

USE, slot and CHOST are in Portage's own metadata. What a package links to is told by its libraries
(cluster.master.abi). No part has white space in it. A part that either side lacks is not compared,
so that packages of an older version of this program are not all built anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping

Parts = tuple[tuple[str, str], ...]
"""Names and values of a fingerprint, in the order above."""

NAME = "CLUSTER_FINGERPRINT"

_WORDS = {
    "ebuild": "its ebuild changed",
    "files": "a file of its ebuild's files/ changed",
    "sources": "a source archive changed",
    "patches": "the user's patches for it changed",
    "first": "what was built before it, to break a circle, changed",
    "stage": "the stage's recipe changed",
    "toolchain": "the stage's compiler changed",
}
_LISTS = {"eclasses": "eclass", "config": "", "slots": "", "tools": ""}
_BYTES = 12


def digest(*parts: str | bytes) -> str:
    """A hash of `parts` in their order: 24 hexadecimal digits of BLAKE2b."""
    state = hashlib.blake2b(digest_size=_BYTES)
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode()
        state.update(b"%d:" % len(data))
        state.update(data)
    return state.hexdigest()


def render(parts: Parts) -> str:
    """One line for a binary package's metadata."""
    return " ".join(f"{name}={value}" for name, value in parts)


def parse(text: str) -> Parts:
    """What `render` wrote; words that are no `part=value` are passed over."""
    return tuple((name, value) for name, equals, value in (word.partition("=") for word in text.split()) if equals)


def changes(had: Parts, wants: Parts) -> tuple[str, ...]:
    """Each difference in words, for a package that was made from `had` and is to be made from `wants`."""
    before, after = dict(had), dict(wants)
    found: list[str] = []
    for name, value in after.items():
        if name in before and before[name] != value:
            found += _words(name, before[name], value)
    return tuple(found)


def _words(name: str, before: str, after: str) -> Iterable[str]:
    if name not in _LISTS:
        return [_WORDS.get(name, f"{name} changed")]
    match name:
        case "slots":
            return _slot_changes(_pairs(before), _pairs(after))
        case "tools":
            return [f"it was built with {before.replace(',', ' ') or 'the tools of the stage'}"]
        case _:
            label = _LISTS[name]
            return (f"{label} {word}".strip() for word in _pair_changes(_pairs(before), _pairs(after)))


def _pairs(text: str) -> dict[str, str]:
    return {key: value for key, _, value in (item.partition(":") for item in text.split(",")) if key}


def _pair_changes(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    for key in sorted(before.keys() | after.keys()):
        if key not in after:
            yield f"{_named(key)} is gone"
        elif key not in before:
            yield f"{_named(key)} is new"
        elif before[key] != after[key]:
            yield f"{_named(key)} changed"


def _named(key: str) -> str:
    return "another variable of the configuration" if key == "other" else key


def _slot_changes(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    """A dependency that is new or gone is another ebuild or USE, which is said already."""
    for key in sorted(before.keys() & after.keys()):
        if before[key] != after[key]:
            yield f"{key} is {after[key]} and was {before[key]}"
