"""Heat maps: shares by row and column, written into cells that are the more coloured the higher they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ptlreid.reports import render
from ptlreid.reports.pictures import Picture, Table, percent, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_MOST_WRITTEN = 20


def heat_map(
    name: str, title: str, values: np.ndarray, *, rows: Sequence[str], columns: Sequence[str], axes_of: tuple[str, str]
) -> Picture:
    """`values`: (R, C) shares, NaN where there is nothing; `axes_of`: what rows and columns are."""
    down, across = axes_of
    cells = [[percent(value) if np.isfinite(value) else "–" for value in line] for line in values]
    names = [short(name, 16) for name in columns]
    written = len(columns) <= _MOST_WRITTEN  # more cells become too small for text; the table has it
    width, height = (0.42, 0.3) if written else (0.2, 0.2)
    size = (max(4.3, 1.3 + width * len(columns)), max(2.0, 0.9 + height * len(rows)))
    # About 0.07 inches a letter, and an inch and a half beside the cells.
    turned = 0.07 * max(map(len, names), default=0) > (size[0] - 1.5) / max(1, len(columns))

    def draw(axes: Axes) -> None:
        from matplotlib.patches import Rectangle

        axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5), xlabel=across, ylabel=down)
        axes.grid(visible=False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xticks(range(len(columns)), names, rotation=30 if turned else 0)
        axes.set_yticks(range(len(rows)), [short(name, 16) for name in rows])
        for row, line in enumerate(values):
            for column, value in enumerate(line):
                if np.isfinite(value):
                    # Never so strong that ink on it could not be read, on a light page or a dark one.
                    square = Rectangle((column - 0.48, row - 0.47), 0.96, 0.94, color=render.COLOURS[0], linewidth=0)
                    square.set_alpha(0.04 + 0.5 * float(value))
                    axes.add_patch(square)
                if written:
                    axes.text(column, row, cells[row][column], ha="center", va="center", fontsize=7.5)

    alt = f"{title}, by {down} and {across}, in percent."
    seen = [
        (values[row, column], f"{down} {rows[row]}, {across} {columns[column]}")
        for row, column in np.argwhere(np.isfinite(values))
    ]
    if seen:
        (highest, at), (lowest, below) = max(seen), min(seen)
        alt += f" Highest: {percent(highest)}% ({at}); lowest: {percent(lowest)}% ({below})."
    table = Table((f"{down} \\ {across}", *columns), [[rows[row], *line] for row, line in enumerate(cells)])
    return Picture(name, title, alt, table, draw, size)
