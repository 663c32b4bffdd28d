"""The libraries of a package, those that it links to, and whether a rebuild left them as they were.

A library's hash is over its SONAME and the symbols that it exports, as ld.so sees them: name, version,
kind, and of data the size too, because a program has a copy of it (ELF gABI, chapter 5; Drepper,
"How To Write Shared Libraries"). A static library becomes part of what links it: its hash is over the
file, and it counts only where no shared one of that name is beside it.

A binary package keeps both as files of its metadata, one line each, no white space in a word:

    CLUSTER_PROVIDES   NAME=HASH
    CLUSTER_LINKS      NAME=HASH@CATEGORY/NAME:SLOT/SUBSLOT
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from cluster.master.fingerprint import digest

PROVIDES = "CLUSTER_PROVIDES"
LINKS = "CLUSTER_LINKS"

_MAGIC = b"\x7fELF"
_SPECIAL = ("STV_HIDDEN", "STV_INTERNAL")
_ARCHIVE = ".a"


@dataclass(frozen=True, slots=True)
class Libraries:
    """What the files of one package provide and need."""

    provides: tuple[tuple[str, str], ...]
    """Name (SONAME, or a static library's file name) and hash, sorted."""
    needs: frozenset[str]
    """The SONAMEs its programs and libraries load that it does not have itself."""


@dataclass(frozen=True, slots=True)
class Link:
    """That a package was linked to a library of another."""

    name: str
    digest: str
    package: str
    """CATEGORY/NAME of the package that had it."""
    slot: str
    """Of that package, with its subslot."""

    def __str__(self) -> str:
        return f"{self.name}={self.digest}@{self.package}:{self.slot}"


@dataclass(frozen=True, slots=True)
class Provider:
    """A prerequisite, as its own binary package tells."""

    package: str
    slot: str
    provides: tuple[tuple[str, str], ...]
    direct: bool
    """Whether the build asks for it itself, rather than one of its prerequisites."""


def read(image: tarfile.TarFile) -> Libraries:
    """The libraries in the image of a GPKG."""
    provides: dict[str, str] = {}
    archives: dict[str, str] = {}
    needs: set[str] = set()
    for member in image:
        if not member.isreg():
            continue
        path = PurePosixPath(member.name)
        stream = image.extractfile(member)
        assert stream is not None
        if path.suffix == _ARCHIVE and path.name.startswith("lib"):
            archives[path.name] = digest(stream.read())
        elif stream.read(len(_MAGIC)) == _MAGIC:
            soname, needed, symbols = _dynamic(_MAGIC + stream.read())
            needs |= needed
            if soname:
                provides[soname] = digest(*symbols)
    shared = {name.partition(".so")[0] for name in provides}
    alone = {name: value for name, value in archives.items() if name.removesuffix(_ARCHIVE) not in shared}
    return Libraries(tuple(sorted({**alone, **provides}.items())), frozenset(needs - provides.keys()))


def _dynamic(data: bytes) -> tuple[str, set[str], list[str]]:
    """SONAME, NEEDED and exported symbols of the ELF file `data`; nothing of a broken one."""
    try:
        elf = ELFFile(io.BytesIO(data))
        section: Any = next((part for part in elf.iter_sections() if part["sh_type"] == "SHT_DYNAMIC"), None)
        if section is None:
            return "", set(), []
        soname, needed = "", set()
        for tag in section.iter_tags():
            if tag.entry.d_tag == "DT_SONAME":
                soname = str(tag.soname)
            elif tag.entry.d_tag == "DT_NEEDED":
                needed.add(str(tag.needed))
        return soname, needed, sorted(_exported(elf)) if soname else []
    except (ELFError, UnicodeDecodeError, ValueError, KeyError):
        return "", set(), []


def _exported(elf: Any) -> Iterator[str]:
    parts = {part["sh_type"]: part for part in elf.iter_sections()}
    table = parts.get("SHT_DYNSYM")
    if table is None:
        return
    versions = _versions(parts)
    for number, symbol in enumerate(table.iter_symbols()):
        info = symbol["st_info"]
        if symbol["st_shndx"] == "SHN_UNDEF" or info["bind"] == "STB_LOCAL":
            continue
        if symbol["st_other"]["visibility"] in _SPECIAL:
            continue
        size = str(symbol["st_size"]) if info["type"] in ("STT_OBJECT", "STT_TLS") else ""
        yield f"{symbol.name}@{versions.get(number, '')} {info['type']} {size}"


def _versions(parts: Mapping[str, Any]) -> dict[int, str]:
    """The version of each symbol that has one, by its number in .dynsym."""
    table, definitions = parts.get("SHT_GNU_versym"), parts.get("SHT_GNU_verdef")
    if table is None or definitions is None:
        return {}
    names = {}
    for definition, auxiliaries in definitions.iter_versions():
        names[definition["vd_ndx"]] = str(next(iter(auxiliaries)).name)
    found = {}
    for number in range(table.num_symbols()):
        index = table.get_symbol(number)["ndx"]
        if isinstance(index, int):  # the two others are words: local, and global without a version
            found[number] = names.get(index & 0x7FFF, "")
    return found


def links(libraries: Libraries, providers: Iterable[Provider]) -> tuple[Link, ...]:
    """Which libraries of `providers` a package with `libraries` was linked to, sorted by name.

    What none of them has is the stage's.
    """
    found: dict[str, Link] = {}
    for provider in providers:
        for name, value in provider.provides:
            if name in libraries.needs or (provider.direct and name.endswith(_ARCHIVE)):
                found[name] = Link(name, value, provider.package, provider.slot)
    return tuple(found[name] for name in sorted(found))


def render_provides(provides: Iterable[tuple[str, str]]) -> str:
    """One line for a binary package's metadata."""
    return " ".join(f"{name}={value}" for name, value in provides if not set(name) & set(" \t\n="))


def render_links(found: Iterable[Link]) -> str:
    """One line for a binary package's metadata."""
    return " ".join(map(str, found))


def parse_provides(text: str) -> tuple[tuple[str, str], ...]:
    """What `render_provides` wrote."""
    return tuple((name, value) for name, equals, value in (word.rpartition("=") for word in text.split()) if equals)


def parse_links(text: str) -> tuple[Link, ...]:
    """What `render_links` wrote; words that are none are passed over."""
    found = []
    for word in text.split():
        name, equals, rest = word.partition("=")
        value, at, provider = rest.partition("@")
        package, colon, slot = provider.partition(":")
        if equals and at and colon:
            found.append(Link(name, value, package, slot))
    return tuple(found)
