"""Charts of benchmark results, as SVG and PNG. The one module that imports matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.errors import MachineError

_COLOURS = {"extract": "#b8c4ce", "configure": "#2a6f97", "compile": "#e07a5f", "install": "#81b29a"}


def bars(
    title: str,
    subtitle: str,
    phases: Mapping[str, Mapping[str, float]],
    ratios: Mapping[str, float],
    outputs: Sequence[Path],
) -> None:
    """Draw a bar for each variant of `phases`, stacked by seconds per phase, labelled with its ratio.

    The format of each of `outputs` is its suffix. Raises MachineError without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MachineError(
            "matplotlib is missing, which draws charts", "pip install 'portage-cluster[bench]'"
        ) from error
    names = list(phases)[::-1]
    figure = Figure(figsize=(9, 1.2 + 0.55 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    left = dict.fromkeys(names, 0.0)
    for phase, colour in _COLOURS.items():
        widths = [phases[name].get(phase, 0.0) for name in names]
        axes.barh(names, widths, left=[left[name] for name in names], color=colour, label=phase, height=0.68)
        for name, width in zip(names, widths, strict=True):
            left[name] += width
    for place, name in enumerate(names):
        ratio = f"  {ratios[name]:.1f}\N{MULTIPLICATION SIGN} native" if name in ratios else ""
        axes.text(left[name], place, f" {left[name]:.0f} s{ratio}", va="center", fontsize=9)
    axes.set_xlim(0, max(left.values()) * 1.22)
    axes.set_xlabel("seconds")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    axes.set_title(subtitle, loc="left", fontsize=8, color="#555555")
    axes.legend(loc="lower right", frameon=False, ncols=4, fontsize=8)
    for output in outputs:
        figure.savefig(output, dpi=140)
