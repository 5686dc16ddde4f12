"""ONNX graphs for tests: networks that torch exports, and small graphs that are put together by hand."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from ptlreid.models.network import Network


class Embedding(nn.Module):
    """A network as a graph has it: from standardised images to features."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images).embedding


def export(network: Network, path: Path) -> Path:
    """The network as torch exports it, with any batch size."""
    images = torch.zeros(3, 3, 64, 32)
    shapes = ({0: torch.export.Dim("batch", min=1, max=1024)},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Embedding(network), (images,), dynamo=True, dynamic_shapes=shapes, verbose=False, input_names=["images"]
        )
    program.save(path)
    return path


def prepend(path: Path, nodes: Sequence[onnx.NodeProto], image: onnx.ValueInfoProto, to: Path, *values) -> Path:
    """The graph with nodes, which need `values`, before it: from a new input `image` to what was its input."""
    model = onnx.load(path)
    model.graph.input[0].CopyFrom(image)
    old = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *old])
    model.graph.initializer.extend(values)
    to.write_bytes(model.SerializeToString())
    return to


def fix_batch(path: Path, size: int, to: Path) -> Path:
    """The graph with one batch size in its input."""
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = size
    to.write_bytes(model.SerializeToString())
    return to


def save(nodes: Sequence[onnx.NodeProto], path: Path, **changes) -> Path:
    """A graph of these nodes from `images` to `features`; `changes`: its inputs, outputs and initializers."""
    given = {
        "inputs": [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 8, 4])],
        "outputs": [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 3])],
        "initializer": [],
        "functions": [],
    } | changes
    graph = helper.make_graph(nodes, "graph", given["inputs"], given["outputs"], given["initializer"])
    domains = {node.domain for node in nodes}
    opsets = [helper.make_opsetid(domain, 1 if domain else 18) for domain in sorted({"", *domains})]
    model = helper.make_model(graph, opset_imports=opsets, functions=given["functions"], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


def mean_colour(source: str = "images") -> list[onnx.NodeProto]:
    """The mean of each channel as the feature."""
    return [
        helper.make_node("GlobalAveragePool", [source], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
    ]


def write_model(path: Path) -> Path:
    """A model of another program, for images of 64×32: the feature is the mean colour."""
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 64, 32])
    return save(mean_colour(), path, inputs=[image])


def constant(values, name: str) -> TensorProto:
    """An initializer."""
    return numpy_helper.from_array(np.asarray(values), name)
