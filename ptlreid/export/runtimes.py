"""An exported graph in the runtime of its format, for the gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptlreid.card_schema import Card
from ptlreid.export import formats
from ptlreid.files import file_digest
from ptlreid.models.camera_statistics import GraphCameras
from ptlreid.models.graph_file import GraphFile, read_graph
from ptlreid.models.graph_session import Call, GraphSession, GraphSpec
from ptlreid.network_types import Readout
from ptlreid.progress import Progress
from ptlreid.settings import GraphSettings


@dataclass(frozen=True)
class ExportedFile(GraphFile):
    """A graph of torch.export or OpenVINO that this program has just written: it is not tried out first."""

    def open(self, threads: int, device: str) -> GraphSession:
        """The graph, loaded by its own runtime on the CPU."""
        cameras = self.cameras
        spec = GraphSpec(
            self.path,
            self.image,
            cameras.input if cameras else None,
            len(cameras.names) if cameras else 0,
            None,
            self.width,
            0,
            self.half,
        )
        load = _load_torch if self.path.suffix == formats.TORCH else _load_openvino
        return GraphSession(spec, load(self.path, threads))


def open_exported(file: Path, card: Card, progress: Progress, *, half: bool) -> GraphFile:
    """The file that was exported with this card, which lies next to it."""
    if file.suffix == formats.ONNX:
        return read_graph(file, GraphSettings.resolve(None), progress)
    output, stated = card["output"], card["cameras"]
    names = [(one["data"], one["camera"]) for one in stated["names"]] if stated else []
    return ExportedFile(
        file,
        card["digest"],
        card["input"],
        None,
        output["width"],
        Readout(output["flip"], output["normalize"]),
        GraphCameras(names, stated["input"]) if stated else None,
        {},
        formats.OPSET,
        0,
        half,
    )


def digest(file: Path) -> str:
    """The digest of an exported graph; of OpenVINO's two files that of their digests."""
    digests = [file_digest(one) for one in formats.files_of(file)]
    if len(digests) == 1:
        return digests[0]
    from hashlib import blake2b

    return blake2b("".join(digests).encode(), digest_size=16).hexdigest()


def changed_weights(file: Path, tensors: Mapping[str, np.ndarray]) -> list[str]:
    """The tensors of an ONNX graph that differ from the run's of the same name, bit for bit.

    `tensors`: the run's, by their name in the graph, as `FeatureGraph` holds them. Tensors of other names, which the
    exporter has computed from them, are not compared.
    """
    onnx = formats.import_exporter(file)
    changed = []
    for tensor in onnx.load(file).graph.initializer:
        own = tensors.get(tensor.name)
        if own is None:
            continue
        found = onnx.numpy_helper.to_array(tensor)
        if found.dtype != own.dtype or found.shape != own.shape or found.tobytes() != own.tobytes():
            changed.append(tensor.name)
    return changed


def _load_torch(file: Path, threads: int) -> Call:
    import torch

    module = torch.export.load(file).module()

    def call(feeds: dict[str, Any]) -> np.ndarray:
        with torch.inference_mode():
            features = module(**{name: torch.from_numpy(value) for name, value in feeds.items()})
        return np.asarray(features.numpy())

    return call


def _load_openvino(file: Path, threads: int) -> Call:
    openvino = formats.import_openvino(file)
    options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(file, "CPU", options)
    return lambda feeds: np.asarray(compiled(feeds)[0])
