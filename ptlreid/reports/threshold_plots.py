"""The thresholds of a run, as `ptlreid calibrate` saved them: a section of its page, and curves of the rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ptlreid.reports import render
from ptlreid.reports.elements import Plot, Section, Table, format_percent
from ptlreid.reports.operating_points import explain_missing, tabulate_points
from ptlreid.thresholds_schema import Calibration

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_ROWS = 20  # of a curve in the table below it


def describe_calibrations(calibrations: Sequence[Calibration]) -> list[Section]:
    """A section for each calibration: operating points of pairs and of searches, and their curves."""
    sections = []
    for number, one in enumerate(calibrations):
        suffix = f"-{number + 1}" if number else ""
        points, searches = one["operating_points"], one["open_set"]
        tables = [tabulate_points(points, "tar"), tabulate_points(searches, "dir")]
        sections.append(
            Section(
                f"thresholds{suffix}",
                f"Thresholds: {name_calibration(one)}" if len(calibrations) > 1 else "Thresholds",
                [_EXPLANATION, _describe_origin(one), *explain_missing([*points, *searches])],
                tables=[table for table in tables if table.rows],
                plots=[replace(plot, name=f"{plot.name}{suffix}") for plot in plot_rates([one])],
            )
        )
    return sections


def plot_rates(calibrations: Sequence[Calibration]) -> list[Plot]:
    """The ROC of pairs, and DIR by FAR of searches; a line for each calibration."""
    names = [name_calibration(one) for one in calibrations]
    found = []
    pairs = dict(zip(names, (one["curves"]["roc"] for one in calibrations), strict=True))
    if any(pairs.values()):
        found.append(_plot("roc", "Pairs: TAR by FAR", "FAR of pairs (%)", "TAR (%)", pairs))
    searches = dict(zip(names, (one["curves"]["open_set"] for one in calibrations), strict=True))
    if any(searches.values()):
        found.append(_plot("open-set", "Searches: DIR by FAR", "FAR of searches (%)", "DIR (%)", searches))
    return found


def name_calibration(one: Calibration) -> str:
    """Its dataset, metric and readout: `market, cosine, flip`."""
    readout = [name for name in ("flip", "normalize") if one["readout"].get(name)]
    return ", ".join([one["data"], one["metric"], *readout])


_EXPLANATION = (
    "A pair is accepted as the same identity if its distance is below the threshold. FAR: share of different-identity "
    "pairs accepted. TAR: share of same-identity pairs accepted. In a search, the nearest image is the answer if its "
    "distance is below the threshold. FAR: share of queries without their identity in the gallery that get an answer. "
    "DIR: share of queries with it that get the right one. Intervals: 95%, bootstrap over identities."
)


def _describe_origin(one: Calibration) -> str:
    queries, images = (", ".join(map(str, cameras)) for cameras in (one["cameras"]["query"], one["cameras"]["gallery"]))
    return (
        f"Measured on {one['data']}, metric {one['metric']}, protocol {one['protocol']}: {one['pairs']['same']:,} "
        f"same-identity and {one['pairs']['different']:,} different-identity pairs. The thresholds hold for cameras "
        f"{queries} (queries) and {images} (gallery) of {one['data']}: measure again for others."
    )


def _plot(name: str, title: str, x: str, y: str, curves: Mapping[str, Sequence[Sequence[float]]]) -> Plot:
    """A line per curve, of points (FAR, rate); FAR on a logarithmic axis, without points at 0."""
    lines = {label: [point for point in points if point[0] > 0] for label, points in curves.items()}

    def draw(axes: Axes) -> None:
        for index, points in enumerate(lines.values()):
            fars, rates = ([100 * point[at] for point in points] for at in (0, 1))
            axes.plot(fars, rates, **render.get_line_style(index))  # type: ignore[arg-type]
        axes.set(xscale="log", xlabel=x, ylabel=y, ylim=(0, 100))
        axes.xaxis.set_major_formatter(lambda far, _: f"{far:g}")  # by default a formula, which is not drawn as one
        axes.xaxis.set_minor_formatter(lambda *_: "")
        render.add_legend(axes, list(lines))

    rows = [
        [label, f"{100 * far:.3g}", format_percent(rate)]
        for label, points in lines.items()
        for far, rate in points[:: 1 + len(points) // _MOST_ROWS]
    ]
    ends = "; ".join(
        f"{label}: {format_percent(points[0][1])}% at a FAR of {100 * points[0][0]:.3g}%, "
        f"{format_percent(points[-1][1])}% at {100 * points[-1][0]:.3g}%"
        for label, points in lines.items()
        if points
    )
    return Plot(name, title, f"{title}. {ends}.", Table(("thresholds", x, y), rows), draw)
