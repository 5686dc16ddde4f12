"""A picture of the distances between images of the same person and of different people, with thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from ptlreid.reports import render
from ptlreid.reports.pictures import Picture, Table, number
from ptlreid.reports.thresholds import PairCounts, Point

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

_BARS = 60


def thresholds(counts: PairCounts, rates: Sequence[float]) -> Table:
    """The equal-error threshold, and those at which each of `rates` of the pairs of different people are accepted."""
    points = _points(counts, rates)
    rows = [
        [name, number(point.threshold), f"{100 * point.different:.3g}", f"{100 * point.same:.1f}"]
        if point
        else [name, "too few pairs", "", ""]
        for name, point in points.items()
    ]
    return Table(("operating point", "distance", "different people accepted, %", "same person accepted, %"), rows)


def distances(counts: PairCounts, rates: Sequence[float]) -> Picture:
    """Histograms of the distances of both kinds of pairs, each as shares of its own kind."""
    points = _points(counts, rates)
    edges, same, different = _bars(counts)

    def draw(axes: Axes) -> None:
        named: dict[str, Artist] = {}
        for index, (name, shares) in enumerate((("same person", same), ("different people", different))):
            axes.stairs(100 * shares, edges, fill=True, color=render.COLOURS[index], alpha=0.3)
            named[name] = axes.stairs(100 * shares, edges, **render.line_style(index))  # type: ignore[arg-type]
        for dashes, (name, point) in zip(cycle(render.DASHES), points.items(), strict=False):
            if point:
                named[name] = axes.axvline(point.threshold, color=render.INK, linewidth=0.9, linestyle=dashes)
        axes.set(xlabel="distance", ylabel="pairs of their kind, %", ylim=(0, None))
        axes.legend(list(named.values()), list(named), loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)

    equal = counts.equal_error()
    alt = (
        f"Distances of {counts.same.sum():,} pairs of images of the same person and {counts.different.sum():,} of "
        f"different people. Equal error: {100 * equal.different:.1f}% at distance {number(equal.threshold)}."
    )
    rows = [
        [f"{number(low)} to {number(high)}", f"{100 * s:.2f}", f"{100 * d:.2f}"]
        for low, high, s, d in zip(edges[:-1], edges[1:], same, different, strict=True)
    ]
    table = Table(("distance", "same person, %", "different people, %"), rows)
    return Picture("distances", "Distances", alt, table, draw, size=(4.3, 3.1))


def _points(counts: PairCounts, rates: Sequence[float]) -> dict[str, Point | None]:
    """The operating points by name; None where there are too few pairs for one."""
    return {"equal error": counts.equal_error()} | {f"{100 * rate:g}% false accepts": counts.at(rate) for rate in rates}


def _bars(counts: PairCounts) -> tuple[np.ndarray, ...]:
    """Edges of about 60 wide bins that hold all but the outermost ten-thousandths, and the shares of both kinds."""
    shares = [np.cumsum(kind) / kind.sum() for kind in (counts.same, counts.different)]
    first = min(int(np.argmax(share > 1e-4)) for share in shares)
    last = max(int(np.argmax(share >= 1 - 1e-4)) for share in shares) + 1
    starts = np.unique(np.linspace(first, last, _BARS + 1).astype(np.int64))
    same, different = (
        np.diff(np.concatenate([[0], np.cumsum(kind)])[starts]) / kind.sum() for kind in (counts.same, counts.different)
    )
    return counts.edges[starts], same, different
