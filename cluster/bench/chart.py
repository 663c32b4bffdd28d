"""A benchmark as a picture: stacked bars, SVG for the web and PNG for everything else."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cluster.bench.emulation import Report
from cluster.bench.samples import PARTS, ratios
from cluster.errors import MachineError

# Okabe and Ito's colours, which nobody confuses.
_COLOURS = dict(zip(PARTS, ("#999999", "#0072b2", "#e69f00", "#009e73"), strict=True))
_WORDS = dict(zip(PARTS, ("black", "white", "black", "white"), strict=True))  # legible on them
_INCHES_WIDE, _INCHES_A_BAR, _INCHES_AROUND = 9.0, 0.46, 1.6
_DPI = 150
_LABEL_FROM = 0.06  # of the longest bar: a narrower part has no room for its seconds


def require() -> None:
    """Raise MachineError if matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MachineError("a chart needs matplotlib", "pip install 'portage-cluster[bench]', or leave out --output")


def draw(report: Report, directory: Path) -> tuple[Path, ...]:
    """Write `emulation.svg` and `emulation.png` into `directory`; returns them. Raises MachineError."""
    require()
    from matplotlib.figure import Figure

    height = _INCHES_AROUND + _INCHES_A_BAR * len(report.summaries)
    figure = Figure(figsize=(_INCHES_WIDE, height), layout="constrained")
    _fill(figure.subplots(), report)
    paths = (directory / "emulation.svg", directory / "emulation.png")
    for path in paths:
        figure.savefig(path, dpi=_DPI, metadata={"Date": None} if path.suffix == ".svg" else None)
    return paths


def _fill(axes: Any, report: Report) -> None:
    names = list(report.summaries)
    medians = [asdict(report.summaries[name].median) for name in names]
    longest = max(median["total_s"] for median in medians)
    left = [0.0] * len(names)
    for part in PARTS:
        widths = [median[part] for median in medians]
        bars = axes.barh(names, widths, left=left, height=0.68, color=_COLOURS[part], label=part.removesuffix("_s"))
        wide = [width >= _LABEL_FROM * longest and part != PARTS[-1] for width in widths]  # the last has the line
        texts = [f"{width:.0f}" if room else "" for width, room in zip(widths, wide, strict=True)]
        axes.bar_label(bars, texts, label_type="center", color=_WORDS[part], fontsize=9, fontweight="bold")
        left = [start + width for start, width in zip(left, widths, strict=True)]
    _mark_totals(axes, report)
    axes.invert_yaxis()  # the first variant on top
    axes.set_xlim(0, longest * 1.24)
    axes.set_xlabel("seconds in the ebuild's phases, and times native; the line is the spread of the total")
    builds = "one build" if report.repeat == 1 else f"median of {report.repeat} builds"
    axes.set_title(f"{report.package}, {builds}", loc="left", fontsize=12, fontweight="bold", pad=30)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0, labelsize=11)
    axes.grid(axis="x", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.4}
    axes.legend(ncols=len(PARTS), frameon=False, handlelength=1, handletextpad=0.5, borderpad=0, **place)


def _mark_totals(axes: Any, report: Report) -> None:
    """The spread of each total as a line, and what it is of native in words behind it."""
    against = ratios(report.summaries)
    for row, (name, summary) in enumerate(report.summaries.items()):
        least, most = summary.spread["total_s"]
        axes.plot([least, most], [row, row], color="black", linewidth=1.4, solid_capstyle="butt", marker="|")
        ratio = f"  {against[name]:.1f}x" if name in against else ""
        place = max(most, summary.median.total_s)
        text = f"{summary.median.total_s:.0f} s"
        label = axes.annotate(text, (place, row), (6, 0), textcoords="offset points", va="center", fontsize=10)
        axes.annotate(
            ratio,
            (1, 0.5),
            (2, 0),
            xycoords=label,
            textcoords="offset points",
            va="center",
            fontsize=11,
            fontweight="bold",
        )
