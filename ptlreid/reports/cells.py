"""What the BConv-Cells do while they are trained: the size of the latent state, and how far the gates are open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ptlreid.reports import render
from ptlreid.reports.pictures import Picture, Table, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The keys of a cell in the history, with a title and what is on the axis.
_SHOWN = {
    "state_norm": ("Latent state", "norm"),
    "input": ("Input gate", "mean opening"),
    "forget": ("Forget gate", "mean opening"),
    "output": ("Output gate", "mean opening"),
}


def cells(history: Sequence[Mapping[str, Any]]) -> list[Picture]:
    """A picture each for the state and the three gates over epochs; none where the history tells of no cells.

    A gate of 0 is shut, one of 1 is open.
    """
    lines = [line for line in history if line.get("kind") == "epoch" and line.get("cells")]
    if not lines:
        return []
    return [_picture(key, lines) for key in _SHOWN if any(key in cell for cell in lines[-1]["cells"].values())]


def _picture(key: str, lines: Sequence[Mapping[str, Any]]) -> Picture:
    title, ylabel = _SHOWN[key]
    names = list(dict.fromkeys(name for line in lines for name in line["cells"]))
    epochs = [line["epoch"] for line in lines]
    values = {name: [line["cells"].get(name, {}).get(key, np.nan) for line in lines] for name in names}

    def draw(axes: Axes) -> None:
        for index, column in enumerate(values.values()):
            axes.plot(epochs, column, marker="o", **render.line_style(index))  # type: ignore[arg-type]
        axes.set(xlabel="epochs", ylabel=ylabel)
        if key != "state_norm":
            axes.set_ylim(0, 1)
        render.whole_numbers(axes)
        render.legend(axes, names)

    last = ", ".join(f"{name} {number(column[-1])}" for name, column in values.items())
    rows = [[str(epoch), *(number(values[name][row]) for name in names)] for row, epoch in enumerate(epochs)]
    alt = f"{title} of each cell over epochs, {ylabel}. After {epochs[-1]} epochs: {last}."
    return Picture(f"cell-{key.replace('_', '-')}", title, alt, Table(("epochs", *names), rows), draw)
