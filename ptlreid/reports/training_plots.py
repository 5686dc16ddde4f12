"""Plots of training over epochs: loss, learning rate, scores, and the BConv-Cells' latent state and gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ptlreid.reports import render
from ptlreid.reports.elements import Plot, Table, format_number, format_percent
from ptlreid.reports.run_summary import RunSummary, Steps

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BINS = 120  # about one every three pixels
_BAND = "Line: mean of neighbouring steps. Band: their minimum and maximum."

# The recorded values of a cell: key, title, axis label.
_CELL_PLOTS = (
    ("state_norm", "Latent state", "norm"),
    ("input", "Input gate", "mean activation"),
    ("forget", "Forget gate", "mean activation"),
    ("output", "Output gate", "mean activation"),
)


def plot_training(runs: Sequence[RunSummary]) -> list[Plot]:
    """Loss, learning rate and scores over epochs; a plot is left out if no run has a history for it."""
    steps = {run.name: run.steps for run in runs if len(run.steps)}
    evaluations = {run.name: run.evaluations for run in runs if run.evaluations}
    evaluations |= {f"{run.name}, averaged": found for run in runs if (found := run.averaged_evaluations)}
    plots = [plot_loss(steps), plot_learning_rate(steps)] if steps else []
    return [*plots, plot_scores(evaluations)] if evaluations else plots


def plot_loss(runs: Mapping[str, Steps]) -> Plot:
    """The training loss: of one run, with its terms if there are several, or of several runs."""
    curves = {name: (steps.epochs, steps.loss) for name, steps in runs.items()}
    if len(runs) == 1:
        (steps,) = runs.values()
        terms = steps.terms if len(steps.terms) > 1 else {}
        curves = {label: (steps.epochs, values) for label, values in {"loss": steps.loss, **terms}.items()}
    ends = {label: values[-20:] for label, (_, values) in curves.items()}
    means = [f"{label} {format_number(np.nanmean(end))}" for label, end in ends.items() if np.isfinite(end).any()]
    return Plot(
        "loss",
        "Loss",
        f"Training loss over epochs. Mean of the last 20 steps: {', '.join(means) or 'none'}.",
        _tabulate_epochs({name: (steps.epochs, steps.loss) for name, steps in runs.items()}),
        lambda axes: _draw_curves(axes, curves, "loss"),
        note=_BAND if any(len(steps) > _BINS for steps in runs.values()) else "",
    )


def plot_learning_rate(runs: Mapping[str, Steps]) -> Plot:
    """The learning rate over epochs, on a logarithmic axis where it falls by more than a factor of 20."""
    curves = {name: (steps.epochs, steps.lr) for name, steps in runs.items()}
    ends = [f"{name} from {format_number(y[0])} to {format_number(y[-1])}" for name, (_, y) in curves.items() if len(y)]

    def draw(axes: Axes) -> None:
        _draw_curves(axes, curves, "learning rate")
        values = np.concatenate([y for _, y in curves.values()])
        lowest, highest = np.nanmin(values), np.nanmax(values)
        if lowest > 0 and highest / lowest > 20:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(lambda value, _: format_number(value))  # matplotlib's own needs TeX
            axes.yaxis.set_minor_formatter(lambda *_: "")
        else:
            axes.set_ylim(bottom=0)

    alt = f"Learning rate over epochs: {'; '.join(ends)}."
    return Plot("learning-rate", "Learning rate", alt, _tabulate_epochs(curves), draw)


def plot_scores(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Plot:
    """mAP and CMC-1 of one run after each evaluated epoch, or the mAP of several runs.

    `runs`: the `evaluations` of each run, by its name. Missing scores are – in the table.
    """
    names = ("mAP", "CMC-1") if len(runs) == 1 else ("mAP",)
    curves = {
        score if len(runs) == 1 else run: [(line["epoch"], _read_score(line, score)) for line in lines]
        for run, lines in runs.items()
        for score in names
    }

    def draw(axes: Axes) -> None:
        for index, points in enumerate(curves.values()):
            epochs, shares = zip(*points, strict=True)
            axes.plot(epochs, 100 * np.array(shares), marker="o", **render.get_line_style(index))  # type: ignore[arg-type]
        top = max((share for points in curves.values() for _, share in points), default=0)
        axes.set_ylim(0, 108 * top or None)  # no point lies on the edge
        axes.set(xlabel="epoch", ylabel="score (%)" if len(runs) == 1 else "mAP (%)", xlim=(0, None))
        render.use_whole_numbers(axes)
        render.add_legend(axes, list(curves))

    rows = [
        [run, str(line["epoch"]), *(_format_score(_read_score(line, score)) for score in ("mAP", "CMC-1", "mINP"))]
        for run, lines in runs.items()
        for line in lines
    ]
    alt = "Scores over epochs. " + "; ".join(f"{row[0]}, epoch {row[1]}: mAP {row[2]}%" for row in rows[-8:])
    table = Table(("run", "epoch", "mAP (%)", "CMC-1 (%)", "mINP (%)"), rows)
    return Plot("scores", "Scores over epochs", f"{alt}.", table, draw)


def plot_cells(history: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """Plots of the latent state's norm and of the three gates at the end of each epoch; none without cells.

    A gate is closed at 0 and open at 1.
    """
    lines = [line for line in history if line.get("kind") == "epoch" and line.get("cells")]
    if not lines:
        return []
    keys = {key for cell in lines[-1]["cells"].values() for key in cell}
    return [_plot_cell(key, title, ylabel, lines) for key, title, ylabel in _CELL_PLOTS if key in keys]


def _plot_cell(key: str, title: str, ylabel: str, lines: Sequence[Mapping[str, Any]]) -> Plot:
    names = list(dict.fromkeys(name for line in lines for name in line["cells"]))
    epochs = [line["epoch"] for line in lines]
    values = {name: [line["cells"].get(name, {}).get(key, np.nan) for line in lines] for name in names}

    def draw(axes: Axes) -> None:
        for index, column in enumerate(values.values()):
            axes.plot(epochs, column, marker="o", **render.get_line_style(index))  # type: ignore[arg-type]
        axes.set(xlabel="epoch", ylabel=ylabel, xlim=(0, None))
        if key != "state_norm":
            axes.set_ylim(0, 1)
        render.use_whole_numbers(axes)
        render.add_legend(axes, names)

    last = ", ".join(f"{name} {format_number(column[-1])}" for name, column in values.items())
    rows = [[str(epoch), *(format_number(values[name][row]) for name in names)] for row, epoch in enumerate(epochs)]
    alt = f"{title} of each cell over epochs, {ylabel}. Epoch {epochs[-1]}: {last}."
    return Plot(f"cell-{key.replace('_', '-')}", title, alt, Table(("epoch", *names), rows), draw)


@dataclass(frozen=True)
class BinnedCurve:
    """A curve in B bins: the mean of x, and the minimum, mean and maximum of y in each, (B,)."""

    x: np.ndarray
    low: np.ndarray
    mean: np.ndarray
    high: np.ndarray


def bin_curve(x: np.ndarray, y: np.ndarray, bins: int = _BINS) -> BinnedCurve:
    """The curve in at most `bins` bins with equal numbers of neighbouring points, so that no spike is lost.

    Points that are not finite are left out; a curve of at most `bins` points is returned unchanged.
    """
    finite = np.isfinite(y)
    x, y = x[finite], y[finite]
    if len(y) <= bins:
        return BinnedCurve(x, y, y, y)
    starts = np.linspace(0, len(y), bins, endpoint=False).astype(np.int64)
    counts = np.diff(starts, append=len(y))
    mean_x, mean_y = (np.add.reduceat(column, starts) / counts for column in (x, y))
    return BinnedCurve(mean_x, np.minimum.reduceat(y, starts), mean_y, np.maximum.reduceat(y, starts))


def _draw_curves(axes: Axes, curves: Mapping[str, tuple[np.ndarray, np.ndarray]], ylabel: str) -> None:
    for index, (epochs, values) in enumerate(curves.values()):
        binned, style = bin_curve(epochs, values), render.get_line_style(index)
        axes.plot(binned.x, binned.mean, **style)  # type: ignore[arg-type]
        if len(binned.x) < np.isfinite(values).sum():
            axes.fill_between(binned.x, binned.low, binned.high, color=style["color"], alpha=0.2, linewidth=0)
    axes.set(xlabel="epoch", ylabel=ylabel)
    render.add_legend(axes, list(curves))


def _tabulate_epochs(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Table:
    """Mean, minimum and maximum in each epoch of each run."""
    rows = []
    for name, (epochs, values) in curves.items():
        of_step = np.ceil(epochs - 1e-9).astype(np.int64)
        for epoch in np.unique(of_step):
            finite = values[(of_step == epoch) & np.isfinite(values)]
            if len(finite):
                summary = (finite.mean(), finite.min(), finite.max())
                rows.append([name, str(epoch), *map(format_number, summary)])
    return Table(("run", "epoch", "mean", "min", "max"), rows)


def _read_score(line: Mapping[str, Any], name: str) -> float:
    """The score; NaN if the line, perhaps written by an older version, lacks it."""
    value = (line.get("cmc") or {}).get("1") if name == "CMC-1" else line.get(name)
    return value if isinstance(value, int | float) else np.nan


def _format_score(share: float) -> str:
    return format_percent(share) if np.isfinite(share) else "–"
