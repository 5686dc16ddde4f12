"""What an ONNX file holds, read without running it. What could reach outside its folder is refused.

Operators run in onnxruntime only, which has those of the standard domains; what they compute is first tried in a
process of its own, see `graph_trial`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from ptlreid.errors import DataError, OptionError
from ptlreid.file_kinds import identify, printable
from ptlreid.files import file_digest, read_regular

MAX_WEIGHT_BYTES = 4 << 30
MAX_NODES = 200_000
_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
_LOOPS = ("Loop", "Scan", "SequenceMap")
# Of com.microsoft: those that load a file or call Python.
_OUTSIDE = ("EPContext", "PythonOp", "PythonOpGrad", "ATen", "ExternOp")
_MAX_DEPTH = 8  # of branches in branches
_MEMORY_ADDRESS = "_ORT_MEM_ADDR_"  # a location that onnxruntime reads as an address in memory
_MIN_IR_VERSION = 3


@dataclass(frozen=True)
class GraphTensor:
    """An input or output. `dtype`: NumPy's name of its type. `shape`: None for a size that the graph leaves open.

    The shape as a whole is None where the graph states none.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        size = "?" if self.shape is None else ", ".join("?" if one is None else str(one) for one in self.shape)
        return f"{printable(self.name, 60)} {self.dtype} ({size})"


@dataclass(frozen=True)
class GraphContent:
    """An ONNX file that may be run. `digest`: of its bytes, and those of its external data. `half`: with float16."""

    digest: str
    inputs: Sequence[GraphTensor]
    outputs: Sequence[GraphTensor]
    opset: int
    weight_bytes: int
    half: bool


def import_onnx() -> Any:
    """The package onnx; `OptionError` with what to install if it is missing."""
    try:
        import onnx
        import onnxruntime  # noqa: F401 - needed a moment later
    except ImportError:
        raise OptionError(
            "ONNX files need the packages onnx and onnxruntime, which are not installed: expected both. Install them "
            "with `pip install 'ptlreid[export]'`."
        ) from None
    return onnx


def inspect_graph(path: Path) -> GraphContent:
    """What the ONNX file at `path` holds; nothing of it is run.

    Raises `DataError` for a file that is no complete ONNX graph; for external data that is not in its folder; for
    operators of other programs, functions, loops and subgraphs other than the branches of an If; for weights above
    `MAX_WEIGHT_BYTES`.
    """
    onnx = import_onnx()
    try:
        content = read_regular(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}): expected an ONNX file. {_GIVE}") from None
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
        complete = model.ir_version >= _MIN_IR_VERSION and len(model.graph.node) > 0
    except Exception:  # noqa: BLE001 - protobuf's own kinds differ by version
        complete = False
    if not complete:
        raise DataError(f"{path}: {identify(content)}, expected a complete ONNX file. {_GIVE}")
    graphs = list(_walk(path, model))
    tensors = [tensor for graph in graphs for tensor in _tensors(graph)]
    weight_bytes = _count_bytes(path, onnx, tensors)
    given = {tensor.name for tensor in model.graph.initializer}
    return GraphContent(
        _digest(path, content, _find_external(path, onnx, tensors)),
        [_describe(path, onnx, value) for value in model.graph.input if value.name not in given],
        [_describe(path, onnx, value) for value in model.graph.output],
        next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 0),
        weight_bytes,
        any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in tensors),
    )


def digest_graph(path: Path) -> str:
    """The digest of an ONNX file: of its bytes, as `files.file_digest`; with external data of those files as well.

    Raises `DataError` as `inspect_graph`.
    """
    return inspect_graph(path).digest


_GIVE = "Give a graph that was exported to ONNX."
_PLAIN = "Export it as a plain graph from images to features."


def _walk(path: Path, model: Any) -> Iterator[Any]:
    """The graph, and the branches in it; `DataError` for what no plain graph has."""
    if len(model.functions):
        names = printable(", ".join(one.name for one in model.functions), 60)
        raise DataError(
            f"{path}: defines functions of its own ({names}): expected operators of ONNX. Inline them, as with "
            "onnx.inliner."
        )
    left, count = [(model.graph, 0)], 0
    while left:
        graph, depth = left.pop()
        yield graph
        count += len(graph.node)
        if count > MAX_NODES or depth > _MAX_DEPTH:
            raise DataError(
                f"{path}: more than {MAX_NODES:,} operators, or branches more than {_MAX_DEPTH} deep: expected fewer. "
                f"{_PLAIN}"
            )
        for node in graph.node:
            _check_operator(path, node)
            left += [(branch, depth + 1) for one in node.attribute for branch in (*_graphs(one),)]


