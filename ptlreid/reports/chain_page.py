"""The page of a transfer chain: scores after each stage, forward transfer and forgetting, and its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ptlreid import files
from ptlreid.errors import DataError
from ptlreid.reports.elements import Plot, Section, Table, format_percent
from ptlreid.reports.heat_map import plot_heat_map
from ptlreid.reports.page import Page
from ptlreid.reports.run_summary import RunSummary
from ptlreid.reports.training_plots import plot_training

_MATRIX = (
    "mAP and CMC-1 (%) before training (start) and after each stage, one row each, on every dataset with a test set. "
    "–: not evaluated."
)
_TRANSFER = (
    "Forward transfer: mAP on a dataset just before training on it, minus mAP at the start. Forgetting: the best "
    "earlier mAP, minus mAP at the end of the chain. Both in percentage points; –: not defined."
)
_KEYS = {"chain", "stages", "data", "rows", "scores"}
_REMEDY = "Run the same `ptlreid transfer-chain` again."


def read_chain(path: Path) -> dict[str, Any]:
    """The content of a `chain.json`. Raises `DataError` if a key is missing or parts are inconsistent."""
    content = files.read_json(path)
    missing = sorted(_KEYS - set(content if isinstance(content, dict) else {}))
    if missing:
        raise DataError(f"{path}: {', '.join(missing)} missing. {_REMEDY}")
    if not _is_consistent(content):
        raise DataError(f"{path}: its rows, scores, data and stages are inconsistent. {_REMEDY}")
    return dict(content)


def make_chain_page(
    name: str, chain: Mapping[str, Any], runs: Sequence[RunSummary], *, links: Mapping[str, str], notes: Sequence[str]
) -> Page:
    """The page of `chain`, the content of its `chain.json`.

    `runs`: the stages' runs that could be read; `links`: the URLs of the runs' own reports, by run name.
    """
    stages = Table(
        ("run", "dataset", "method"),
        [[stage["run"], stage["data"], stage.get("method", "")] for stage in chain["stages"]],
        links,
    )
    sections = [
        Section("matrix", "Scores after each stage", [_MATRIX], plots=_plot_matrices(chain)),
        Section("transfer", "Forward transfer and forgetting", [_TRANSFER], tables=[_tabulate_transfer(chain)]),
        Section("stages", "Stages", tables=[stages], plots=plot_training(runs)),
    ]
    return Page(name, f"Transfer chain: {' → '.join(chain['chain'])}", sections, notes=notes)


def _plot_matrices(chain: Mapping[str, Any]) -> list[Plot]:
    """Heat maps of mAP and of CMC-1, a row for each stage and a column for each dataset."""
    return [
        plot_heat_map(
            name,
            title,
            np.array([[_read_score(cell, key) for cell in row] for row in chain["scores"]]).reshape(
                len(chain["rows"]), -1
            ),
            rows=chain["rows"],
            columns=chain["data"],
            axis_names=("after stage", "dataset"),
        )
        for name, title, key in (("chain-map", "mAP (%)", "mAP"), ("chain-cmc", "CMC-1 (%)", "1"))
    ]


def _tabulate_transfer(chain: Mapping[str, Any]) -> Table:
    forward, forgetting = chain.get("forward_transfer", {}), chain.get("forgetting", {})
    rows = [[data, _format_points(forward.get(data)), _format_points(forgetting.get(data))] for data in chain["data"]]
    return Table(("dataset", "forward transfer (mAP)", "forgetting (mAP)"), rows)


def _is_consistent(chain: Mapping[str, Any]) -> bool:
    """Whether every row of scores has a name, every score a dataset, and every stage a run and a dataset."""
    if not all(isinstance(chain[key], list) for key in _KEYS):
        return False
    names = [*chain["chain"], *chain["data"], *chain["rows"]]
    for stage in chain["stages"]:
        names += [stage.get(key) if isinstance(stage, dict) else None for key in ("run", "data")]
    if not all(isinstance(name, str) for name in names):
        return False
    rows = chain["scores"]
    if not 0 < len(chain["rows"]) == len(rows):
        return False
    return all(
        isinstance(row, list)
        and len(row) == len(chain["data"])
        and all(cell is None or _has_scores(cell) for cell in row)
        for row in rows
    )


def _has_scores(cell: Any) -> bool:
    cmc = cell.get("cmc") if isinstance(cell, dict) else None
    return isinstance(cmc, dict) and all(isinstance(one, int | float) for one in (cell.get("mAP"), cmc.get("1")))


def _read_score(cell: Mapping[str, Any] | None, key: str) -> float:
    """mAP or the CMC at rank `key`; NaN where the dataset was not evaluated."""
    if cell is None:
        return np.nan
    return float(cell["mAP"] if key == "mAP" else cell["cmc"][key])


def _format_points(value: Any) -> str:
    """A difference of two shares in percentage points, with its sign."""
    if not isinstance(value, int | float):
        return "–"
    return f"{'+' if value > 0 else ''}{format_percent(value)}"
