"""Times of builds: one sample of each run, medians and spread of several, ratios to native. No I/O."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

_PHASES = {
    "extract_s": ("unpack",),
    "configure_s": ("prepare", "configure"),
    "compile_s": ("compile",),
    "install_s": ("install",),
}
PARTS = tuple(_PHASES)
"""The parts of a build, in their order; seconds."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One build, in seconds."""

    extract_s: float
    configure_s: float
    compile_s: float
    install_s: float
    total_s: float
    """All phases of the ebuild from src_unpack to src_install."""
    wall_s: float
    """From the order to the finished binary package: with booting, prerequisites, packaging."""

    @property
    def in_words(self) -> str:
        """For a person, in one line."""
        parts = (f"{name.removesuffix('_s')} {seconds:g}" for name, seconds in asdict(self).items())
        return f"{', '.join(parts)} seconds"


@dataclass(frozen=True, slots=True)
class Summary:
    """Several builds of one variant."""

    median: Sample
    """The median of each value by itself."""
    spread: dict[str, tuple[float, float]]
    """Least and greatest of each value."""


def sample(phases: Iterable[tuple[str, float]], wall_s: float) -> Sample:
    """What `phases` of a build, as its marks give them, come to; a phase that it lacks took no time."""
    spent = dict(phases)
    parts = {part: round(sum(spent.get(name, 0.0) for name in names), 2) for part, names in _PHASES.items()}
    return Sample(**parts, total_s=round(sum(parts.values()), 2), wall_s=round(wall_s, 2))


def summarize(samples: Sequence[Sample]) -> Summary:
    """Median and spread of at least one sample."""
    values = {name: [asdict(one)[name] for one in samples] for name in asdict(samples[0])}
    median = {name: round(statistics.median(numbers), 2) for name, numbers in values.items()}
    return Summary(Sample(**median), {name: (min(numbers), max(numbers)) for name, numbers in values.items()})


def ratios(summaries: Mapping[str, Summary], part: str = "total_s") -> dict[str, float]:
    """How many times longer than `native` each variant takes; empty if that was not measured or took no time."""
    medians = {name: asdict(summary.median)[part] for name, summary in summaries.items()}
    native = medians.get("native", 0.0)
    return {name: round(value / native, 2) for name, value in medians.items()} if native else {}