def _graphs(attribute: Any) -> list[Any]:
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _check_operator(path: Path, node: Any) -> None:
    name = printable(f"{node.domain}:{node.op_type}" if node.domain else node.op_type, 60)
    if node.domain not in _DOMAINS or (node.domain == "com.microsoft" and node.op_type in _OUTSIDE):
        raise DataError(
            f"{path}: uses the operator {name} of another program: expected operators of ONNX and onnxruntime. {_PLAIN}"
        )
    if node.op_type in _LOOPS or (node.op_type != "If" and any(map(_graphs, node.attribute))):
        raise DataError(f"{path}: has a loop ({name}): expected none, as its length is not known. {_PLAIN}")
    if any(one.name == "training_mode" and one.i for one in node.attribute):
        raise DataError(
            f"{path}: {name} is in training mode: expected evaluation, as features would depend on the other images "
            "of a batch. Export it again after network.eval()."
        )


def _tensors(graph: Any) -> Iterator[Any]:
    """All tensors with values in a graph, without those of its branches."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for one in node.attribute:
            yield from one.tensors
            if one.HasField("t"):
                yield one.t
            for sparse in (*one.sparse_tensors, *([one.sparse_tensor] if one.HasField("sparse_tensor") else [])):
                yield from (sparse.values, sparse.indices)


def _count_bytes(path: Path, onnx: Any, tensors: Sequence[Any]) -> int:
    """The bytes of all tensors by their stated shapes."""
    total = 0
    for tensor in tensors:
        if any(size < 0 for size in tensor.dims):
            name = printable(tensor.name, 60)
            raise DataError(f"{path}: the tensor {name} has a negative size: expected 0 or more. {_GIVE}")
        total += prod(tensor.dims) * _item_bytes(onnx, tensor.data_type)
    if total > MAX_WEIGHT_BYTES:
        raise DataError(
            f"{path}: states weights of {total:.3g} bytes: expected at most {MAX_WEIGHT_BYTES:,}. Give a smaller model."
        )
    return total


def _item_bytes(onnx: Any, data_type: int) -> int:
    try:
        return int(onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize)
    except (KeyError, ValueError, TypeError):
        return 8  # none of NumPy's, which onnxruntime may refuse


def _find_external(path: Path, onnx: Any, tensors: Sequence[Any]) -> list[Path]:
    """The files of external data, sorted, each once; `DataError` for one that is not in the folder of the graph."""
    locations = {
        entry.value
        for tensor in tensors
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    folder, found = path.resolve().parent, []
    for location in sorted(locations):
        try:
            file = (folder / location).resolve()
            inside = file.is_relative_to(folder) and not Path(location).is_absolute() and file.is_file()
        except (OSError, ValueError):
            inside = False
        if not inside or ".." in Path(location).parts or _MEMORY_ADDRESS in location:
            raise DataError(
                f"{path}: its weights are said to be in {printable(location, 80)}: expected a file in its own folder. "
                "Copy the model with all its files."
            )
        found.append(file)
    return found


def _digest(path: Path, content: bytes, external: Sequence[Path]) -> str:
    digest = hashlib.blake2b(content, digest_size=16)
    if not external:
        return digest.hexdigest()
    for file in external:
        try:
            digest.update(file_digest(file).encode())
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror}): expected the weights of {path}.") from None
    return digest.hexdigest()


def _describe(path: Path, onnx: Any, value: Any) -> GraphTensor:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        raise DataError(f"{path}: {printable(value.name, 60)} is no tensor: expected tensors only. {_PLAIN}")
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
    except (KeyError, ValueError, TypeError):
        dtype = "of an unknown type"
    if not kind.HasField("shape"):
        return GraphTensor(value.name, dtype, None)
    sizes = (one.dim_value if one.HasField("dim_value") else None for one in kind.shape.dim)
    # Some programs write -1 for a size that is open.
    return GraphTensor(value.name, dtype, tuple(size if size and size > 0 else None for size in sizes))
