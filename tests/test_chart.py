"""The picture of a benchmark."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.bench import chart, emulation
from cluster.bench.samples import sample, summarize
from cluster.errors import MachineError
from cluster.model import Cpv

pytestmark = pytest.mark.slow


def report(*names: str) -> emulation.Report:
    summaries = {
        name: summarize(
            [sample((("configure", factor * 5.0), ("compile", factor * 4.0)), 99) for factor in (scale, scale + 1)]
        )
        for scale, name in enumerate(names, start=1)
    }
    return emulation.Report(Cpv("dev-build/make-4.4.1"), 2, {}, summaries, {}, {})


def test_bars_ratios_and_names_are_in_the_svg_and_the_png_is_one(tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        svg, png = chart.draw(report("native", "tuned"), tmp_path)
    text = svg.read_text()
    for words in ("native", "tuned", "configure", "compile", "1.7x", "dev-build/make-4.4.1, median of 2 builds"):
        assert words in text
    assert png.read_bytes().startswith(b"\x89PNG")


def test_without_native_there_are_no_ratios(tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        svg, _ = chart.draw(report("tuned", "distcc"), tmp_path)
    assert "tuned" in svg.read_text()
    assert "1.0x" not in svg.read_text()


def test_without_matplotlib_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match=r"a chart needs matplotlib: pip install 'portage-cluster\[bench\]'"):
        chart.require()


def test_nothing_imports_matplotlib_before_a_chart_is_drawn() -> None:
    said = subprocess.run(
        [sys.executable, "-c", "import sys, cluster.cli; print('matplotlib' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert said.stdout == "False\n"
