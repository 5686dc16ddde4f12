"""The curves of training, from the lines of a history: loss, learning rate, and scores over epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ptlreid.reports import render
from ptlreid.reports.pictures import Picture, Table, number, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BINS = 120  # about one for each three pixels of a picture


@dataclass(frozen=True)
class Steps:
    """S training steps. `epochs`: (S,) epochs done after each, such as 1.5; `values`: (S,) columns by name.

    Columns are `loss`, `lr`, `images_per_second`, `wait` and `term: <name>`; NaN where a line has no such value.
    """

    epochs: np.ndarray
    values: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, history: Sequence[Mapping[str, Any]]) -> Steps:
        """The steps among the lines of a history, which may be of an older version."""
        lines = [line for line in history if line.get("kind") == "step"]
        of_epoch = 1 + max((line["step"] for line in lines), default=0)
        columns = ["loss", "lr", "images_per_second", "wait"]
        values = {name: _column([line.get(name) for line in lines]) for name in columns}
        for term in dict.fromkeys(name for line in lines for name in line.get("terms", {})):
            values[f"term: {term}"] = _column([line.get("terms", {}).get(term) for line in lines])
        return cls(np.array([line["epoch"] + (line["step"] + 1) / of_epoch for line in lines]), values)

    def __len__(self) -> int:
        return len(self.epochs)

    @property
    def terms(self) -> list[str]:
        """The columns to draw: the loss, and what it is the sum of where that is more than one term."""
        terms = [name for name in self.values if name.startswith("term: ")]
        return ["loss", *terms] if len(terms) > 1 else ["loss"]


@dataclass(frozen=True)
class Thinned:
    """B bins of a curve: where each lies, and the lowest, mean and highest value in it, (B,) each."""

    x: np.ndarray
    low: np.ndarray
    mean: np.ndarray
    high: np.ndarray


def thin(x: np.ndarray, y: np.ndarray, bins: int = _BINS) -> Thinned:
    """At most `bins` equal parts of a curve in order of `x`, none of whose extremes is lost; NaN is left out."""
    kept = np.isfinite(y)
    x, y = x[kept], y[kept]
    if len(y) <= bins:
        return Thinned(x, y, y, y)
    starts = np.linspace(0, len(y), bins, endpoint=False).astype(np.int64)
    counts = np.diff(starts, append=len(y))
    means = (np.add.reduceat(column, starts) / counts for column in (x, y))
    return Thinned(next(means), np.minimum.reduceat(y, starts), next(means), np.maximum.reduceat(y, starts))


def loss(runs: Mapping[str, Steps]) -> Picture:
    """The loss over epochs: of one run with its terms, or of several runs. The band holds every single step."""
    lines = {
        (name if len(runs) > 1 else column.removeprefix("term: ")): (steps.epochs, steps.values[column])
        for name, steps in runs.items()
        for column in (steps.terms if len(runs) == 1 else ["loss"])
    }
    ends = [f"{label} {number(np.nanmean(y[-20:]))}" for label, (_, y) in lines.items() if np.isfinite(y[-20:]).any()]
    alt = f"Training loss over epochs. Mean of the last twenty steps: {', '.join(ends) or 'none'}."
    note = "Line: mean of neighbouring steps. Band: lowest and highest of them."
    return Picture("loss", "Loss", alt, _by_epoch(runs, "loss"), lambda axes: _draw(axes, lines, "loss"), note=note)


def rate(runs: Mapping[str, Steps]) -> Picture:
    """The learning rate over epochs."""
    lines = {name: (steps.epochs, steps.values["lr"]) for name, steps in runs.items()}
    spans = [f"{name} from {number(y[0])} to {number(y[-1])}" for name, (_, y) in lines.items() if len(y)]

    def draw(axes: Axes) -> None:
        _draw(axes, lines, "learning rate")
        highest, lowest = (
            getattr(np, f"nan{extreme}")(np.concatenate([y for _, y in lines.values()])) for extreme in ("max", "min")
        )
        if lowest > 0 and highest / lowest > 20:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(lambda value, _: number(value))  # matplotlib's own is TeX: not drawn
            axes.yaxis.set_minor_formatter(lambda *_: "")
        else:
            axes.set_ylim(bottom=0)

    alt = f"Learning rate over epochs: {'; '.join(spans)}."
    return Picture("rate", "Learning rate", alt, _by_epoch(runs, "lr"), draw)


def scores(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Picture:
    """mAP and CMC-1 of one run after each evaluated epoch, or the mAP of several runs.

    The lines of each run hold `epoch`, `mAP`, `mINP` and `cmc`, as an epoch of the history; – for what one lacks.
    """
    rows = [
        [name, str(line["epoch"]), *(_told(_share(line, key)) for key in ("mAP", "CMC-1", "mINP"))]
        for name, lines in runs.items()
        for line in lines
    ]
    if len(runs) == 1:
        only = next(iter(runs.values()))
        drawn = {key: [_share(line, key) for line in only] for key in ("mAP", "CMC-1")}
        curves = {label: ([line["epoch"] for line in only], shares) for label, shares in drawn.items()}
    else:
        curves = {
            name: ([line["epoch"] for line in lines], [_share(line, "mAP") for line in lines])
            for name, lines in runs.items()
        }

    def draw(axes: Axes) -> None:
        for index, (epochs, shares) in enumerate(curves.values()):
            axes.plot(epochs, 100 * np.array(shares), marker="o", **render.line_style(index))  # type: ignore[arg-type]
        top = max((share for _, shares in curves.values() for share in shares), default=0)
        axes.set_ylim(0, 108 * top or None)  # no point lies on the edge
        axes.set(xlabel="epochs", ylabel="%" if len(runs) == 1 else "mAP, %", xlim=(0, None))
        render.whole_numbers(axes)
        render.legend(axes, list(curves))

    alt = "Scores over epochs. " + "; ".join(f"{row[0]} after {row[1]} epochs: mAP {row[2]}%" for row in rows[-8:])
    table = Table(("run", "epochs", "mAP", "CMC-1", "mINP"), rows)
    return Picture("scores", "Scores over epochs", f"{alt}.", table, draw)


def evaluations(history: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """The evaluated epochs of a history, and the run's final `metrics` where the history lacks them."""
    found = [line for line in history if line.get("kind") == "epoch" and "mAP" in line]
    if metrics and {"mAP", "epochs"} <= set(metrics) and metrics["epochs"] not in {line["epoch"] for line in found}:
        shown = {key: metrics[key] for key in ("mAP", "mINP", "cmc") if key in metrics}
        found.append({"epoch": metrics["epochs"], **shown})
    return found


