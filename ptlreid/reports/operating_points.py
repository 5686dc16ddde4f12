"""Operating points as cells of a table, on a page or in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ptlreid.reports.elements import Table

Kind = Literal["tar", "dir"]  # of pairs, or of searches: the rate next to the FAR


def tabulate_points(points: Sequence[Any], kind: Kind) -> Table:
    """A row per operating point: threshold, FAR, and TAR or DIR with their intervals; – if not measurable."""
    columns = ("", "threshold", "FAR (%)", "95% CI", f"{kind.upper()} (%)", "95% CI")
    return Table(columns, [[point["name"], *_describe(point, kind)] for point in points])


def tabulate_realised(points: Sequence[Mapping[str, Any]], kind: Kind) -> Table:
    """A row per operating point that was calibrated elsewhere: the rates there, and those here with their intervals."""
    name = kind.upper()
    rates = ("FAR there (%)", "FAR here (%)", "95% CI", f"{name} there (%)", f"{name} here (%)", "95% CI")
    rows = []
    for point in points:
        threshold, *here = _describe(point, kind)
        there = [_percent(point["calibrated"]["far"], ".3g"), _percent(point["calibrated"][kind], ".1f")]
        rows.append([point["name"], threshold, there[0], *here[:2], there[1], *here[2:]])
    return Table(("", "threshold", *rates), rows)


def explain_missing(points: Sequence[Any]) -> list[str]:
    """A sentence for each point that is not measurable."""
    return [f"{point['name']}: {point['note']}." for point in points if "note" in point]


def _describe(point: Mapping[str, Any], kind: Kind) -> list[str]:
    threshold = "–" if point["threshold"] is None else f"{point['threshold']:.5g}"
    ends = [_interval(point["far_interval"], ".3g"), _interval(point[f"{kind}_interval"], ".1f")]
    return [threshold, _percent(point["far"], ".3g"), ends[0], _percent(point[kind], ".1f"), ends[1]]


def _percent(share: float | None, form: str) -> str:
    return "–" if share is None else f"{100 * share:{form}}"


def _interval(ends: Sequence[float] | None, form: str) -> str:
    return " to ".join(_percent(end, form) for end in ends) if ends else "–"
