"""The sections on an adaptation: scores before and after, cameras, and clusters over epochs with what is doubtful."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ptlreid.reports import render
from ptlreid.reports.elements import Plot, Section, Table, format_percent, format_points
from ptlreid.reports.run_summary import RunSummary, read_scores
from ptlreid.retrieval.cluster_statistics import ClusterStatistics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_METHODS = {
    "cameras": "cameras: statistics of each camera; no weights are trained",
    "cluster": "cluster: statistics of each camera, then training on clusters in place of identities",
}
_UNMEASURED = (
    "There is no labelled test part: nothing on this page measures accuracy, and clusters that look good can be wrong. "
    "Label a few identities, prepare them as the test part, and repeat the command."
)
_UNPROVEN = (
    "The clusters that each epoch was trained on. They are found without identities: no figure here measures accuracy."
)
_SHRUNK = (
    "Each image is normalised by the statistics of its camera, which are averaged with those of all cameras together. "
    "Own share: the weight of the camera's own, larger with more images."
)


def describe_adaptation(run: RunSummary, *, clusters_url: str = "") -> list[Section]:
    """The sections on `run`, which adapted another. `clusters_url`: of the page of its clusters, if there is one."""
    rows = [["Method", _METHODS[run.settings["method_"]]], ["Source run", str(run.adapted_from)]]
    rows += [["Trained along", str(run.settings["with_"])]] if run.settings.get("with_") else []
    links = {}
    if clusters_url:
        rows.append(
            ["Page of clusters", "rows of crops of the largest, newest and least sure clusters, and of outliers"]
        )
        links["Page of clusters"] = clusters_url
    texts = [_UNMEASURED] if run.unmeasured else []
    sections = [Section("adaptation", "Adaptation", texts, tables=[Table(("", ""), rows, links)])]
    if _has_scores(run):
        sections.append(Section("gain", "Before and after", [_judge(run)], tables=[_tabulate_scores(run)]))
    if run.cameras:
        cells = [[one.name, f"{one.images:,}", format_percent(one.own_share)] for one in run.cameras]
        table = Table(("camera", "images", "own share (%)"), cells)
        sections.append(Section("cameras", "Cameras", [_SHRUNK], tables=[table]))
    return [*sections, Section("clusters", "Clusters", [_UNPROVEN], plots=plot_clusters(run.clusterings))]


def note_doubts(run: RunSummary) -> list[str]:
    """What a reader of the page on an adapted run must not miss: no gain, an early end, doubtful clusters."""
    notes = []
    if _has_scores(run) and not _gain(run) > 0:
        notes.append(f"No improvement. {_judge(run)}")
    done = (run.metrics or {}).get("epochs", 0)
    if run.metrics and done < run.settings["epochs"]:
        notes.append(
            f"Training ended after epoch {done} of {run.settings['epochs']}, as there were no two clusters to train "
            "on. A larger --radius or a smaller --min-samples makes more clusters."
        )
    lines = run.clusterings
    if lines:
        epoch, statistics = lines[-1]
        notes += [f"Clusters of epoch {epoch}: {warning}" for warning in statistics.warnings()]
    return notes


def plot_clusters(lines: Sequence[tuple[int, ClusterStatistics]]) -> list[Plot]:
    """Clusters and outliers, agreement between epochs, and cameras in clusters, over epochs; none without `lines`.

    `lines`: an epoch, from 1, with the figures of its clusters.
    """
    if not lines:
        return []
    several = [(epoch, one) for epoch, one in lines if one.cameras > 1]
    plots = [
        _plot(
            "clusters",
            "Clusters and outliers",
            "number",
            {"clusters": [one.clusters for _, one in lines], "outliers": [one.outliers for _, one in lines]},
            [epoch for epoch, _ in lines],
        ),
        _plot(
            "agreement",
            "Agreement with the previous epoch",
            "adjusted Rand index",
            {"agreement": [one.agreement for _, one in lines]},
            [epoch for epoch, _ in lines],
            digits=2,
            note="1: the same clusters. 0: no more alike than by chance. Stable clusters can be wrong.",
        ),
        _plot(
            "camera-purity",
            "Cameras in clusters",
            "share",
            {
                "camera purity": [one.camera_purity for _, one in several],
                "purity by chance": [one.chance_purity for _, one in several],
                "clusters of several cameras": [one.several_cameras for _, one in several],
            },
            [epoch for epoch, _ in several],
            digits=3,
            note="Camera purity: share of images that are from the main camera of their cluster. Far above chance, "
            "clusters follow cameras.",
        ),
    ]
    return [plot for plot in plots if plot]


def _plot(
    name: str,
    title: str,
    ylabel: str,
    curves: Mapping[str, Sequence[float | None]],
    epochs: Sequence[int],
    *,
    digits: int = 0,
    note: str = "",
) -> Plot | None:
    """A plot of figures over epochs; None if there are no figures."""
    values = np.array(list(curves.values()), dtype=np.float64)  # NaN for None
    if not np.isfinite(values).any():
        return None

    def draw(axes: Axes) -> None:
        for index, column in enumerate(values):
            axes.plot(epochs, column, marker="o", **render.get_line_style(index))  # type: ignore[arg-type]
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        axes.set(
            xlabel="epoch", ylabel=ylabel, xlim=(0, None), ylim=(min(0, 1.08 * low), 1.08 * high if high > 0 else 1)
        )
        render.use_whole_numbers(axes)
        render.add_legend(axes, list(curves))

    cells = [[f"{value:,.{digits}f}" if np.isfinite(value) else "–" for value in row] for row in values.T]
    last = ", ".join(f"{label} {cell}" for label, cell in zip(curves, cells[-1], strict=True))
    table = Table(("epoch", *curves), [[str(epoch), *row] for epoch, row in zip(epochs, cells, strict=True)])
    return Plot(name, title, f"{title} over epochs. Epoch {epochs[-1]}: {last}.", table, draw, note=note)


def _has_scores(run: RunSummary) -> bool:
    metrics = run.metrics or {}
    return "mAP" in metrics and "mAP" in metrics.get("before", {})


def _gain(run: RunSummary) -> float:
    metrics = run.metrics or {}
    return float(metrics["mAP"] - metrics["before"]["mAP"])


def _judge(run: RunSummary) -> str:
    """What the labelled test part says, in a sentence or two."""
    metrics, source = run.metrics or {}, run.adapted_from
    before, after = (format_percent(one["mAP"]) for one in (metrics["before"], metrics))
    text = f"mAP on the labelled test part of {run.settings['data']}: {before}% before, {after}% after adaptation."
    if not _gain(run) > 0:
        return f"{text} Use the run {source} as it is."
    command = shlex.join(["ptlreid", "compare", source, run.name, "--data", str(run.settings["data"])])
    return f"{text} For the interval of the difference: {command}"


def _tabulate_scores(run: RunSummary) -> Table:
    """The scores of the source run and of the adapted one, and their differences."""
    metrics = run.metrics or {}
    sides = [read_scores(metrics["before"]), read_scores(metrics)]
    names = [name for name in sides[0] if name in sides[1]]
    rows = [
        [label, *(format_percent(side[name]) for name in names)]
        for label, side in zip((f"before: {run.adapted_from}", f"after: {run.name}"), sides, strict=True)
    ]
    rows.append(["difference", *(format_points(sides[1][name] - sides[0][name]) for name in names)])
    return Table(("weights", *(f"{name} (%)" for name in names)), rows)
