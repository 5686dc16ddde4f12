"""An ONNX model in the place of a run: where its features and thresholds are kept."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ptlreid.errors import OptionError
from ptlreid.models.graph_file import GraphFile, read_graph
from ptlreid.progress import Progress
from ptlreid.runs import RunFolder
from ptlreid.settings import FinetuneSettings, GraphSettings
from ptlreid.thresholds_schema import Calibration

_FOLDER = "models"  # below that of the runs
_DIGITS = 8


@dataclass(frozen=True)
class ModelFolder(RunFolder):
    """An ONNX model in the place of a run. `path`: of its file. `folder`: where features and thresholds are kept."""

    graph: GraphFile
    folder: Path

    @property
    def features(self) -> Path:
        """The folder of cached features, HDF5."""
        return self.folder / "features"

    @property
    def thresholds(self) -> Path:
        """The thresholds of `ptlreid calibrate`, JSON."""
        return self.folder / "thresholds.json"

    @property
    def issued_calibrations(self) -> list[Calibration]:
        """The one on its card, if it has one: that of the run, whose features are those of the graph."""
        graph = self.graph
        if graph.calibration is None:
            return []
        return [
            {
                **graph.calibration,
                "weights_digest": graph.digest,
                "readout": graph.readout.describe(),  # type: ignore[typeddict-item]
                "camera_statistics": graph.cameras.digest if graph.cameras else "",
            }
        ]

    @property
    def option(self) -> str:
        """The option that chooses it."""
        return f"--model {self.path}"

    def weights_digest(self, which: str) -> str:
        """The digest of the graph."""
        return self.graph.digest

    def settings(self) -> FinetuneSettings:
        """Raises `OptionError`: a model does not state what it was trained on."""
        raise OptionError(f"--model {self.path}: does not state a dataset, expected that to use. Name it with --data.")


def find_model(runs: Path, path: Path, settings: GraphSettings, progress: Progress) -> ModelFolder:
    """The model in the ONNX file at `path`, with its folder below `runs`; nothing is written next to the file.

    Raises `DataError` and `OptionError` as `graph_file.read_graph`.
    """
    graph = read_graph(path, settings, progress)
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", path.stem).strip(".-")[:100] or "model"
    return ModelFolder(path, graph, runs / _FOLDER / f"{name}-{graph.digest[:_DIGITS]}")
