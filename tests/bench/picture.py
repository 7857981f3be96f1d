"""A program for the environment that has matplotlib: draws what was measured of running code.

Arguments: the JSON of `sandbox_runs`, and the PNG to write. Imports nothing of this project.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

COLOURS = {"ours": "#1d5fd1", "reference": "#737d8c", "peer": "#d9822b"}
NAMES = {"ours": "sandbox-lockdown", "reference": "runsc by hand, the same box", "peer": "others, the same code"}
INK = "#1c2430"
FAINT = "#5d6775"
GRID = "#e3e7ec"
WIDTH_INCHES, HEIGHT_INCHES, DOTS_PER_INCH = 11.0, 5.6, 150
_ROOM_FOR_WORDS = 2.2

Rows = list[dict[str, Any]]


def main() -> None:
    """Draw."""
    source, target = map(Path, sys.argv[1:])
    document = json.loads(source.read_text())
    latency, throughput = (_measured(document, name) for name in ("Latency", "Throughput"))
    plt.rcParams.update({"font.family": "DejaVu Sans", "font.size": 9.5, "text.color": INK, "axes.labelcolor": FAINT})
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(WIDTH_INCHES, HEIGHT_INCHES), width_ratios=(1.75, 1), layout="constrained", facecolor="white"
    )
    figure.get_layout_engine().set(w_pad=0.14, h_pad=0.1, wspace=0.03)
    _draw_latency(left, latency)
    _draw_throughput(right, throughput)
    _draw_legend(figure, {row["whose"] for row in latency})
    figure.supxlabel(f"{document['machine']}. Measured on {document['measured_on']}.", fontsize=8, color=FAINT)
    figure.savefig(target, dpi=DOTS_PER_INCH, metadata={"Software": None})


def in_words(seconds: float) -> str:
    """A duration as it stands beside its mark."""
    milliseconds = seconds * 1e3
    if milliseconds >= 1e3:
        return f"{seconds:.1f} s"
    return f"{milliseconds:.1f} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"


def _measured(document: dict[str, Any], section: str) -> Rows:
    """The rows of the section whose title begins so, without what was skipped."""
    (rows,) = (rows for title, rows in document["sections"].items() if title.startswith(section))
    return [row for row in rows if "sample" in row]


def _draw_latency(axes: Axes, rows: Rows) -> None:
    """A dot for each median, with a line to the 99th percentile."""
    rows = sorted(rows, key=lambda row: row["sample"]["median"])
    for place, row in enumerate(reversed(rows)):
        median, p99 = row["sample"]["median"], row["sample"]["p99"]
        colour = COLOURS[row["whose"]]
        axes.plot([median, p99], [place, place], color=colour, linewidth=2.2, alpha=0.45, solid_capstyle="round")
        axes.plot([p99], [place], "|", color=colour, markersize=8, markeredgewidth=1.8)
        axes.plot([median], [place], "o", color=colour, markersize=8)
        words = {"textcoords": "offset points", "va": "center_baseline", "fontsize": 9}
        axes.annotate(in_words(median), (median, place), (-8, 0), ha="right", color=colour, fontweight="bold", **words)
        axes.annotate(in_words(p99), (p99, place), (6, 0), color=FAINT, **words)
    axes.set_yticks(range(len(rows)), [row["what"] for row in reversed(rows)])
    axes.set_xscale("log")
    lowest, highest = axes.get_xlim()
    axes.set_xlim(lowest / _ROOM_FOR_WORDS, highest * _ROOM_FOR_WORDS)
    ticks = {1e-3: "1 ms", 1e-2: "10 ms", 1e-1: "100 ms", 1.0: "1 s", 10.0: "10 s"}
    inside = {tick: word for tick, word in ticks.items() if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]}
    axes.set_xticks(list(inside), list(inside.values()))
    axes.minorticks_off()
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_title("From request to result: median (dot), and up to the 99th percentile", loc="left", fontsize=10.5)
    _dress(axes, "x")


def _draw_throughput(axes: Axes, rows: Rows) -> None:
    """A pair of bars for each number of runs at once, where both do everything within that time."""
    rows = [row for row in rows if row["what"].endswith(" at once")]
    by_whose = {whose: [row for row in rows if row["whose"] == whose] for whose in ("reference", "ours")}
    for shift, (whose, mine) in zip((-0.2, 0.2), by_whose.items(), strict=True):
        heights = [row["sample"]["median"] for row in mine]
        bars = axes.bar([place + shift for place in range(len(mine))], heights, width=0.37, color=COLOURS[whose])
        axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=9, color=COLOURS[whose], fontweight="bold")
    counts = [row["what"].rpartition(", ")[2].split()[0] for row in by_whose["ours"]]
    axes.set_xticks(range(len(counts)), counts)
    axes.set_xlabel("at once")
    axes.margins(y=0.12)
    axes.set_title("Cold runs a second", loc="left", fontsize=10.5)
    _dress(axes, "y")


def _draw_legend(figure: plt.Figure, present: set[str]) -> None:
    marks = [
        Line2D([], [], marker="o", linestyle="", markersize=8, color=COLOURS[whose], label=name)
        for whose, name in NAMES.items()
        if whose in present
    ]
    figure.legend(handles=marks, loc="outside upper left", ncols=len(marks), frameon=False, fontsize=10)


def _dress(axes: Axes, grid: str) -> None:
    axes.set_facecolor("white")
    axes.grid(axis=grid, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=INK)
    for name, spine in axes.spines.items():
        spine.set_visible(name == "bottom")
        spine.set_color(GRID)


if __name__ == "__main__":
    main()
