"""Plots of an evaluation: CMC, distances of pairs with verification thresholds, and scores by camera."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from ptlreid.reports import render
from ptlreid.reports.elements import Plot, Table, format_number, format_percent
from ptlreid.reports.heat_map import plot_heat_map
from ptlreid.reports.run_summary import EvaluatedRun
from ptlreid.retrieval.cameras import camera_scores
from ptlreid.retrieval.thresholds import OperatingPoint, PairCounts

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

_RANKS = (1, 2, 3, 5, 10, 20, 30, 50)
_BARS = 60


def plot_cmc(curves: Mapping[str, np.ndarray]) -> Plot:
    """The CMC curves of runs, by name: (R,) fractions from rank 1 on."""
    longest = max(len(curve) for curve in curves.values())

    def draw(axes: Axes) -> None:
        for index, curve in enumerate(curves.values()):
            axes.plot(np.arange(1, len(curve) + 1), 100 * curve, **render.get_line_style(index))  # type: ignore[arg-type]
        axes.set(xlabel="rank", ylabel="CMC (%)", xlim=(1, max(2, longest)), ylim=(None, 100))
        axes.set_xticks([rank for rank in (1, 10, 20, 30, 40, 50) if rank <= max(2, longest)])
        render.add_legend(axes, list(curves))

    ranks = [rank for rank in _RANKS if rank <= longest]
    rows = [
        [name, *(format_percent(curve[min(rank, len(curve)) - 1]) for rank in ranks)] for name, curve in curves.items()
    ]
    values = "; ".join(
        f"{name}: "
        + ", ".join(f"{format_percent(curve[rank - 1])}% at rank {rank}" for rank in (1, 5, 10) if rank <= len(curve))
        for name, curve in curves.items()
    )
    alt = f"CMC: share of queries with a true match within the first ranks. {values}."
    return Plot("cmc", "CMC", alt, Table(("run", *(f"rank {rank}" for rank in ranks)), rows), draw)


def tabulate_thresholds(counts: PairCounts, rates: Sequence[float]) -> Table:
    """Threshold, FAR and TAR at the EER and at each false accept rate in `rates`."""
    rows = [
        [name, format_number(point.threshold), f"{100 * point.far:.3g}", f"{100 * point.tar:.1f}"]
        if point
        else [name, "too few pairs", "", ""]
        for name, point in _find_points(counts, rates).items()
    ]
    return Table(("operating point", "distance threshold", "FAR (%)", "TAR (%)"), rows)


def plot_distances(counts: PairCounts, rates: Sequence[float]) -> Plot:
    """Histograms of the distances of same-identity and of different-identity pairs, with the thresholds."""
    edges, same, different = _bin_shares(counts)

    def draw(axes: Axes) -> None:
        handles: dict[str, Artist] = {}
        for index, (name, shares) in enumerate((("same identity", same), ("different identities", different))):
            axes.stairs(100 * shares, edges, fill=True, color=render.COLOURS[index], alpha=0.3)
            handles[name] = axes.stairs(100 * shares, edges, **render.get_line_style(index))  # type: ignore[arg-type]
        for dashes, (name, point) in zip(cycle(render.DASHES), _find_points(counts, rates).items(), strict=False):
            if point:
                handles[name] = axes.axvline(point.threshold, color=render.INK, linewidth=0.9, linestyle=dashes)
        axes.set(xlabel="distance", ylabel="pairs (%)", ylim=(0, None))
        axes.legend(list(handles.values()), list(handles), loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)

    equal = counts.equal_error_point()
    rows = [
        [f"{format_number(low)} to {format_number(high)}", f"{100 * s:.2f}", f"{100 * d:.2f}"]
        for low, high, s, d in zip(edges[:-1], edges[1:], same, different, strict=True)
    ]
    return Plot(
        "distances",
        "Distances of pairs",
        f"Histograms of the distances of {counts.same.sum():,} same-identity pairs and {counts.different.sum():,} "
        f"different-identity pairs. Equal error rate: {100 * equal.far:.1f}% at distance "
        f"{format_number(equal.threshold)}.",
        Table(("distance", "same identity (%)", "different identities (%)"), rows),
        draw,
        size=(4.3, 3.1),
        note="Each histogram adds up to 100%. Vertical lines: the thresholds.",
    )


def plot_cameras(run: EvaluatedRun) -> list[Plot]:
    """Heat maps of mAP and CMC-1 by query camera and gallery camera."""
    settings = run.settings
    pairs = camera_scores(run.retrieval, run.pairs.blocks, ap=settings.ap)
    rows, columns = (list(map(str, cameras.tolist())) for cameras in (pairs.query_cameras, pairs.gallery_cameras))
    return [
        plot_heat_map(
            name,
            title,
            values,
            rows=rows,
            columns=columns,
            axis_names=("query camera", "gallery camera"),
            note="Each cell: queries of one camera, gallery of one camera. –: no query has a true match there.",
        )
        for name, title, values in (
            ("cameras-map", "mAP by camera (%)", pairs.mean_ap),
            ("cameras-cmc", "CMC-1 by camera (%)", pairs.cmc1),
        )
    ]


def _find_points(counts: PairCounts, rates: Sequence[float]) -> dict[str, OperatingPoint | None]:
    """The operating points by name; None where there are too few pairs."""
    return {"EER": counts.equal_error_point()} | {f"FAR {_format_rate(rate)}": counts.at_far(rate) for rate in rates}


def _format_rate(rate: float) -> str:
    """The rate as in verification papers: 0.001 gives `1e-3`."""
    mantissa, exponent = f"{rate:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _bin_shares(counts: PairCounts) -> tuple[np.ndarray, ...]:
    """The edges of about 60 bins over all but the outermost 1e-4 of the pairs, and the shares of both kinds per bin."""
    shares = [np.cumsum(kind) / kind.sum() for kind in (counts.same, counts.different)]
    first = min(int(np.argmax(share > 1e-4)) for share in shares)
    last = max(int(np.argmax(share >= 1 - 1e-4)) for share in shares) + 1
    starts = np.unique(counts.edges.searchsorted(np.linspace(counts.edges[first], counts.edges[last], _BARS + 1)))
    same, different = (
        np.diff(np.concatenate([[0], np.cumsum(kind)])[starts]) / kind.sum() for kind in (counts.same, counts.different)
    )
    return counts.edges[starts], same, different
