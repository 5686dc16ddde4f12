"""ONNX models of any program as runs, for notebooks and scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ptlreid.models.graph_folder import find_model
from ptlreid.progress import Progress, Silent
from ptlreid.runs import RunFolder
from ptlreid.settings import GraphSettings

_RUNS = Path("runs")


def open_model(
    file: Path | str, *, runs: Path | str = _RUNS, progress: Progress | None = None, **settings: Any
) -> RunFolder:
    """An ONNX model in the place of a run, for `evaluate_run`, `calibrate_run`, `embed`, `search` and `load_extractor`.

    `settings`: those of the images that it takes, where no card next to it states them: `mean`, `std`, `bgr`, `height`
    and `width` of `ptlreid evaluate`. Features and thresholds are kept below `runs`.
    """
    return find_model(Path(runs), Path(file), GraphSettings.resolve(None, **settings), progress or Silent())
