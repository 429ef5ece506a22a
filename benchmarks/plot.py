"""A picture of what was measured: one small chart for each figure, a bar for each server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from figures import short

COLOURS = ("#7f7f7f", "#4c78a8", "#f58518", "#ffbf79", "#b279a2", "#d6a5c9")
COLUMNS = 3


def draw(
    figures: Mapping[str, str], sides: Sequence[str], values: Mapping[tuple[str, str], float], path: Path
) -> None:
    """Write an SVG. ``figures``: their units by name; ``values``: medians by figure and side."""
    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "elsewhere", "font.size": 8, "svg.fonttype": "none"})
    from matplotlib import pyplot

    rows = -(-len(figures) // COLUMNS)
    picture, all_axes = pyplot.subplots(rows, COLUMNS, figsize=(11, 1.7 * rows), layout="constrained")
    for axes, (name, unit) in zip(all_axes.flat, figures.items(), strict=False):
        shown = [(side, values[name, side]) for side in sides if (name, side) in values]
        bars = axes.barh(
            [side for side, _ in shown],
            [value for _, value in shown],
            color=[COLOURS[list(sides).index(side)] for side, _ in shown],
        )
        axes.bar_label(bars, fmt=short, padding=2)
        axes.set_title(f"{name} ({unit})", fontsize=7, loc="left")
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="x", labelsize=6)
    for axes in list(all_axes.flat)[len(figures) :]:
        axes.set_visible(False)
    picture.savefig(path, metadata={"Date": None})
    pyplot.close(picture)
