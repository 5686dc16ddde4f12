"""A transfer chain: each data set's scores after each stage, and what was gained before and lost after its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ptlreid.reports.heat import heat_map
from ptlreid.reports.pictures import Picture, Table, percent


def matrices(chain: Mapping[str, Any]) -> list[Picture]:
    """Heat maps of mAP and of CMC-1, a row a stage and a column a data set; `chain` is the content of `chain.json`."""
    rows, columns, axes_of = chain["rows"], chain["data"], ("after stage", "data set")
    return [
        heat_map(name, title, _matrix(chain, key), rows=rows, columns=columns, axes_of=axes_of)
        for name, title, key in (("chain-map", "mAP", "mAP"), ("chain-cmc", "CMC-1", "1"))
    ]


def transfer(chain: Mapping[str, Any]) -> Table:
    """Forward transfer and forgetting of each data set, in points of mAP."""
    forward, forgetting = chain.get("forward_transfer", {}), chain.get("forgetting", {})
    rows = [[data, _points(forward.get(data)), _points(forgetting.get(data))] for data in chain["data"]]
    return Table(("data set", "forward transfer, mAP", "forgetting, mAP"), rows)


def stages(chain: Mapping[str, Any], links: dict[str, str]) -> Table:
    """The runs of the chain, in order; `links`: where the report of a run lies, by the run's name."""
    rows = [[stage["run"], stage["data"], stage.get("method", "")] for stage in chain["stages"]]
    return Table(("run", "data", "method"), rows, links)


def _matrix(chain: Mapping[str, Any], key: str) -> np.ndarray:
    def value(scores: Mapping[str, Any] | None) -> float:
        if scores is None:
            return np.nan
        return float(scores["mAP"] if key == "mAP" else scores["cmc"][key])

    return np.array([[value(scores) for scores in row] for row in chain["scores"]]).reshape(len(chain["rows"]), -1)


def _points(value: Any) -> str:
    """A difference of shares as points of percent, with its sign."""
    if not isinstance(value, int | float):
        return "–"
    return f"{'+' if value > 0 else ''}{percent(value)}"