def _column(values: Sequence[Any]) -> np.ndarray:
    return np.array([value if isinstance(value, int | float) else np.nan for value in values], dtype=np.float64)


def _share(line: Mapping[str, Any], key: str) -> float:
    """The score called so; NaN where the line, which may be of an older version, lacks it."""
    value = (line.get("cmc") or {}).get("1") if key == "CMC-1" else line.get(key)
    return value if isinstance(value, int | float) else np.nan


def _told(share: float) -> str:
    return percent(share) if np.isfinite(share) else "–"


def _draw(axes: Axes, lines: Mapping[str, tuple[np.ndarray, np.ndarray]], ylabel: str) -> None:
    for index, (epochs, values) in enumerate(lines.values()):
        thinned, style = thin(epochs, values), render.line_style(index)
        axes.plot(thinned.x, thinned.mean, **style)  # type: ignore[arg-type]
        if len(thinned.x) < np.isfinite(values).sum():
            axes.fill_between(thinned.x, thinned.low, thinned.high, color=style["color"], alpha=0.2, linewidth=0)
    axes.set(xlabel="epochs", ylabel=ylabel)
    render.legend(axes, list(lines))


def _by_epoch(runs: Mapping[str, Steps], column: str) -> Table:
    """Mean, lowest and highest value in each epoch of each run."""
    rows = []
    for name, steps in runs.items():
        epochs = np.ceil(steps.epochs - 1e-9).astype(np.int64)
        for epoch in np.unique(epochs):
            values = steps.values[column][epochs == epoch]
            values = values[np.isfinite(values)]
            if len(values):
                rows.append([name, str(epoch), *(number(v) for v in (values.mean(), values.min(), values.max()))])
    return Table(("run", "epoch", "mean", "lowest", "highest"), rows)
