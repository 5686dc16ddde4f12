"""Heat maps: percentages by row and column, in cells that are darker for higher values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ptlreid.reports import render
from ptlreid.reports.elements import Plot, Table, format_percent, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_WRITTEN = 20  # columns; beyond, cells are too small for text, and the numbers are in the table only


def plot_heat_map(
    name: str,
    title: str,
    values: np.ndarray,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    axis_names: tuple[str, str],
    note: str = "",
) -> Plot:
    """A heat map of `values`: (R, C) fractions from 0 to 1, NaN where there is none.

    `axis_names`: of the rows and of the columns, such as camera.
    """
    texts = [[format_percent(value) if np.isfinite(value) else "–" for value in line] for line in values]
    width, height = (0.42, 0.3) if len(columns) <= _MOST_WRITTEN else (0.2, 0.2)
    size = (max(4.3, 1.3 + width * len(columns)), max(2.0, 0.9 + height * len(rows)))
    down, across = axis_names

    def draw(axes: Axes) -> None:
        axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5), xlabel=across, ylabel=down)
        axes.grid(visible=False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        names = [shorten(name, 16) for name in columns]
        # A letter is about 0.07 inches wide, and the margin left of the map 1.5 inches.
        crowded = 0.07 * max(map(len, names), default=0) > (size[0] - 1.5) / max(1, len(columns))
        axes.set_xticks(range(len(columns)), names, rotation=30 if crowded else 0)
        axes.set_yticks(range(len(rows)), [shorten(name, 16) for name in rows])
        _draw_cells(axes, values, texts)

    table = Table((f"{down} \\ {across}", *columns), [[rows[row], *line] for row, line in enumerate(texts)])
    alt = f"{title} (%) by {down} and {across}."
    finite_cells = [
        (values[row, column], f"{down} {rows[row]}, {across} {columns[column]}")
        for row, column in np.argwhere(np.isfinite(values))
    ]
    if finite_cells:
        alt += "".join(
            f" {word}: {format_percent(value)}% ({cell})."
            for word, (value, cell) in (("Highest", max(finite_cells)), ("Lowest", min(finite_cells)))
        )
    return Plot(name, title, alt, table, draw, size, note)


def _draw_cells(axes: Axes, values: np.ndarray, texts: Sequence[Sequence[str]]) -> None:
    from matplotlib.patches import Rectangle

    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            square = Rectangle((column - 0.48, row - 0.47), 0.96, 0.94, color=render.COLOURS[0], linewidth=0)
            square.set_alpha(0.04 + 0.5 * float(value))  # text on it is readable on light and dark pages
            axes.add_patch(square)
        if values.shape[1] <= _MOST_WRITTEN:
            axes.text(column, row, texts[row][column], ha="center", va="center", fontsize=7.5)
