"""The page of a transfer chain: scores after each stage, forward transfer and forgetting, and its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ptlreid.errors import DataError
from ptlreid.json_files import read_json
from ptlreid.reports.elements import Plot, Section, Table, format_points
from ptlreid.reports.heat_map import plot_heat_map
from ptlreid.reports.page import Page
from ptlreid.reports.run_summary import RunSummary
from ptlreid.reports.training_plots import plot_training
from ptlreid.schemas import Chain

_MATRIX = (
    "mAP and CMC-1 (%) before training (start) and after each stage, one row each, on every dataset with a test set. "
    "–: not evaluated."
)
_TRANSFER = (
    "Forward transfer: mAP on a dataset just before training on it, minus mAP at the start. Forgetting: the best "
    "earlier mAP, minus mAP at the end of the chain. Both in percentage points; –: not defined."
)
_REMEDY = "Run the same `ptlreid transfer-chain` again."


def read_chain(path: Path) -> Chain:
    """The content of a `chain.json`. Raises `DataError` if it is damaged or edited, or its parts are inconsistent."""
    chain = read_json(path, Chain, _REMEDY)
    sizes = {len(row) for row in chain["scores"]}
    if not 0 < len(chain["rows"]) == len(chain["scores"]) or sizes != {len(chain["data"])}:
        raise DataError(f"{path}: its rows, scores and data are inconsistent. {_REMEDY}")
    return chain


def make_chain_page(
    name: str, chain: Chain, runs: Sequence[RunSummary], *, links: Mapping[str, str], notes: Sequence[str]
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


def _plot_matrices(chain: Chain) -> list[Plot]:
    """Heat maps of mAP and of CMC-1, a row for each stage and a column for each dataset; NaN: not evaluated."""
    scores = [
        [(cell["mAP"], cell["cmc"]["1"]) if cell else (np.nan, np.nan) for cell in row] for row in chain["scores"]
    ]
    table = np.array(scores, dtype=np.float64).reshape(len(chain["rows"]), len(chain["data"]), 2)
    axis_names = ("after stage", "dataset")
    return [
        plot_heat_map(name, title, table[:, :, n], rows=chain["rows"], columns=chain["data"], axis_names=axis_names)
        for n, (name, title) in enumerate((("chain-map", "mAP (%)"), ("chain-cmc", "CMC-1 (%)")))
    ]


def _tabulate_transfer(chain: Chain) -> Table:
    forward, forgetting = chain.get("forward_transfer", {}), chain.get("forgetting", {})
    rows = [[data, _format_points(forward.get(data)), _format_points(forgetting.get(data))] for data in chain["data"]]
    return Table(("dataset", "forward transfer (mAP)", "forgetting (mAP)"), rows)


def _format_points(value: Any) -> str:
    """A difference of two shares in percentage points, with its sign."""
    return format_points(value) if isinstance(value, int | float) else "–"
