"""The cumulative match characteristic: how many queries have found their person within the first r places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ptlreid.reports import render
from ptlreid.reports.pictures import Picture, Table, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_RANKS = (1, 2, 3, 5, 10, 20, 30, 50)


def cmc(curves: Mapping[str, np.ndarray]) -> Picture:
    """The CMC of each run by name, (R,) shares from rank 1 on."""
    longest = max(len(curve) for curve in curves.values())
    ranks = [rank for rank in _RANKS if rank <= longest]
    rows = [[name, *(percent(curve[min(rank, len(curve)) - 1]) for rank in ranks)] for name, curve in curves.items()]

    def draw(axes: Axes) -> None:
        for index, curve in enumerate(curves.values()):
            axes.plot(np.arange(1, len(curve) + 1), 100 * curve, **render.line_style(index))  # type: ignore[arg-type]
        axes.set(xlabel="rank", ylabel="queries with a match, %", xlim=(1, max(2, longest)), ylim=(None, 100))
        axes.set_xticks([rank for rank in (1, 10, 20, 30, 40, 50) if rank <= max(2, longest)])
        render.legend(axes, list(curves))

    told = "; ".join(
        f"{name}: "
        + ", ".join(f"{percent(curve[rank - 1])}% within {rank}" for rank in (1, 5, 10) if rank <= len(curve))
        for name, curve in curves.items()
    )
    alt = f"Share of queries with a true match within the first ranks. {told}."
    return Picture("cmc", "CMC", alt, Table(("run", *(f"rank {rank}" for rank in ranks)), rows), draw)
