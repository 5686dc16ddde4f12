"""A transfer chain: each dataset's scores after each stage, and what was gained before and lost after its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ptlreid import files
from ptlreid.errors import DataError
from ptlreid.reports.heat import heat_map
from ptlreid.reports.pictures import Picture, Table, percent


def read(path: Path) -> dict[str, Any]:
    """The content of a `chain.json`; `DataError` where a part is missing or the parts do not agree."""
    content = files.read_json(path)
    lacking = sorted(_PARTS - set(content if isinstance(content, dict) else {}))
    if lacking:
        raise DataError(f"{path}: without {', '.join(lacking)}. {_AGAIN}")
    if not _agree(content):
        raise DataError(f"{path}: its rows, scores, data and stages do not agree. {_AGAIN}")
    return dict(content)


def matrices(chain: Mapping[str, Any]) -> list[Picture]:
    """Heat maps of mAP and of CMC-1, a row a stage and a column a dataset; `chain` is the content of `chain.json`."""
    rows, columns, axes_of = chain["rows"], chain["data"], ("after stage", "dataset")
    return [
        heat_map(name, title, _matrix(chain, key), rows=rows, columns=columns, axes_of=axes_of)
        for name, title, key in (("chain-map", "mAP", "mAP"), ("chain-cmc", "CMC-1", "1"))
    ]


def transfer(chain: Mapping[str, Any]) -> Table:
    """Forward transfer and forgetting of each dataset, in points of mAP."""
    forward, forgetting = chain.get("forward_transfer", {}), chain.get("forgetting", {})
    rows = [[data, _points(forward.get(data)), _points(forgetting.get(data))] for data in chain["data"]]
    return Table(("dataset", "forward transfer, mAP", "forgetting, mAP"), rows)


def stages(chain: Mapping[str, Any], links: dict[str, str]) -> Table:
    """The runs of the chain, in order; `links`: where the report of a run lies, by the run's name."""
    rows = [[stage["run"], stage["data"], stage.get("method", "")] for stage in chain["stages"]]
    return Table(("run", "data", "method"), rows, links)


def _agree(chain: Mapping[str, Any]) -> bool:
    """Whether there is a named row for each row of scores, a named column for each of its cells, and a run a stage."""
    if not all(isinstance(chain[part], list) for part in _PARTS):
        return False
    names = [*chain["chain"], *chain["data"], *chain["rows"]]
    names += [stage.get(key) if isinstance(stage, dict) else None for stage in chain["stages"] for key in _OF_STAGE]
    rows = [isinstance(row, list) and len(row) == len(chain["data"]) for row in chain["scores"]]
    same = all(isinstance(name, str) for name in names) and 0 < len(chain["rows"]) == len(rows) and all(rows)
    return same and all(cell is None or _is_score(cell) for row in chain["scores"] for cell in row)


def _is_score(cell: Any) -> bool:
    cmc = cell.get("cmc") if isinstance(cell, dict) else None
    return isinstance(cmc, dict) and all(isinstance(one, int | float) for one in (cell.get("mAP"), cmc.get("1")))


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


_PARTS = {"chain", "stages", "data", "rows", "scores"}
_OF_STAGE = ("run", "data")
_AGAIN = "Run the same transfer-chain again."
