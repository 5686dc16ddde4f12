"""`ptlreid check --model`: what an ONNX model takes and returns, and where each fact comes from."""

from __future__ import annotations

from typing import Any

from ptlreid.models.graph_file import GraphFile


def check_model(graph: GraphFile) -> dict[str, Any]:
    """The facts about a graph, after its trial on two images: docs/models-of-others.md.

    Raises `DataError` for a graph that cannot be run.
    """
    session = graph.open(1, "cpu")
    return {
        "model": str(graph.path),
        "digest": graph.digest,
        "opset": graph.opset,
        "weight_bytes": graph.weight_bytes,
        "input": dict(graph.image),
        "origins": dict(graph.origins),
        "batch": session.spec.batch,
        "output": {
            "width": session.spec.width,
            "flip": graph.readout.flip,
            "normalize": graph.readout.normalize,
        },
        "cameras": [list(name) for name in graph.cameras.names] if graph.cameras else [],
    }
